"""A client that means harm, on one connection after the other: nothing hangs, nothing bleeds, nothing is repeated."""

import asyncio
import gc
import time
from typing import Any

import pytest

from gateway.listen.fast_connection import FastConnection
from tests.support.clerk_keys import ABSENT, mint_token
from tests.support.gateway import GatewayUnderTest
from tests.support.upstream import Received
from tests.support.wire import bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = {"clerk": {"jwks": {"cooldown": 0.001}}, "limits": {"head_bytes": 128 * 1024}}
LARGE = bytes(200_000)  # more than may wait, however little a read brings


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


async def test_a_large_upload_of_a_refused_caller_leaves_the_connection_usable_or_ended(
    gateway: GatewayUnderTest,
) -> None:
    async with gateway.wire() as wire:
        refused = bearer(mint_token(key="other"))
        first = await wire.ask(request("/x", refused, method="POST", body=LARGE))

        assert first.status == 401
        if first.get("connection") == "close":  # it was refused before the whole body was here
            assert await wire.closed()
        else:
            assert (await wire.ask(request("/public/after"))).status == 200


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


SMUGGLED = b"GET /public/smuggled HTTP/1.1\r\nHost: app.example.test\r\n\r\n"


def targets(gateway: GatewayUnderTest) -> list[bytes]:
    return [received.target for received in gateway.upstream.received]


@pytest.mark.parametrize("credential", ["", bearer(mint_token(key="other")), bearer("=")], ids=["none", "bad", "odd"])
@pytest.mark.parametrize("ahead", [0, 1, len(SMUGGLED) - 1], ids=["head_alone", "one_byte", "all_but_one"])
async def test_the_rest_of_a_refused_body_is_no_request(gateway: GatewayUnderTest, credential: str, ahead: int) -> None:
    lines = [credential] if credential else []
    body = SMUGGLED * 3
    async with gateway.wire() as wire:
        await wire.send(request("/x", *lines, f"Content-Length: {len(body)}", method="POST") + body[:ahead])
        reply = await wire.reply()
        await wire.send(body[ahead:] + SMUGGLED)

        assert (reply.status, reply.get("connection")) in ((401, "close"), (400, "close"))
        assert await wire.closed()
    assert targets(gateway) == []


@pytest.mark.parametrize("gap", [0.0, 0.02])
async def test_what_follows_an_early_answer_is_no_request(gateway: GatewayUnderTest, gap: float) -> None:
    async def early(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
        await reader.read()
        return False

    gateway.upstream.respond_early = early
    async with gateway.wire() as wire:
        await wire.send(request("/public/x", "Content-Length: 1000", method="POST") + SMUGGLED)
        await gateway.upstream.seen(1)
        await asyncio.sleep(gap)
        await wire.send(SMUGGLED * 20 + bytes(1000))
        answer = await wire.rest()

    assert answer.count(b"HTTP/1.1 ") == 1
    assert targets(gateway) == [b"/public/x"]


async def test_a_body_that_waits_for_an_upstream_that_dies_ends_in_an_answer(gateway: GatewayUnderTest) -> None:
    async def deaf(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(0.3)
        writer.transport.abort()
        return False

    gateway.upstream.respond_early = deaf
    async with gateway.wire() as wire:
        whole = request("/public/x", method="POST", body=bytes(12_000_000))
        sending = asyncio.create_task(wire.send(whole))
        reply = await wire.reply()
        assert reply.status == 502
        if reply.get("connection") == "close":
            assert await wire.closed()
        else:
            gateway.upstream.respond_early = None
            await sending
            assert (await wire.ask(request("/public/after"))).status == 200
        sending.cancel()


async def test_a_token_expires_in_a_head_that_is_remembered(gateway: GatewayUnderTest) -> None:
    now = int(time.time())
    raw = request("/x", bearer(mint_token(iat=now - 60, nbf=now - 60, exp=now - 3)))  # within the tolerance, still
    async with gateway.wire() as wire:
        statuses = [(await wire.ask(raw)).status for _ in range(5)]
        async with asyncio.timeout(10):
            while statuses[-1] == 200:
                await asyncio.sleep(0.2)
                statuses.append((await wire.ask(raw)).status)

    assert statuses[:5] == [200] * 5
    assert statuses[-1] == 401


@pytest.mark.parametrize("cookie_first", [True, False])
async def test_a_token_that_one_carrier_may_bring_is_no_better_in_the_other(
    gateway: GatewayUnderTest, cookie_first: bool
) -> None:
    now = int(time.time())
    token = mint_token(azp=ABSENT, sub=f"user_{time.time_ns()}", iat=now - 5, exp=now + 600)
    in_cookie = request("/x", f"Cookie: __session={token}; __client_uat={now - 100}")
    in_header = request("/x", bearer(token))
    sent = [in_cookie, in_header] if cookie_first else [in_header, in_cookie]
    statuses = [[(await gateway.ask(raw)).status for raw in sent] for _ in range(4)]

    assert statuses == [[200, 401] if cookie_first else [401, 200]] * 4
