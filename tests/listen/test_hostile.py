"""A client that means harm, on one connection after the other: nothing hangs, nothing bleeds, nothing is repeated."""

import asyncio
import time
from typing import Any

import pytest

from tests.support.clerk_keys import mint_token
from tests.support.gateway import GatewayUnderTest
from tests.support.wire import bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = {"clerk": {"jwks": {"cooldown": 0.001}}}
LARGE = bytes(100_000)


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
