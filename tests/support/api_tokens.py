"""API tokens over the wire, and texts that look like one."""

import zlib
from typing import Any

import orjson

from provisioning.ids import base62
from tests.support.gateway import GatewayUnderTest, mint_token
from tests.support.wire import Reply, bearer, request

PATH = "/users/current/api-tokens"


def written_token(public_id: str, secret: str) -> str:
    """Write a token with a checksum that is right, whether such a token exists or not."""
    body = f"agt_{public_id}{secret}"
    return body + base62(zlib.crc32(body.encode()), 6)


def with_another_secret(token: str) -> str:
    """The same public id with a secret that is wrong."""
    secret = token[16:59]
    return written_token(token[4:16], ("1" if secret[0] == "0" else "0") + secret[1:])


async def call(
    gateway: GatewayUnderTest, credential: str, method: str, target: str, body: object = None, *lines: str
) -> Reply:
    """Call an own endpoint with a bearer token and a JSON body."""
    content = b"" if body is None else orjson.dumps(body)
    typed = () if body is None else ("Content-Type: application/json",)
    return await gateway.ask(request(target, bearer(credential), *typed, *lines, method=method, body=content))


async def made_token(gateway: GatewayUnderTest, session: str | None = None, **body: Any) -> dict[str, Any]:
    """Make one through the API; gives the answer's document."""
    reply = await call(gateway, session or mint_token(), "POST", PATH, {"name": "Robot", "scopes": []} | body)
    assert reply.status == 201, reply.body
    document: dict[str, Any] = reply.json()
    return document
