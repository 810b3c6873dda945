"""Nobody can tell whether a token is good: the transport ends, so that clients come back; nobody is told it is bad."""

import asyncio
from typing import Any

import aiohttp
import pytest
import socketio

from tests.support.gateway import GatewayUnderTest
from tests.support.minted import websocket_token
from tests.support.postgres import PostgresServer
from tests.support.socketio_upstream import connected_client, socketio_gateway

FORGETFUL: dict[str, Any] = {"cache": {"near_ttl": "1ms", "degraded_ttl": "1ms", "stale_if_error": "1ms"}}
DEADLINE_S = 20.0


@pytest.mark.parametrize("transports", [["websocket"], ["polling"]], ids=["websocket", "polling"])
async def test_outage_ends_the_transport_and_says_nothing_of_the_token(
    postgres_server: PostgresServer, transports: list[str]
) -> None:
    async with socketio_gateway(postgres_server.url, **FORGETFUL) as way, aiohttp.ClientSession() as session:
        token = await websocket_token(way.gateway)
        told, cut = list[Any](), asyncio.Event()
        client = socketio.AsyncClient(reconnection=False, http_session=session)
        client.on("connect_error", told.append)
        client.eio.on("disconnect", lambda reason: cut.set())
        await asyncio.sleep(0.01)  # longer than anything is remembered
        await postgres_server.stop()
        await client.connect(way.url, auth={"token": token}, transports=transports, wait=False)
        await asyncio.wait_for(cut.wait(), DEADLINE_S)
        before = list(way.upstream.auths)
        await postgres_server.start(migrated=False)
        await _ready(way.gateway)
        async with connected_client(way.url, token, transports=transports) as again:
            assert await again.call("echo", "x") == "x"

        assert told == []
        assert before == []


async def _ready(gateway: GatewayUnderTest) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while (await gateway.admin("/readyz")).status != 200:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("transports", [["websocket"], ["polling"]], ids=["websocket", "polling"])
async def test_w06_nobody_connects_and_nobody_is_refused_while_single_use_cannot_be_told(
    database_url: str, transports: list[str]
) -> None:
    settings: dict[str, Any] = {"websocket": {"single_use": True}, "redis": {"url": "redis://127.0.0.1:1"}}
    async with socketio_gateway(database_url, **settings) as way, aiohttp.ClientSession() as session:
        told, cut = list[Any](), asyncio.Event()
        client = socketio.AsyncClient(reconnection=False, http_session=session)
        client.on("connect_error", told.append)
        client.eio.on("disconnect", lambda reason: cut.set())
        auth = {"token": await websocket_token(way.gateway)}
        await client.connect(way.url, auth=auth, transports=transports, wait=False)
        await asyncio.wait_for(cut.wait(), DEADLINE_S)

        assert told == []
        assert way.upstream.auths == []
