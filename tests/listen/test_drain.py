"""The end of a gateway: what is under way finishes, nothing new begins."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from gateway.app import running
from gateway.listen import aiohttp_connection, fast_connection
from gateway.upstream import tunnel
from tests.support.gateway import settings_for
from tests.support.jwks_server import serve_jwks
from tests.support.upstream import OK, Received, RecordingUpstream, Responder, recording_upstream
from tests.support.websockets import frame, handshake, switching, then_echo
from tests.support.wire import Wire, connected, request


@dataclass
class Ending:
    """A gateway that a test brings to its end."""

    port: int
    upstream: RecordingUpstream
    stack: AsyncExitStack

    def begin(self) -> "asyncio.Task[None]":
        """Begin its end, as SIGTERM does."""
        return asyncio.create_task(self.stack.aclose())


@pytest.fixture(params=[True, False], ids=["fast_lane", "aiohttp_lane"])
def fast_lane(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@asynccontextmanager
async def gateway_to_end(database_url: str, *, fast_lane: bool, grace: float = 10.0) -> AsyncIterator[Ending]:
    async with serve_jwks() as jwks, recording_upstream() as upstream, AsyncExitStack() as stack:
        settings = settings_for(database_url, jwks.url, upstream.url, drain_grace=grace, fast_lane=fast_lane)
        gateway = await stack.enter_async_context(running(settings))
        yield Ending(gateway.listen.port, upstream, stack)


def held(gate: asyncio.Event, before: bytes = b"", after: bytes = OK) -> Responder:
    async def respond(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(before)
        await gate.wait()
        writer.write(after)

    return respond


async def refused(port: int) -> bool:
    try:
        async with connected(port):
            return False
    except ConnectionRefusedError:
        return True


async def listening_no_more(port: int) -> None:
    async with asyncio.timeout(10):
        while not await refused(port):  # noqa: ASYNC110 - nobody announces that a port closed
            await asyncio.sleep(0.01)


async def test_a_slow_request_finishes_and_new_connections_are_refused(database_url: str, fast_lane: bool) -> None:
    gate = asyncio.Event()
    async with gateway_to_end(database_url, fast_lane=fast_lane) as ending, connected(ending.port) as wire:
        ending.upstream.respond = held(gate)
        await wire.send(request("/public/x"))
        await ending.upstream.seen(1)
        end = ending.begin()
        await listening_no_more(ending.port)
        gate.set()
        reply = await wire.reply()

        assert (reply.status, reply.body) == (200, b"ok")
        assert reply.get("connection") == "close"
        assert await wire.closed()
        await asyncio.wait_for(end, 5)


async def test_an_answer_that_began_is_relayed_to_its_end(database_url: str, fast_lane: bool) -> None:
    gate = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun"
    async with gateway_to_end(database_url, fast_lane=fast_lane) as ending, connected(ending.port) as wire:
        ending.upstream.respond = held(gate, head, b"done")
        await wire.send(request("/public/x"))
        await wire.reader.readuntil(b"begun")
        end = ending.begin()
        await listening_no_more(ending.port)
        gate.set()

        assert await wire.rest() == b"done"
        await asyncio.wait_for(end, 5)


async def test_an_upload_under_way_is_taken_to_its_end(database_url: str, fast_lane: bool) -> None:
    async with gateway_to_end(database_url, fast_lane=fast_lane) as ending, connected(ending.port) as wire:
        await wire.send(request("/public/x", "Content-Length: 200000", method="POST") + bytes(50_000))
        await ending.upstream.seen(1)
        end = ending.begin()
        await listening_no_more(ending.port)
        await wire.send(bytes(150_000))
        reply = await wire.reply()

        assert reply.status == 200
        assert len(ending.upstream.last.body) == 200_000
        assert await wire.closed()
        await asyncio.wait_for(end, 5)


async def test_a_connection_handed_over_within_the_drain_finishes_its_request(database_url: str) -> None:
    gate = asyncio.Event()
    async with (
        gateway_to_end(database_url, fast_lane=True) as ending,
        connected(ending.port) as wire,
        connected(ending.port) as other,
    ):
        ending.upstream.respond = held(gate)
        raw = request("/public/x", method="POST", body=b"hello")
        await wire.send(raw[:60])
        await other.ask(request("/private"))  # what was sent before has arrived as well
        end = ending.begin()
        await listening_no_more(ending.port)
        await wire.send(raw[60:])
        await ending.upstream.seen(1)
        await asyncio.sleep(0.2)  # several looks of the drain at who is left
        gate.set()
        reply = await wire.reply()

        assert (reply.status, reply.get("connection")) == (200, "close")
        assert ending.upstream.last.body == b"hello"
        assert await wire.closed()
        await asyncio.wait_for(end, 5)


async def test_a_client_that_nobody_accepted_yet_is_answered(database_url: str, fast_lane: bool) -> None:
    async with gateway_to_end(database_url, fast_lane=fast_lane) as ending:
        with socket.socket() as client:

            async def knock_and_end() -> None:  # in one turn of the event loop, so that nobody can be accepted between
                client.connect(("127.0.0.1", ending.port))
                client.sendall(request("/public/x"))
                await ending.stack.aclose()

            end = asyncio.create_task(knock_and_end())
            await listening_no_more(ending.port)
            client.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=client)
            reply = await Wire(reader, writer).reply()

            assert (reply.status, reply.get("connection")) == (200, "close")
            await asyncio.wait_for(end, 5)
            writer.close()


async def test_a_request_on_its_way_from_a_new_client_is_answered(
    database_url: str, fast_lane: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiohttp_connection, "ON_ITS_WAY_S", 5.0)
    monkeypatch.setattr(fast_connection, "ON_ITS_WAY_S", 5.0)
    async with gateway_to_end(database_url, fast_lane=fast_lane) as ending, connected(ending.port) as wire:
        await asyncio.sleep(0.05)  # accepted
        end = ending.begin()
        await listening_no_more(ending.port)
        reply = await wire.ask(request("/public/x"))

        assert (reply.status, reply.get("connection")) == (200, "close")
        await asyncio.wait_for(end, 5)


async def test_idle_connections_end_at_once(database_url: str, fast_lane: bool) -> None:
    async with (
        gateway_to_end(database_url, fast_lane=fast_lane) as ending,
        connected(ending.port) as used,
        connected(ending.port) as unused,
    ):
        await used.ask(request("/public/x"))
        end = ending.begin()

        assert await used.closed()
        assert await unused.closed()
        await asyncio.wait_for(end, 5)


async def test_what_does_not_finish_within_the_grace_is_cut(database_url: str, fast_lane: bool) -> None:
    async with gateway_to_end(database_url, fast_lane=fast_lane, grace=0.2) as ending:
        ending.upstream.respond = held(asyncio.Event())
        async with connected(ending.port) as wire:
            await wire.send(request("/public/x"))
            await ending.upstream.seen(1)
            end = ending.begin()

            assert await wire.rest() == b""
            await asyncio.wait_for(end, 5)


CLOSE_1012 = frame(0x8, (1012).to_bytes(2, "big") + b"drain")


async def test_w09_a_websocket_lives_through_the_grace_and_is_then_closed_with_1012(
    database_url: str, fast_lane: bool
) -> None:
    async with gateway_to_end(database_url, fast_lane=fast_lane, grace=0.5) as ending, connected(ending.port) as wire:
        ending.upstream.respond_early = then_echo(switching())
        await wire.send(handshake())
        await wire.reader.readuntil(b"\r\n\r\n")
        end = ending.begin()
        await listening_no_more(ending.port)
        await wire.send(b"\x81\x00")
        alive = await wire.reader.readexactly(2)
        notice = await wire.reader.readexactly(len(CLOSE_1012))
        wire.writer.write(notice)
        wire.writer.write_eof()

        assert (alive, notice) == (b"\x81\x00", CLOSE_1012)
        assert await wire.closed()
        await asyncio.wait_for(end, 5)


async def test_w09_a_websocket_that_ends_by_itself_lets_the_drain_end_early(database_url: str, fast_lane: bool) -> None:
    async with gateway_to_end(database_url, fast_lane=fast_lane, grace=60) as ending, connected(ending.port) as wire:
        ending.upstream.respond_early = then_echo(switching())
        await wire.send(handshake())
        await wire.reader.readuntil(b"\r\n\r\n")
        end = ending.begin()
        await listening_no_more(ending.port)
        wire.writer.write_eof()

        assert await wire.closed()
        await asyncio.wait_for(end, 10)


async def test_w09_a_client_that_does_not_answer_the_close_frame_is_cut(
    database_url: str, fast_lane: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "REPLY_S", 0.2)
    async with gateway_to_end(database_url, fast_lane=fast_lane, grace=0.2) as ending, connected(ending.port) as wire:
        ending.upstream.respond_early = then_echo(switching())
        await wire.send(handshake())
        await wire.reader.readuntil(b"\r\n\r\n")
        end = ending.begin()

        assert await wire.rest() == CLOSE_1012
        await asyncio.wait_for(end, 5)


async def test_w09_a_handshake_under_way_when_the_drain_begins_still_gets_its_tunnel(
    database_url: str, fast_lane: bool
) -> None:
    gate = asyncio.Event()

    async def late(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await gate.wait()
        return await then_echo(switching())(received, reader, writer) is not False

    async with gateway_to_end(database_url, fast_lane=fast_lane, grace=1.0) as ending, connected(ending.port) as wire:
        ending.upstream.respond_early = late
        await wire.send(handshake())
        await ending.upstream.seen(1)
        end = ending.begin()
        await listening_no_more(ending.port)
        gate.set()
        await wire.reader.readuntil(b"\r\n\r\n")
        notice = await wire.reader.readexactly(len(CLOSE_1012))
        wire.writer.close()

        assert notice == CLOSE_1012
        await asyncio.wait_for(end, 5)
