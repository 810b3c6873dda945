"""Websockets that a credential opened at one gateway end with it at another."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.revocation.changes import SessionOver
from tests.support.api_tokens import PATH, call, made_token
from tests.support.clerk_keys import SESSION
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.upstream import until
from tests.support.websocket_clients import open_with_websockets
from tests.support.websockets import echo_server

LIVES = {"near_ttl": "300s", "degraded_ttl": "300s"}


@asynccontextmanager
async def gateways(
    database_url: str, redis_url: str, **changes: Any
) -> AsyncIterator[tuple[GatewayUnderTest, GatewayUnderTest]]:
    """Two that share a Redis, in which nothing is seen by the passing of time alone."""
    settings: dict[str, Any] = {"redis": {"url": redis_url}, "cache": LIVES, **changes}
    async with gateway_under_test(database_url, **settings) as one, gateway_under_test(database_url, **settings) as two:
        yield one, two


@pytest.mark.parametrize("kind", ["API token", "session"])
async def test_w07_websockets_close_with_4401_when_their_credential_ends_through_another_gateway(
    database_url: str, redis_url: str, kind: str
) -> None:
    session = mint_token()
    async with echo_server() as url, gateways(database_url, redis_url, upstreams={"app": {"url": url}}) as (one, two):
        made = await made_token(one, session)
        credential = made["token"] if kind == "API token" else session
        async with open_with_websockets(f"ws://127.0.0.1:{two.port}/ws", token=credential) as client:
            await client.send("hello")
            assert await client.receive() == "hello"
            if kind == "API token":
                await call(one, session, "DELETE", f"{PATH}/{made['id']}")
            else:
                one.reloader.current.sources.revocations.tell(SessionOver(SESSION))
            assert await asyncio.wait_for(client.ended(), 20) == 4401
        await until(lambda: not len(two.reloader.home.live))
