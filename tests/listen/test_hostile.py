"""A client that means harm, on one connection after the other: nothing hangs, nothing bleeds, nothing is repeated."""

import asyncio
import gc
import time
from typing import Any

import pytest

from gateway.listen.fast_connection import FastConnection
from tests.support.clerk_keys import mint_token
from tests.support.gateway import GatewayUnderTest
from tests.support.wire import bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = {"clerk": {"jwks": {"cooldown": 0.001}}, "limits": {"head_bytes": 128 * 1024}}
LARGE = bytes(100_000)


def connections() -> list[FastConnection]:
    return [thing for thing in gc.get_objects() if type(thing) is FastConnection and not thing._gone]


def fresh(**claims: Any) -> str:
    """The Authorization line of somebody nobody has seen yet."""
    return bearer(mint_token(sub=f"user_{time.time_ns()}", exp=int(time.time()) + 600, **claims))


async def test_a_large_upload_of_a_new_caller_leaves_the_connection_usable(gateway: GatewayUnderTest) -> None:
    async with gateway.wire() as wire:
        first = await wire.ask(request("/x", fresh(), method="POST", body=LARGE))
        second = await wire.ask(request("/public/after"))

    assert (first.status, second.status) == (200, 200)
    assert [len(received.body) for received in gateway.upstream.received] == [len(LARGE), 0]


async def test_a_large_upload_of_a_refused_caller_leaves_the_connection_usable(gateway: GatewayUnderTest) -> None:
    async with gateway.wire() as wire:
        refused = bearer(mint_token(key="other"))
        first = await wire.ask(request("/x", refused, method="POST", body=LARGE))
        if first.get("connection") == "close":
            return
        second = await wire.ask(request("/public/after"))

    assert (first.status, second.status) == (401, 200)


async def test_a_head_longer_than_what_may_wait_is_read_to_its_end(gateway: GatewayUnderTest) -> None:
    async with gateway.wire() as wire:
        raw = request("/public/x", "X-Pad: " + "p" * 90_000)
        await wire.send(raw[:80_000])
        await asyncio.sleep(0.05)
        reply = await wire.ask(raw[80_000:])

    assert reply.status == 200


async def test_requests_that_are_refused_count_as_life(gateway: GatewayUnderTest, fast_lane: bool) -> None:
    if not fast_lane:
        return
    before = {id(one) for one in connections()}
    async with gateway.wire() as wire:
        await wire.ask(request("/private"))
        (connection,) = (one for one in connections() if id(one) not in before)
        await asyncio.sleep(0.5)
        await wire.ask(request("/private"))
        loop = asyncio.get_running_loop()
        connection.check_deadline(loop.time() + gateway.settings.limits.keepalive - 0.3)

        assert not connection.transport.is_closing()
