"""API tokens over the wire, and texts that look like one."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson

from provisioning.ids import base62
from tests.support.gateway import ROUTES, GatewayUnderTest, mint_token
from tests.support.wire import Answering, Reply, bearer, request

PATH = "/users/current/api-tokens"
ASKING: dict[str, Any] = {
    "tokens": {"scopes": ["reports:read", "reports:write"], "per_user": 1000},
    "cache": {"near_ttl": "1ms", "degraded_ttl": "1ms"},  # every request asks the records
    "routes": [
        {"path": "/reports/**", "auth": "required", "scopes": ["reports:read"], "upstream": "app"},
        {"path": "/sessions/**", "auth": "required", "accept": ["session"], "upstream": "app"},
        {"path": "/sockets/**", "auth": "required", "accept": ["websocket_token"], "upstream": "app"},
        {"path": "/admins/**", "auth": "required", "roles": ["ADMIN"], "scopes": ["admin"], "upstream": "app"},
        *ROUTES,
    ],
}


def written_token(public_id: str, secret: str) -> str:
    """Write a token with a checksum that is right, whether such a token exists or not."""
    body = f"agt_{public_id}{secret}"
    return body + base62(zlib.crc32(body.encode()), 6)


def with_another_secret(token: str) -> str:
    """The same public id with a secret that is wrong."""
    secret = token[16:59]
    return written_token(token[4:16], ("1" if secret[0] == "0" else "0") + secret[1:])


async def call(
    gateway: Answering, credential: str, method: str, target: str, body: object = None, *lines: str
) -> Reply:
    """Call an own endpoint with a bearer token and a JSON body."""
    content = b"" if body is None else orjson.dumps(body)
    typed = () if body is None else ("Content-Type: application/json",)
    return await gateway.ask(request(target, bearer(credential), *typed, *lines, method=method, body=content))


async def made_token(gateway: Answering, session: str | None = None, **body: Any) -> dict[str, Any]:
    """Make one through the API; gives the answer's document."""
    reply = await call(gateway, session or mint_token(), "POST", PATH, {"name": "Robot", "scopes": []} | body)
    assert reply.status == 201, reply.body
    document: dict[str, Any] = reply.json()
    return document


@asynccontextmanager
async def connection(gateway: GatewayUnderTest) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection to the gateway's database."""
    assert gateway.settings.database.url is not None
    opened = await asyncpg.connect(gateway.settings.database.url.get_secret_value())
    try:
        yield opened
    finally:
        await opened.close()


async def execute(gateway: GatewayUnderTest, statement: str, *arguments: object) -> None:
    """Change the records."""
    async with connection(gateway) as opened:
        await opened.execute(statement, *arguments)


async def value(gateway: GatewayUnderTest, statement: str, *arguments: object) -> Any:
    """Read one value of the records."""
    async with connection(gateway) as opened:
        return await opened.fetchval(statement, *arguments)


async def use(gateway: GatewayUnderTest, token: str, target: str = "/x", *lines: str) -> Reply:
    """Use a token once what `ASKING` remembers is over."""
    await asyncio.sleep(0.002)  # longer than anything is remembered
    return await gateway.get(target, bearer(token), *lines)


async def refusals(gateway: GatewayUnderTest, reason: str) -> float:
    """How many API tokens were refused for this reason."""
    return await gateway.metric("gateway_auth_decisions_total", kind="api_token", outcome="denied", reason=reason)
