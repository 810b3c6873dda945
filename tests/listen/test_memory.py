"""What a connection held is given back when it ends, without waiting for the garbage collector."""

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.listen.fast_connection import FastConnection
from tests.support.gateway import GatewayUnderTest
from tests.support.upstream import until
from tests.support.wire import request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = {}
PLAIN = request("/public/x")
PARTIAL = request("/public/x", "X-Pad: " + "p" * 20_000)[:-2]


def alive() -> int:
    return sum(type(thing) is FastConnection for thing in gc.get_objects())


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        PARTIAL,
        request("/public/x"),
        request("/private"),
        request("/public/x") + PARTIAL,
        request("/users/current"),
    ],
    ids=["nothing", "partial_head", "forwarded", "refused", "forwarded_and_partial_head", "handed_over"],
)
@pytest.mark.usefixtures("no_collector")
async def test_connections_that_are_cut_leave_nothing(gateway: GatewayUnderTest, sent: bytes) -> None:
    before = alive()
    for _ in range(50):
        async with gateway.wire() as wire:
            await wire.send(sent)
            await asyncio.sleep(0.002)
            wire.writer.transport.abort()

    await until(lambda: alive() <= before)
