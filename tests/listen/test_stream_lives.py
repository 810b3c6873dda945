"""How long an answer that streams lives: as long as whoever asked for it may call."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.api_tokens import PATH, call, execute, made_token
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.upstream import Received, until
from tests.support.wire import Wire, bearer, request

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"data: 1\n\n"


@pytest.fixture(params=[True, False], ids=["fast_lane", "aiohttp_lane"])
def fast_lane(request: pytest.FixtureRequest) -> bool:
    """Both lanes must give the same verdicts."""
    return bool(request.param)


async def events(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send an event every moment, for ever."""
    writer.write(HEAD)
    while True:
        writer.write(b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
        await writer.drain()
        await asyncio.sleep(0.05)


@asynccontextmanager
async def streaming(gateway: GatewayUnderTest, credential: str) -> AsyncIterator[Wire]:
    """A stream of which something came."""
    gateway.upstream.respond = events
    async with gateway.wire() as wire:
        await wire.send(request("/x", bearer(credential)))
        await asyncio.wait_for(wire.reader.readuntil(EVENT), 10)
        yield wire


async def end_of(wire: Wire) -> bytes:
    """Everything until the gateway ends the connection."""
    return await asyncio.wait_for(wire.rest(), 10)


async def goes_on(wire: Wire) -> bool:
    """Tell whether more comes, now that whatever was to be cut has been."""
    for _ in range(3):
        await asyncio.wait_for(wire.reader.readuntil(EVENT), 10)
    return True


async def test_t04_stream_of_a_revoked_token_ends_and_others_go_on(database_url: str, fast_lane: bool) -> None:
    session = mint_token()
    async with gateway_under_test(database_url, fast_lane=fast_lane) as gateway:
        made, other = await made_token(gateway, session), await made_token(gateway, session)
        async with streaming(gateway, made["token"]) as ended, streaming(gateway, other["token"]) as kept:
            revoked = await call(gateway, session, "DELETE", f"{PATH}/{made['id']}")
            rest = await end_of(ended)

            assert revoked.status == 204
            assert not rest.endswith(b"0\r\n\r\n")  # cut: nobody takes it for whole
            assert await goes_on(kept)
        await until(lambda: not gateway.upstream.writers)


async def test_stream_of_a_user_who_was_disabled_ends_when_that_is_seen(database_url: str, fast_lane: bool) -> None:
    cache = {"near_ttl": "1ms"}
    async with (
        gateway_under_test(database_url, fast_lane=fast_lane, cache=cache) as gateway,
        streaming(gateway, mint_token()) as ended,
        streaming(gateway, mint_token(sub="user_2other")) as kept,
    ):
        await execute(gateway, "UPDATE users SET disabled_at = now() WHERE clerk_id <> 'user_2other'")
        await asyncio.sleep(0.01)
        refused = [(await gateway.get("/x", bearer(mint_token()))).status for _ in range(3)]
        await end_of(ended)

        assert refused == [403] * 3
        assert await goes_on(kept)


async def test_stream_ends_when_its_token_expires_and_a_sessions_does_not(database_url: str, fast_lane: bool) -> None:
    async with gateway_under_test(database_url, fast_lane=fast_lane) as gateway:
        made = await made_token(gateway)
        await execute(
            gateway, "UPDATE api_tokens SET expires_at = now() + interval '2 seconds' WHERE id = $1", made["id"]
        )
        now = int(time.time())
        session = mint_token(exp=now + 2 - 5)  # the leeway is 5 s
        async with streaming(gateway, made["token"]) as ended, streaming(gateway, session) as kept:
            rest = await end_of(ended)

            assert EVENT in rest
            assert await goes_on(kept)


async def test_request_that_is_nearly_over_is_answered_although_its_token_is_revoked(
    database_url: str, fast_lane: bool
) -> None:
    session, way = mint_token(), asyncio.Event()

    async def slow(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await way.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with gateway_under_test(database_url, fast_lane=fast_lane) as gateway:
        made = await made_token(gateway, session)
        gateway.upstream.respond = slow
        asked = asyncio.create_task(gateway.get("/x", bearer(made["token"])))
        await gateway.upstream.seen(1)
        await call(gateway, session, "DELETE", f"{PATH}/{made['id']}")
        way.set()
        reply = await asked

    assert (reply.status, reply.body) == (200, b"ok")


async def test_request_whose_answer_never_began_is_refused_when_its_token_is_revoked(
    database_url: str, fast_lane: bool
) -> None:
    session = mint_token()

    async def never(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)

    async with gateway_under_test(database_url, fast_lane=fast_lane) as gateway:
        made = await made_token(gateway, session)
        gateway.upstream.respond = never
        asked = asyncio.create_task(gateway.get("/x", bearer(made["token"])))
        await gateway.upstream.seen(1)
        await call(gateway, session, "DELETE", f"{PATH}/{made['id']}")
        reply: Any = await asked

    assert (reply.status, reply.code) == (401, "invalid_token")
