"""Bodies pass as they come: an event at once, and a large one without staying in memory."""

import asyncio

import pytest

from tests.support.gateway import GatewayUnderTest
from tests.support.large_bodies import GROWTH_AT_MOST, download, forget_peak, memory, sum_of, upload
from tests.support.serve_process import ServeProcess
from tests.support.upstream import Received
from tests.support.wire import connected, request

LARGE = 64 * 2**20
FIRST = 2 * 2**20
EVENTS = [b"data: %d\n\n" % number for number in range(20)]
FRAMINGS = {
    "length": b"Content-Length: %d\r\n" % sum(map(len, EVENTS)),
    "chunked": b"Transfer-Encoding: chunked\r\n",
    "until_close": b"",
}


def framed(event: bytes, framing: str) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event) if framing == "chunked" else event


@pytest.mark.usefixtures("large_bodies")
async def test_64_mib_go_up_and_come_down_and_stay_out_of_memory(served: ServeProcess) -> None:
    pid = served.process.pid
    async with asyncio.timeout(120), connected(served.port) as wire:
        await upload(wire, FIRST)
        await download(wire, FIRST)
        forget_peak(pid)
        before = memory(pid, "VmRSS")
        said = await upload(wire, LARGE)
        arrived = await download(wire, LARGE)

    assert (said, arrived) == (sum_of(LARGE)[1], sum_of(LARGE))
    assert memory(pid, "VmHWM") - before < GROWTH_AT_MOST


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_each_event_reaches_the_client_before_the_next_is_written(
    gateway: GatewayUnderTest, framing: str, method: str
) -> None:
    line = FRAMINGS[framing]
    seen = asyncio.Semaphore(0)

    async def events(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + line + b"\r\n")
        for event in EVENTS:
            writer.write(framed(event, framing))
            await seen.acquire()
        if framing == "chunked":
            writer.write(b"0\r\n\r\n")
        return framing != "until_close"

    gateway.upstream.respond = events
    async with gateway.wire() as wire:
        await wire.send(request("/public/x", method=method, body=b"start" if method == "POST" else b""))
        for event in EVENTS:
            await asyncio.wait_for(wire.reader.readuntil(event), 10)
            seen.release()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_each_piece_of_an_upload_reaches_the_upstream_before_the_next_is_sent(
    gateway: GatewayUnderTest, framing: str
) -> None:
    line = FRAMINGS[framing]
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def respond(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for event in EVENTS:
            await reader.readuntil(event)
            arrived.put_nowait(event)
        if framing == "chunked":
            assert await reader.readuntil(b"0\r\n\r\n") == b"\r\n0\r\n\r\n"
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    gateway.upstream.respond_early = respond
    async with gateway.wire() as wire:
        await wire.send(request("/public/x", line.decode().strip(), method="POST"))
        for event in EVENTS:
            await wire.send(framed(event, framing))
            assert await asyncio.wait_for(arrived.get(), 10) == event
        if framing == "chunked":
            await wire.send(b"0\r\n\r\n")
        reply = await wire.reply("POST")

    assert reply.status == 204


@pytest.mark.asyncio(loop_scope="module")
async def test_both_directions_of_one_request_flow_at_once(gateway: GatewayUnderTest) -> None:
    async def shout_back(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in EVENTS:
            await reader.readuntil(event)
            writer.write(framed(event.upper(), "chunked"))
        writer.write(b"0\r\n\r\n")

    gateway.upstream.respond_early = shout_back
    async with gateway.wire() as wire:
        await wire.send(request("/public/x", f"Content-Length: {sum(map(len, EVENTS))}", method="POST"))
        for event in EVENTS:
            await wire.send(event)
            await asyncio.wait_for(wire.reader.readuntil(event.upper()), 10)
        rest = await wire.reader.readuntil(b"0\r\n\r\n")

    assert rest == b"\r\n0\r\n\r\n"
