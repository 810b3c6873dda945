"""What is open at one gateway ends when its rights end at another; and how gateways do while Redis is not there."""

import asyncio
from typing import Any

import pytest

from tests.revocation.test_two_gateways import refused, status, two_gateways
from tests.support.api_tokens import PATH, call, made_token
from tests.support.fault_proxy import Fault, fault_proxy
from tests.support.gateway import ROUTES, GatewayUnderTest, gateway_under_test, mint_token
from tests.support.minted import ROUTES as SOCKET_ROUTES
from tests.support.minted import websocket_token
from tests.support.people import administrator, met
from tests.support.redis_server import RedisServer
from tests.support.upstream import Received
from tests.support.websocket_clients import open_with_websockets
from tests.support.websockets import echo_server
from tests.support.wire import bearer, request

BOSS = "user_2boss"
LONG_LIVES: dict[str, Any] = {"near_ttl": "300s", "degraded_ttl": "300s"}
CHUNK = b"x" * 10


async def events(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send an event every moment, for ever."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK))
        await writer.drain()
        await asyncio.sleep(0.05)


async def download(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a long file slowly."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/zip\r\nContent-Length: 1000000000\r\n\r\n")
    while True:
        writer.write(CHUNK)
        await writer.drain()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("answer", [events, download])
@pytest.mark.parametrize("fast_lane", [True, False], ids=["fast_lane", "aiohttp_lane"])
async def test_w07_an_answer_under_way_is_cut_when_its_token_is_revoked_at_another_gateway(
    database_url: str, redis_url: str, fast_lane: bool, answer: Any
) -> None:
    settings: dict[str, Any] = {"cache": LONG_LIVES, "fast_lane": fast_lane}
    async with two_gateways(database_url, redis_url, **settings) as (one, other):
        made, kept = await made_token(one), await made_token(one)
        other.upstream.respond = answer
        async with other.wire() as wire, other.wire() as another:
            for each, token in ((wire, made), (another, kept)):
                await each.send(request("/x", bearer(token["token"])))
                await asyncio.wait_for(each.reader.readuntil(CHUNK), 10)
            revoked = await call(one, mint_token(), "DELETE", f"{PATH}/{made['id']}")
            rest = await asyncio.wait_for(wire.rest(), 20)
            for _ in range(3):
                await asyncio.wait_for(another.reader.readuntil(CHUNK), 10)

    assert revoked.status == 204
    assert not rest.endswith(b"0\r\n\r\n")  # nobody takes it for whole


@pytest.mark.parametrize("fast_lane", [True, False], ids=["fast_lane", "aiohttp_lane"])
async def test_w07_an_answer_is_cut_whose_token_was_revoked_while_it_was_looked_up(
    database_url: str, fast_lane: bool
) -> None:
    settings: dict[str, Any] = {"cache": LONG_LIVES, "fast_lane": fast_lane}
    async with (
        fault_proxy(database_url) as between,
        gateway_under_test(between.through(database_url), **settings) as gateway,
        gateway.wire() as wire,
    ):
        made = await made_token(gateway)
        gateway.upstream.respond = events
        await between.set(Fault.LATENCY)
        await wire.send(request("/x", bearer(made["token"])))
        for _ in range(10):  # PostgreSQL has answered, and nobody has heard it yet
            await asyncio.sleep(0.02)
            gateway.reloader.home.live.end(token=made["id"])
        rest = await asyncio.wait_for(wire.rest(), 20)

    assert CHUNK in rest
    assert not rest.endswith(b"0\r\n\r\n")


async def test_w07_a_websocket_ends_with_4401_when_its_user_is_disabled_at_another_gateway(
    database_url: str, redis_url: str
) -> None:
    async with echo_server() as url:
        settings: dict[str, Any] = {"cache": LONG_LIVES, "routes": SOCKET_ROUTES, "upstreams": {"app": {"url": url}}}
        async with two_gateways(database_url, redis_url, **settings) as (one, other):
            await administrator(one, BOSS)
            user_id = await met(one, "user_2ends")
            ending = await websocket_token(one, sub="user_2ends")
            staying = await websocket_token(one, sub="user_2stays")
            place = f"ws://127.0.0.1:{other.port}/ws/a?token="
            async with open_with_websockets(place + ending) as theirs, open_with_websockets(place + staying) as others:
                for client in (theirs, others):
                    await client.send("hello")
                    assert await client.receive() == "hello"
                reply = await call(one, mint_token(sub=BOSS), "POST", f"/admin/users/{user_id}/disable")
                code = await theirs.ended()
                await others.send("still")
                still = await others.receive()

    assert (reply.status, code, still) == (200, 4401, "still")


async def in_touch(gateway: GatewayUnderTest) -> float:
    return await gateway.metric("gateway_revocations_in_touch")


async def touch_is(gateway: GatewayUnderTest, wanted: float) -> None:
    async with asyncio.timeout(30):
        while await in_touch(gateway) != wanted:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.02)


async def test_v02_with_redis_hanging_gateways_stay_ready_and_believe_for_the_degraded_life(
    database_url: str, redis_server: RedisServer, redis_url: str
) -> None:
    lives = {"near_ttl": "300s", "degraded_ttl": "1s"}
    async with two_gateways(database_url, redis_url, cache=lives) as (one, other):
        made, session = await made_token(one), mint_token()
        before = await status(other, made["token"]), await status(other, session)
        redis_server.freeze()
        try:
            revoked = await call(one, session, "DELETE", f"{PATH}/{made['id']}")
            await touch_is(other, 0)
            await refused(other, made["token"])
            after, ready = await status(other, session), (await other.admin("/readyz")).status
        finally:
            redis_server.thaw()
        await touch_is(other, 1)

    assert before == (200, 200)
    assert (revoked.status, after, ready) == (204, 200, 200)


async def test_a_gateway_that_starts_without_redis_serves_and_finds_the_others_later(
    database_url: str, redis_server: RedisServer, redis_url: str
) -> None:
    redis_server.stop()
    try:
        async with gateway_under_test(database_url, routes=ROUTES, redis={"url": redis_url}) as gateway:
            served = (await gateway.get("/a", bearer(mint_token()))).status
            at_first, ready = await in_touch(gateway), (await gateway.admin("/readyz")).status
            redis_server.start()
            await touch_is(gateway, 1)
    finally:
        if not redis_server._answers():
            redis_server.start()

    assert (served, at_first, ready) == (200, 0, 200)


async def test_a_reload_keeps_the_bus_and_what_it_composes_anew_hears_of_changes(
    database_url: str, redis_url: str
) -> None:
    async with two_gateways(database_url, redis_url, cache=LONG_LIVES) as (one, other):
        before = other.reloader.current.sources
        assert await other.reload(cache={"near_entries": 500})
        after = other.reloader.current.sources
        made = await made_token(one)
        good = await status(other, made["token"])
        await call(one, mint_token(), "DELETE", f"{PATH}/{made['id']}")
        await refused(other, made["token"])

    assert good == 200
    assert after.callers is not before.callers
    assert after.revocations is before.revocations


async def test_a_reload_to_another_redis_finds_those_who_are_there(
    database_url: str, redis_server: RedisServer, redis_url: str
) -> None:
    async with two_gateways(database_url, redis_url, cache=LONG_LIVES) as (one, other):
        elsewhere = redis_url.removesuffix("/0") + "/1"
        for gateway in (one, other):
            assert await gateway.reload(redis={"url": elsewhere})
            await touch_is(gateway, 1)
        made = await made_token(one)
        good = await status(other, made["token"])
        await call(one, mint_token(), "DELETE", f"{PATH}/{made['id']}")
        await refused(other, made["token"])

    assert good == 200


async def test_a_changed_role_counts_at_another_gateway(database_url: str, redis_url: str) -> None:
    admins = {"path": "/admins/**", "auth": "required", "roles": ["ADMIN"], "upstream": "app"}
    settings: dict[str, Any] = {"cache": LONG_LIVES, "routes": [admins, *ROUTES]}
    async with two_gateways(database_url, redis_url, **settings) as (one, other):
        await administrator(one, BOSS)
        user_id, session = await met(one, "user_2risen"), mint_token(sub="user_2risen")
        seen = [(await other.get("/admins/a", bearer(session))).status]
        for role, wanted in (("ADMIN", 200), ("USER", 403)):
            await call(one, mint_token(sub=BOSS), "PATCH", f"/admin/users/{user_id}/role", {"role": role})
            async with asyncio.timeout(20):
                while (await other.get("/admins/a", bearer(session))).status != wanted:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            seen.append(wanted)

    assert seen == [403, 200, 403]
