"""Encrypts and decrypts with the Python package asherah, as a test tells it to.

The configuration is the argument. Requests and answers are lines of JSON; payloads are hex. Each
request has a factory of its own, and so sees the metastore as a process does that starts now.
"""

import importlib.metadata
import json
import sys

import asherah


def answer(config, request):
    with asherah.SessionFactory(config) as factory:
        with factory.get_session(request["partition"]) as session:
            if "encrypt" in request:
                return {"record": session.encrypt_bytes(bytes.fromhex(request["encrypt"]))}
            return {"plaintext": session.decrypt_bytes(request["decrypt"]).hex()}


def main():
    config = json.loads(sys.argv[1])
    print(json.dumps({"version": importlib.metadata.version("asherah")}), flush=True)
    for line in sys.stdin:
        try:
            reply = answer(config, json.loads(line))
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)


main()
