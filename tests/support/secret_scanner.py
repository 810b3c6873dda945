"""A fake of GitHub's secret scanning service at its wire: keys at an address, and signed reports."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.gateway import GatewayUnderTest
from tests.support.wire import Reply, request

KEY_ID = "90a421169f0a406205f1563a953312f0be898d3c7b6c06b681aa86a874555f4a"
TARGET = "/tokens/leaked"


def pem(key: ec.EllipticCurvePrivateKey) -> str:
    """The public half of a key as the service publishes it."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class SecretScanner:
    """Publishes `keys` at `url`.

    Attributes:
        keys: By identifier.
        status: Of its answers.
        fetches: Requests seen.
    """

    def __init__(self) -> None:
        self.keys = {KEY_ID: ec.generate_private_key(ec.SECP256R1())}
        self.url = ""
        self.status = 200
        self.fetches = 0

    def published(self) -> bytes:
        """The document with the keys."""
        return orjson.dumps(
            {
                "public_keys": [
                    {"key_identifier": identifier, "key": pem(key), "is_current": True}
                    for identifier, key in self.keys.items()
                ]
            }
        )

    def signed(self, body: bytes, key_id: str = KEY_ID) -> list[str]:
        """The field lines of a report."""
        signature = base64.b64encode(self.keys[key_id].sign(body, ec.ECDSA(SHA256()))).decode()
        return [
            "Content-Type: application/json",
            f"GITHUB-PUBLIC-KEY-IDENTIFIER: {key_id}",
            f"GITHUB-PUBLIC-KEY-SIGNATURE: {signature}",
        ]

    async def report(self, gateway: GatewayUnderTest, *texts: str) -> Reply:
        """Send a report of these finds."""
        finds: list[dict[str, Any]] = [
            {"token": text, "type": "actorgate", "url": "https://github.com/x/y", "source": "content"} for text in texts
        ]
        body = orjson.dumps(finds)
        return await gateway.ask(request(TARGET, *self.signed(body), method="POST", body=body))


@asynccontextmanager
async def secret_scanner() -> AsyncIterator[SecretScanner]:
    """Run one until the block ends."""
    scanner = SecretScanner()

    async def keys(_: web.Request) -> web.StreamResponse:
        scanner.fetches += 1
        return web.Response(body=scanner.published(), status=scanner.status, content_type="application/json")

    app = web.Application()
    app.router.add_get("/meta/public_keys/secret_scanning", keys)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    scanner.url = f"http://{host}:{port}/meta/public_keys/secret_scanning"
    try:
        yield scanner
    finally:
        await runner.cleanup()
