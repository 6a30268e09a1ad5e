"""Wraps and unwraps system keys on AWS KMS as the Asherahs do, with none of claviger's code.

Each line of input is a request, each line of output its answer, both JSON:

    {"do": "wrap", "as": STYLE, "key": BASE64, "regions": [REGION, ...]}
        -> {"envelope": BASE64}
    {"do": "unwrap", "envelope": BASE64, "regions": [REGION, ...]}
        -> {"key": BASE64, "region": NAME, "fields": [...], "copies": [{"region": ..., "fields": [...]}, ...]}

A REGION is {"region": NAME, "arn": ARN, "endpoint": URL}, the preferred one first. A STYLE is one of
those below: who wrote the envelope shows in the order of its fields and in its escapes. What goes
wrong is {"error": TEXT}.
"""

import base64
import json
import os
import sys

import boto3
from botocore.config import Config
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12


def seal(key, plaintext):
    """AES-256-GCM, laid out as ciphertext, tag, nonce."""
    nonce = os.urandom(NONCE_BYTES)
    return AESGCM(key).encrypt(nonce, plaintext, None) + nonce


def open_sealed(key, sealed):
    return AESGCM(key).decrypt(sealed[-NONCE_BYTES:], sealed[:-NONCE_BYTES], None)


def quoted(text, escaped):
    """A JSON string in which these characters are escaped, by \\u and four digits of either case."""
    digits = "{:04X}" if escaped is CSHARP_ESCAPES else "{:04x}"
    return '"' + "".join("\\u" + digits.format(ord(c)) if c in escaped else c for c in text) + '"'


def written(pairs, escaped):
    """The JSON of an object without white space, its fields in this order."""
    return "{" + ",".join(quoted(name, escaped) + ":" + value for name, value in pairs) + "}"


# What encoding/json escapes in strings so that they are harmless in HTML.
GO_ESCAPES = "<>&"
# What System.Text.Json escapes by default, among it a character of base64.
CSHARP_ESCAPES = "+<>&'`"


def java_order(pairs):
    """The order of a java.util.HashMap of 16 buckets, which org.json keeps an object's fields in."""

    def bucket(name):
        hashed = 0
        for character in name:
            hashed = (31 * hashed + ord(character)) & 0xFFFFFFFF
        return (hashed ^ hashed >> 16) & 15

    # Stable, as the lists in the buckets are.
    return sorted(pairs, key=lambda pair: bucket(pair[0]))


def as_they_are(pairs):
    return pairs


# Order of fields, what is escaped, and in which order the copies stand, given the preferred one first.
STYLES = {
    "go": (as_they_are, GO_ESCAPES, list),
    # Regions that answered sooner stand first.
    "go-late": (as_they_are, GO_ESCAPES, lambda copies: copies[:1] + copies[:0:-1]),
    "java": (java_order, "", list),
    # Json.NET, and copies in a ConcurrentBag: the last comes first.
    "csharp": (as_they_are, "", lambda copies: copies[::-1]),
    # The plug-in for AWS, with System.Text.Json.
    "csharp-plugin": (as_they_are, CSHARP_ESCAPES, list),
}


def base64_of(data):
    return base64.b64encode(data).decode()


class Kms:
    def __init__(self):
        self.clients = {}

    def client(self, region):
        place = (region["region"], region["endpoint"])
        if place not in self.clients:
            self.clients[place] = boto3.client(
                "kms",
                region_name=region["region"],
                endpoint_url=region["endpoint"],
                aws_access_key_id="test",
                aws_secret_access_key="test",
                config=Config(retries={"max_attempts": 0}, proxies={}),
            )
        return self.clients[place]

    def wrap(self, key, regions, style):
        order, escaped, arranged = STYLES[style]
        first = self.client(regions[0]).generate_data_key(KeyId=regions[0]["arn"], KeySpec="AES_256")
        data_key = first["Plaintext"]
        keks = [first["CiphertextBlob"]]
        for region in regions[1:]:
            encrypted = self.client(region).encrypt(KeyId=region["arn"], Plaintext=data_key)
            keks.append(encrypted["CiphertextBlob"])
        copies = [
            written(
                order(
                    [
                        ("region", quoted(region["region"], escaped)),
                        ("arn", quoted(region["arn"], escaped)),
                        ("encryptedKek", quoted(base64_of(kek), escaped)),
                    ]
                ),
                escaped,
            )
            for region, kek in zip(regions, keks)
        ]
        sealed = seal(data_key, key)
        return written(
            order(
                [
                    ("encryptedKey", quoted(base64_of(sealed), escaped)),
                    ("kmsKeks", "[" + ",".join(arranged(copies)) + "]"),
                ]
            ),
            escaped,
        ).encode()

    def unwrap(self, envelope, regions):
        """The key, and the region that unwrapped it. No key is named to KMS, which finds it by itself."""
        sealed = base64.b64decode(envelope["encryptedKey"], validate=True)
        for region in regions:
            for copy in envelope["kmsKeks"]:
                if copy["region"] == region["region"]:
                    kek = base64.b64decode(copy["encryptedKek"], validate=True)
                    data_key = self.client(region).decrypt(CiphertextBlob=kek)["Plaintext"]
                    return open_sealed(data_key, sealed), region["region"]
        raise ValueError("no region of the envelope is among those given")


def answer(kms, request):
    if request["do"] == "wrap":
        key = base64.b64decode(request["key"])
        return {"envelope": base64_of(kms.wrap(key, request["regions"], request["as"]))}
    stored = base64.b64decode(request["envelope"])
    envelope = json.loads(stored)
    key, region = kms.unwrap(envelope, request["regions"])
    return {
        "key": base64_of(key),
        "region": region,
        # An object of json keeps the order in which it was read.
        "fields": list(envelope),
        "copies": [{"region": copy["region"], "fields": list(copy)} for copy in envelope["kmsKeks"]],
    }


def main():
    kms = Kms()
    for line in sys.stdin:
        try:
            print(json.dumps(answer(kms, json.loads(line))), flush=True)
        except Exception as error:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)


main()
