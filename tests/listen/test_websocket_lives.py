"""How long a websocket lives that somebody opened with a credential; told by independent clients."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.minted import ROUTES, ask_for_token, claims_of, websocket_token
from tests.support.redis_server import RedisServer
from tests.support.upstream import until
from tests.support.websocket_clients import Opening, open_with_aiohttp, open_with_websockets
from tests.support.websockets import echo_server, handshake, switching, then_echo
from tests.support.wire import bearer

CLIENTS = pytest.mark.parametrize("opening", [open_with_websockets, open_with_aiohttp], ids=["websockets", "aiohttp"])


@asynccontextmanager
async def gateway_before_echo(database_url: str, **changes: Any) -> AsyncIterator[GatewayUnderTest]:
    settings: dict[str, Any] = {"routes": ROUTES} | changes
    async with (
        echo_server() as url,
        gateway_under_test(database_url, upstreams={"app": {"url": url}}, **settings) as gateway,
    ):
        yield gateway


@asynccontextmanager
async def talking(gateway: GatewayUnderTest, opening: Opening, token: str, **options: Any) -> AsyncIterator[Any]:
    async with opening(f"ws://127.0.0.1:{gateway.port}/ws/a?token={token}", **options) as client:
        await client.send("hello")
        assert await client.receive() == "hello"
        yield client


async def closes(gateway: GatewayUnderTest, reason: str) -> float:
    return await gateway.metric("gateway_websocket_closes_total", reason=reason)


@CLIENTS
async def test_w05_clients_talk_with_a_token_in_the_query(database_url: str, opening: Opening) -> None:
    async with gateway_before_echo(database_url) as gateway:
        async with talking(gateway, opening, await websocket_token(gateway)):
            assert len(gateway.reloader.home.live) == 1
        await until(lambda: not len(gateway.reloader.home.live))


@CLIENTS
async def test_w05_clients_talk_with_a_subprotocol_pair_and_are_told_its_mark(
    database_url: str, opening: Opening
) -> None:
    async with gateway_before_echo(database_url) as gateway:
        token = await websocket_token(gateway)
        url = f"ws://127.0.0.1:{gateway.port}/ws/a"
        async with opening(url, subprotocols=["bearer", token]) as client:
            await client.send("hello")

            assert await client.receive() == "hello"
            assert client.subprotocol == "bearer"


@CLIENTS
async def test_w07_websocket_ends_with_4401_when_its_token_expires(database_url: str, opening: Opening) -> None:
    async with gateway_before_echo(database_url, tokens={"websocket_life": "1s"}) as gateway:
        async with talking(gateway, opening, await websocket_token(gateway)) as client:
            code = await client.ended()
        await until(lambda: not len(gateway.reloader.home.live))

        assert code == 4401
        assert await closes(gateway, "token_expired") == 1


@pytest.mark.parametrize("named", ["connection", "token"])
async def test_w07_websocket_lives_on_when_its_session_renews_it(database_url: str, named: str) -> None:
    async with gateway_before_echo(database_url, tokens={"websocket_life": "3s"}) as gateway:
        token = await websocket_token(gateway)
        async with talking(gateway, open_with_websockets, token) as client:
            name = client._connection.response.headers["X-Actor-Connection-Id"]
            wish = {"connectionId": name if named == "connection" else claims_of(token)["jti"]}
            for _ in range(4):
                await asyncio.sleep(1.2)
                reply = await ask_for_token(gateway, wish)
                assert reply.status == 201
            await client.send("still here")

            assert await client.receive() == "still here"
            assert await client.ended() == 4401


async def test_w07_nobody_else_renews_it(database_url: str) -> None:
    async with gateway_before_echo(database_url) as gateway:
        token = await websocket_token(gateway)
        async with talking(gateway, open_with_websockets, token):
            wish = {"connectionId": claims_of(token)["jti"]}
            others = [
                await ask_for_token(gateway, wish, sub="user_2another"),
                await ask_for_token(gateway, wish, sid="sess_2another"),
                await ask_for_token(gateway, {"connectionId": "unknown"}),
            ]

        assert [(reply.status, reply.code) for reply in others] == [(404, "connection_unknown")] * 3


async def test_w07_websocket_of_a_session_outlives_the_sessions_jwt(database_url: str) -> None:
    async with gateway_before_echo(database_url, clerk={"leeway": "0s"}) as gateway:
        token = mint_token(exp=_in(1.0))
        async with _with_bearer(gateway, token) as (reader, writer):
            await asyncio.sleep(2.2)
            writer.write(b"\x81\x85\x00\x00\x00\x00hello")

            assert await reader.readexactly(7) == b"\x81\x05hello"
            refused = await gateway.get("/x", bearer(token))
        assert refused.status == 401


@CLIENTS
@pytest.mark.parametrize("change", ["disabled_at", "deleted_at"])
async def test_w07_websockets_of_a_user_end_when_they_are_seen_to_be_gone(
    database_url: str, opening: Opening, change: str
) -> None:
    async with gateway_before_echo(database_url, cache={"near_ttl": "1ms", "degraded_ttl": "1ms"}) as gateway:
        other = await websocket_token(gateway, sub="user_2stays")
        async with (
            talking(gateway, opening, await websocket_token(gateway)) as client,
            talking(gateway, opening, other) as stays,
        ):
            connection = await asyncpg.connect(database_url)
            await connection.execute(f"UPDATE users SET {change} = now() WHERE clerk_id = 'user_2testSubject'")
            await connection.close()
            reply = await gateway.get("/x", bearer(mint_token()))

            assert reply.status in (401, 403)
            assert await client.ended() == 4401
            await stays.send("still here")
            assert await stays.receive() == "still here"
        assert await closes(gateway, "revoked") == 1


async def test_a_session_that_is_ended_takes_its_websockets_along_and_no_others(database_url: str) -> None:
    async with gateway_before_echo(database_url) as gateway:
        one, other = await websocket_token(gateway), await websocket_token(gateway, sid="sess_2other")
        async with (
            talking(gateway, open_with_websockets, one) as client,
            talking(gateway, open_with_aiohttp, other) as stays,
        ):
            ended = gateway.reloader.home.live.end(session="sess_2testSession")

            assert ended == 1
            assert await client.ended() == 4401
            await stays.send("still here")
            assert await stays.receive() == "still here"


async def test_user_who_is_ended_while_the_upstream_thinks_gets_no_websocket(database_url: str) -> None:
    async with gateway_under_test(database_url, routes=ROUTES) as gateway:
        token = await websocket_token(gateway)
        asked, may_answer = asyncio.Event(), asyncio.Event()

        async def thinking(received: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool | None:
            asked.set()
            await may_answer.wait()
            return await then_echo(switching())(received, reader, writer)

        gateway.upstream.respond_early = thinking
        async with gateway.wire() as wire:
            await wire.send(handshake(f"/ws/a?token={token}"))
            await asked.wait()
            gateway.reloader.home.live.end(session="sess_2testSession")
            may_answer.set()

            await wire.reader.readuntil(b"\r\n\r\n")
            assert await wire.reader.readexactly(4) == b"\x88\x09\x11\x31"


async def test_declined_handshake_leaves_nothing_behind(database_url: str) -> None:
    async with gateway_under_test(database_url, routes=ROUTES) as gateway:
        token = await websocket_token(gateway)
        reply = await gateway.ask(handshake(f"/ws/a?token={token}"))

        assert reply.status == 502
        assert len(gateway.reloader.home.live) == 0


async def test_connection_is_named_to_both_ends_and_a_client_cannot_name_it(database_url: str) -> None:
    async with gateway_under_test(database_url, routes=ROUTES) as gateway:
        gateway.upstream.respond_early = then_echo(switching("X-Actor-Connection-Id: forged"))
        names = []
        for target in ("/public/ws", f"/ws/a?token={await websocket_token(gateway)}"):
            async with gateway.wire() as wire:
                await wire.send(handshake(target, "X-Actor-Connection-Id: forged"))
                head = await wire.reader.readuntil(b"\r\n\r\n")
            told = [line for line in head.split(b"\r\n") if line.startswith(b"X-Actor-Connection-Id: ")]
            names.append(gateway.upstream.last.one("x-actor-connection-id"))
            assert told == [b"X-Actor-Connection-Id: " + names[-1].encode()]
        gateway.upstream.respond_early = None
        await gateway.get("/x", bearer(mint_token()), "X-Actor-Connection-Id: forged")

        assert len(set(names)) == 2
        assert gateway.upstream.last.all("x-actor-connection-id") == []


async def open_once(gateway: GatewayUnderTest, token: str) -> int:
    async with gateway.wire() as wire:
        await wire.send(handshake(f"/ws/a?token={token}"))
        head = await wire.reader.readuntil(b"\r\n\r\n")
    return int(head.split(b" ")[1])


@pytest.mark.parametrize("shared", [True, False], ids=["redis", "memory"])
async def test_w06_token_of_single_use_opens_one_websocket(
    request: pytest.FixtureRequest, database_url: str, shared: bool
) -> None:
    redis: dict[str, Any] = {"redis": {"url": request.getfixturevalue("redis_url")}} if shared else {}
    async with gateway_under_test(database_url, routes=ROUTES, websocket={"single_use": True}, **redis) as gateway:
        gateway.upstream.respond_early = then_echo(switching())
        token = await websocket_token(gateway)
        other = (await ask_for_token(gateway)).json()["token"]

        statuses = await asyncio.gather(*(open_once(gateway, token) for _ in range(5)))
        more = [await open_once(gateway, other), await open_once(gateway, other)]
        assert await gateway.reload(websocket={"max_age": "1h"})
        after_reload = await open_once(gateway, token)

    assert sorted(statuses) == [101, 401, 401, 401, 401]
    assert more == [101, 401]
    assert after_reload == 401


async def test_w06_nothing_opens_on_a_token_of_single_use_while_redis_is_away(
    database_url: str, redis_server: RedisServer, redis_url: str
) -> None:
    settings: dict[str, Any] = {"websocket": {"single_use": True}, "redis": {"url": redis_url}}
    async with gateway_under_test(database_url, routes=ROUTES, **settings) as gateway:
        token = await websocket_token(gateway)
        redis_server.stop()
        reply = await gateway.ask(handshake(f"/ws/a?token={token}"))
        redis_server.start()
        gateway.upstream.respond_early = then_echo(switching())
        after = await open_once(gateway, token)

    assert (reply.status, reply.code) == (503, "verifier_unavailable")
    assert reply.get("retry-after") is not None
    assert after in (101, 503)


def _in(seconds: float) -> float:
    return time.time() + seconds


@asynccontextmanager
async def _with_bearer(
    gateway: GatewayUnderTest, token: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with gateway.wire() as wire:
        await wire.send(handshake("/ws/a", bearer(token)))
        head = await wire.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        yield wire.reader, wire.writer
