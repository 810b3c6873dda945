"""A head must arrive in time (`limits.head_timeout`), whichever lane reads it and whatever came before on its line."""

import asyncio
from typing import Any

import pytest

from tests.support.gateway import GatewayUnderTest, gateway_under_test
from tests.support.wire import Reply, Wire, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = {"limits": {"head_timeout": 1.5}}
HALF = b"GET /public/x HTTP/1.1\r\nHost: app.example.test\r\nX-Pad: "
BEFORE = pytest.mark.parametrize(
    "before",
    [
        b"",
        request("/public/x"),
        request("/users/current"),
        request("/public/x", method="POST", body=b"hello"),
    ],
    ids=["at_first", "after_a_plain_request", "after_an_own_endpoint", "after_an_upload"],
)


async def dribbled(wire: Wire) -> Reply:
    """Send half a head and then a byte at a time, until there is an answer."""
    await wire.send(HALF)
    answering = asyncio.create_task(wire.reply())
    while not answering.done():
        wire.writer.write(b"a")
        await asyncio.sleep(0.1)
    return await answering


@BEFORE
async def test_a_head_that_dribbles_is_answered_408(gateway: GatewayUnderTest, before: bytes) -> None:
    async with gateway.wire() as wire:
        if before:
            await wire.ask(before)
        gateway.upstream.received.clear()
        reply = await dribbled(wire)

        assert (reply.status, reply.code, reply.get("connection")) == (408, "head_timeout", "close")
        assert await wire.closed()
    assert gateway.upstream.received == []


@BEFORE
async def test_a_head_that_stops_half_way_is_answered_408(gateway: GatewayUnderTest, before: bytes) -> None:
    async with gateway.wire() as wire:
        if before:
            await wire.ask(before)
        reply = await wire.ask(HALF)

        assert reply.status == 408
        assert await wire.closed()


@BEFORE
async def test_a_slow_head_in_time_is_served(gateway: GatewayUnderTest, before: bytes) -> None:
    async with gateway.wire() as wire:
        if before:
            await wire.ask(before)
        for start in range(0, len(HALF), 10):
            await wire.send(HALF[start : start + 10])
            await asyncio.sleep(0.05)
        reply = await wire.ask(b"a\r\n\r\n")

    assert reply.status == 200


@BEFORE
async def test_a_connection_that_waits_between_requests_has_no_head_to_be_late(
    gateway: GatewayUnderTest, before: bytes
) -> None:
    async with gateway.wire() as wire:
        if before:
            await wire.ask(before)
        await asyncio.sleep(2.5)  # beyond the deadline and two looks at it
        reply = await wire.ask(request("/public/x"))

    assert reply.status == 200


@BEFORE
async def test_a_head_that_began_has_its_own_deadline_though_keepalive_is_over(
    module_database_url: str, fast_lane: bool, before: bytes
) -> None:
    limits = {"keepalive": "500ms", "head_timeout": "2s"}
    async with (
        gateway_under_test(module_database_url, fast_lane=fast_lane, limits=limits) as gateway,
        gateway.wire() as slow,
        gateway.wire() as late,
        gateway.wire() as idle,
    ):
        for wire in (slow, late, idle):
            if before:
                await wire.ask(before)
        await slow.send(HALF)
        await late.send(HALF)
        await asyncio.sleep(1.5)

        assert (await slow.ask(b"a\r\n\r\n")).status == 200
        assert (await late.reply()).status == 408
        assert await slow.closed()
        assert await idle.closed()
