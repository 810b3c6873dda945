"""What a reload carries over, and what it gives back."""

import asyncio
import gc
import os
from typing import Any

import pytest

from gateway.actors.callers import Callers
from tests.support.gateway import GatewayUnderTest, mint_token
from tests.support.jwks_server import serve_jwks
from tests.support.upstream import recording_upstream, until
from tests.support.websockets import frame, handshake, switching, then_echo
from tests.support.wire import bearer, request

UNRELATED: list[dict[str, Any]] = [
    {"routes": [{"path": "/**", "auth": "required", "upstream": "app"}]},
    {"hosts": ["app.example.test"]},
    {"limits": {"head_bytes": "16 KiB"}},
    {"cors": {"origins": ["https://a.example"]}},
]


@pytest.mark.parametrize("changes", UNRELATED, ids=lambda changes: next(iter(changes)))
async def test_what_does_not_concern_callers_leaves_their_cache_warm(
    gateway: GatewayUnderTest, changes: dict[str, Any]
) -> None:
    asking = bearer(mint_token())
    await gateway.get("/x", asking)
    before = gateway.reloader.current.sources
    await before.notes.write()  # of the login, which else would be written meanwhile
    lent = before.database.connections_lent
    assert await gateway.reload(**changes)
    reply = await gateway.get("/x", asking)
    after = gateway.reloader.current.sources

    assert reply.status == 200
    assert (after.callers, after.keys, after.database) == (before.callers, before.keys, before.database)
    assert after.database.connections_lent == lent
    assert gateway.jwks.fetches == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"clerk": {"leeway": "1s"}},
        {"clerk": {"missing_azp": {"cookie": "refuse"}}},
        {"clerk": {"profile_claims": {"name": ["nick"]}}},
        {"clerk": {"secret_key": "sk_test_other"}},
        {"cache": {"near_ttl": "1s"}},
        {"provisioning": {"personal_organizations": False}},
        {"database": {"pool_size": 3}},
    ],
    ids=str,
)
async def test_whatever_may_concern_callers_makes_their_cache_anew(
    gateway: GatewayUnderTest, changes: dict[str, Any]
) -> None:
    await gateway.get("/x", bearer(mint_token()))
    before = gateway.reloader.current.sources.callers
    assert await gateway.reload(**changes)

    assert gateway.reloader.current.sources.callers is not before


COUNTED = (
    "gateway_requests_total",
    "gateway_cache_requests_total",
    "gateway_provisioned_users_total",
    "gateway_jwks_fetches_total",
)


async def test_counters_go_on_though_everything_behind_them_is_new(gateway: GatewayUnderTest) -> None:
    asking = bearer(mint_token())
    await gateway.get("/x", asking)
    await gateway.get("/x", asking)
    before = [await gateway.metric(name) for name in COUNTED]
    async with serve_jwks() as keys, recording_upstream() as other:
        assert await gateway.reload(
            clerk={"jwks_url": keys.url, "secret_key": "sk_test_other", "api_url": "http://127.0.0.1:1"},
            database={"pool_size": 3},
            upstreams={"app": {"url": other.url}},
        )
        await gateway.get("/x", asking)

    after = [await gateway.metric(name) for name in COUNTED]
    assert before == [2, 2, 1, 1]
    assert after == [3, 3, 1, 2]


async def test_readiness_is_that_of_what_is_in_force(gateway: GatewayUnderTest) -> None:
    before = gateway.reloader.current.sources
    async with serve_jwks() as keys:
        assert await gateway.reload(clerk={"jwks_url": keys.url}, database={"pool_size": 3})
        await until(lambda: before.database._pool is None)

        assert (await gateway.admin("/readyz")).status == 200


async def test_w09_reload_drops_no_websocket(gateway: GatewayUnderTest) -> None:
    gateway.upstream.respond_early = then_echo(switching())
    async with recording_upstream() as other, gateway.wire() as wire:
        await wire.send(handshake("/ws", bearer(mint_token())))
        await wire.reader.readuntil(b"\r\n\r\n")
        reloads: list[dict[str, Any]] = [
            {"upstreams": {"app": {"url": other.url}}},
            {"routes": [{"path": "/public/**", "auth": "none", "upstream": "app"}]},
            {"clerk": {"issuer": ["https://other.example.test"]}, "websocket": {"max_age": "1ms"}},
        ]
        for number, changes in enumerate(reloads):
            assert await gateway.reload(**changes)
            sent = frame(1, b"message %d" % number, mask=b"abcd")
            await wire.send(sent)

            assert await wire.reader.readexactly(len(sent)) == sent
        assert await gateway.metric("gateway_websockets_open") == 1
        assert await gateway.metric("gateway_upstream_connections", state="upgraded") == 1
    await until(lambda: not gateway.upstream.writers)


async def test_limits_of_websockets_hold_for_those_that_begin_after_the_reload(gateway: GatewayUnderTest) -> None:
    gateway.upstream.respond_early = then_echo(switching())
    sent = frame(1, b"still here", mask=b"abcd")
    async with gateway.wire() as before, gateway.wire() as after:
        await before.send(handshake())
        await before.reader.readuntil(b"\r\n\r\n")
        assert await gateway.reload(websocket={"max_age": "1ms"})
        await after.send(handshake())
        await after.reader.readuntil(b"\r\n\r\n")
        ended = await after.rest()
        await before.send(sent)

        assert b"max_age" in ended
        assert await before.reader.readexactly(len(sent)) == sent


async def test_reloads_leave_nothing_behind(gateway: GatewayUnderTest) -> None:
    async with (
        serve_jwks() as one,
        serve_jwks() as other,
        recording_upstream() as first,
        recording_upstream() as second,
    ):

        async def turn() -> None:
            """Replace everything that can be replaced, use it, and put it back."""
            for keys, upstream, size in ((one, first, 3), (other, second, 4)):
                assert await gateway.reload(
                    clerk={"jwks_url": keys.url},
                    upstreams={"app": {"url": upstream.url}},
                    database={"pool_size": size},
                )
                assert (await gateway.get("/x", bearer(mint_token()))).status == 200

        await turn()
        once, caches_once = await tasks_and_files(), caches()
        for _ in range(5):
            await turn()

        # Connections end a moment after whoever held them; what leaked would never.
        async with asyncio.timeout(10):
            while any(now > then for now, then in zip(await tasks_and_files(), once, strict=True)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert caches() <= caches_once


def caches() -> int:
    """How many caches of callers there are in this process."""
    gc.collect()
    return [type(thing) for thing in gc.get_objects()].count(Callers)


async def tasks_and_files() -> tuple[int, int]:
    files = await asyncio.to_thread(os.listdir, "/proc/self/fd")
    return len(asyncio.all_tasks()), len(files)


async def test_a_request_on_a_kept_connection_between_two_reloads_is_never_lost(gateway: GatewayUnderTest) -> None:
    done = asyncio.Event()
    statuses: list[int] = []

    async def client(target: str) -> None:
        async with gateway.wire() as wire:
            while not done.is_set():
                statuses.append((await wire.ask(request(target, bearer(mint_token())))).status)

    async with recording_upstream() as other, asyncio.TaskGroup() as group:
        for target in ("/public/x", "/x", "/users/current", "/optional/x"):
            group.create_task(client(target))
        for number in range(10):
            seen = len(statuses)
            url = (gateway.upstream, other)[number % 2].url
            assert await gateway.reload(upstreams={"app": {"url": url}}, database={"pool_size": 5 + number % 2})
            await until(lambda seen=seen: len(statuses) > seen + 20)  # type: ignore[misc]  # its type is inferred
        done.set()

    assert set(statuses) == {200}
