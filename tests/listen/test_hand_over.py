"""A connection of the fast lane is lent to aiohttp for one unusual request, and carries on afterwards."""

import gc
import time
from typing import Any

import pytest

from gateway.listen.aiohttp_connection import LaneConnection
from gateway.listen.fast_connection import FastConnection
from tests.support.clerk_keys import mint_token
from tests.support.gateway import GatewayUnderTest
from tests.support.upstream import until
from tests.support.wire import request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = {}
PLAIN = request("/public/x")
PREFLIGHT = request("/public/x", "Origin: https://x.example", "Access-Control-Request-Method: GET", method="OPTIONS")
EXPECTING = request("/public/x", "Expect: 100-continue", "Content-Length: 3", method="POST") + b"abc"
NOT_FOUND_HERE = request("/users/current", method="PUT")


def lent() -> int:
    """Connections that aiohttp holds."""
    return sum(type(thing) is LaneConnection and thing.transport is not None for thing in gc.get_objects())


def fast() -> int:
    return sum(type(thing) is FastConnection and not thing._gone for thing in gc.get_objects())


def current() -> bytes:
    return request("/users/current", f"Authorization: Bearer {mint_token(exp=int(time.time()) + 600)}")


@pytest.mark.parametrize("unusual", [current(), PREFLIGHT, EXPECTING, NOT_FOUND_HERE], ids=range(4))
async def test_a_connection_comes_back_after_one_unusual_request(
    gateway: GatewayUnderTest, unusual: bytes, fast_lane: bool
) -> None:
    async with gateway.wire() as wire:
        for sent in (PLAIN, unusual, unusual, PLAIN, unusual, PLAIN):
            assert (await wire.ask(sent)).status < 500

        await until(lambda: (fast(), lent()) == ((1, 0) if fast_lane else (0, 1)))


async def test_a_connection_with_more_behind_the_unusual_request_answers_all(gateway: GatewayUnderTest) -> None:
    async with gateway.wire() as wire:
        await wire.send(current() + PLAIN + current() + PLAIN)
        statuses = [(await wire.reply()).status for _ in range(4)]
        after = await wire.ask(PLAIN)

    assert [*statuses, after.status] == [200] * 5


async def test_chunked_uploads_end_their_connection_in_either_lane(gateway: GatewayUnderTest) -> None:
    async with gateway.wire() as wire:
        reply = await wire.ask(request("/public/x", "Transfer-Encoding: chunked", method="POST") + b"0\r\n\r\n")

        assert reply.get("connection") == "close"
        assert await wire.reader.read() == b""
