"""Encrypts and decrypts with the Python package asherah, as a test tells it to.

The argument is JSON: the package's configuration, and whether one factory serves all requests.
Without that each request has a factory of its own, and so sees the metastore as a process does that
starts now. Requests and answers are lines of JSON; payloads are hex.
"""

import contextlib
import importlib.metadata
import json
import sys

import asherah


class Go:
    """Version 0.3.9, which is set up once per process at a time."""

    def __init__(self, config):
        self.library = asherah.Asherah()
        self.config = config
        # What the package itself asks of its configuration.
        self.service_name = config["ServiceName"]
        self.product_id = config["ProductID"]

    def to_json(self):
        return self.config

    def __enter__(self):
        self.library.setup(self)
        return self

    def __exit__(self, *_):
        self.library.shutdown()

    def encrypt(self, partition, plaintext):
        return self.library.encrypt(partition, plaintext)

    def decrypt(self, partition, record):
        return bytes(self.library.decrypt(partition, record))


class Rust:
    """Version 0.5.56."""

    def __init__(self, config):
        self.config = config

    def __enter__(self):
        self.factory = asherah.SessionFactory(self.config)
        return self

    def __exit__(self, *_):
        self.factory.close()

    def encrypt(self, partition, plaintext):
        with self.factory.get_session(partition) as session:
            return session.encrypt_bytes(plaintext)

    def decrypt(self, partition, record):
        with self.factory.get_session(partition) as session:
            return session.decrypt_bytes(record)


def answer(package, request):
    if "encrypt" in request:
        return {"record": package.encrypt(request["partition"], bytes.fromhex(request["encrypt"]))}
    return {"plaintext": package.decrypt(request["partition"], request["decrypt"]).hex()}


def main():
    arguments = json.loads(sys.argv[1])
    package = (Rust if hasattr(asherah, "SessionFactory") else Go)(arguments["config"])
    print(json.dumps({"version": importlib.metadata.version("asherah")}), flush=True)
    with package if arguments["live"] else contextlib.nullcontext():
        for line in sys.stdin:
            try:
                with contextlib.nullcontext() if arguments["live"] else package:
                    reply = answer(package, json.loads(line))
            except Exception as error:
                reply = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(reply), flush=True)


main()
