"""What somebody tries who knows how the gateway reads: each of these once got further than it should."""

import asyncio
from typing import Any

import pytest
from websockets.frames import Opcode

from gateway.socketio.tunnel import PIECES_PER_TURN
from tests.socketio.test_raw import EVENT, MASK, OPEN, POLL, SETTINGS, an_end, answering, opened_session, post
from tests.support.gateway import ORIGIN, GatewayUnderTest
from tests.support.minted import websocket_token
from tests.support.upstream import Received
from tests.support.websockets import ServersEar, frame, handshake, switching

__all__ = ["SETTINGS"]
pytestmark = pytest.mark.asyncio(loop_scope="module")
SMUGGLED = frame(1, b'40/admin,{"token":"mine"}', mask=MASK)


async def test_ping_of_a_long_spelling_hides_no_packet_from_the_judge(gateway: GatewayUnderTest) -> None:
    # A payload of 2 bytes, its length written in two: some servers read that. The payload is the head of another
    # frame to whoever thinks that it did not come yet.
    ping = b"\x89\xfe\x00\x02" + b"\0\0\0\0"
    hidden = b"\x8a" + bytes((0x80 | (len(SMUGGLED) - 4),))
    async with an_end(gateway) as end:
        await end.open()
        await end.wire.send(ping)
        await asyncio.sleep(0.05)  # so that it is read apart
        await end.wire.send(hidden + SMUGGLED)

        assert [one.opcode for one in ServersEar().hear(ping + hidden + SMUGGLED)] == [Opcode.PING, Opcode.TEXT]
        assert await end.closed_with() == 1008
        await asyncio.wait_for(end.over.wait(), 10)
    assert b"/admin" not in b"".join(one.data for one in ServersEar().hear(end.received))


@pytest.mark.parametrize("carried", ["websocket", "polling"])
async def test_namespace_changes_hands_only_when_it_was_left(gateway: GatewayUnderTest, carried: str) -> None:
    """A server may keep who connected first: then the connection must end with them, not with who came second."""
    mine, other = await websocket_token(gateway), await websocket_token(gateway, sub="user_2other", sid="sess_2other")
    if carried == "polling":
        await opened_session(gateway, "hands")
        gateway.upstream.respond = answering(b"ok")
        first = await post(gateway, "hands", b'40{"token":"%b"}' % mine.encode())
        seen = len(gateway.upstream.received)
        second = await post(gateway, "hands", b'40{"token":"%b"}' % other.encode())

        assert (first.status, second.status, len(gateway.upstream.received)) == (200, 400, seen)
        return
    async with an_end(gateway) as end:
        await end.open()
        await end.connect(mine)
        await end.connect(mine)  # whoever it is may connect anew
        await end.wire.send(frame(1, b"41", mask=MASK))
        await end.connect_after(b"41", other)
        await end.wire.send(frame(1, b'40{"token":"%b"}' % mine.encode(), mask=MASK))

        assert await end.closed_with() == 1008


async def test_a_session_is_taken_over_by_one_websocket_at_a_time(gateway: GatewayUnderTest) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def slowly(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        asked.set()
        await go.wait()
        writer.write(switching())
        await reader.read()
        return False

    await opened_session(gateway, "twice")
    gateway.upstream.respond_early = slowly
    async with gateway.wire() as wire:
        await wire.send(handshake(f"{OPEN}&sid=twice"))
        await asyncio.wait_for(asked.wait(), 5)
        second: Any = await gateway.ask(handshake(f"{OPEN}&sid=twice"))
        go.set()
        head = await wire.reader.readuntil(b"\r\n\r\n")

    assert (second.status, second.code) == (400, "socketio_request_refused")
    assert head.startswith(b"HTTP/1.1 101")


async def test_payload_is_read_by_the_server_in_the_charset_it_was_judged_in(gateway: GatewayUnderTest) -> None:
    await opened_session(gateway, "charset")
    gateway.upstream.respond = answering(b"ok")
    reply = await post(gateway, "charset", b"3", "Content-Type: text/plain; charset=utf-16be")

    assert reply.status == 200
    assert gateway.upstream.last.all("content-type") == ["text/plain;charset=UTF-8"]


async def test_large_message_passes_however_much_of_it_is_there_at_once(gateway: GatewayUnderTest) -> None:
    large = frame(1, b'42["%b"]' % (b"x" * 200_000), mask=MASK)
    connect = frame(1, b'40{"token":"%b"}' % (await websocket_token(gateway)).encode(), mask=MASK)
    async with an_end(gateway) as end:
        await end.open(early=connect + large)  # what comes while a token is checked waits, and is then read at once
        async with asyncio.timeout(10):
            while len(end.received) < len(large):
                end.arrived.clear()
                await end.arrived.wait()

        assert end.received.endswith(large)


async def test_flood_of_tiny_frames_lets_others_have_their_turn_and_passes(gateway: GatewayUnderTest) -> None:
    flood = frame(1, b"3", mask=MASK) * (5 * PIECES_PER_TURN)
    connect = frame(1, b'40{"token":"%b"}' % (await websocket_token(gateway)).encode(), mask=MASK)
    async with an_end(gateway) as end:
        await end.open(early=flood + connect + flood + EVENT)
        async with asyncio.timeout(10):
            while not end.received.endswith(EVENT):
                end.arrived.clear()
                await end.arrived.wait()

    assert end.received.startswith(flood)
    assert end.received.endswith(flood + EVENT)


async def test_payload_of_countless_packets_is_refused_before_it_is_read(gateway: GatewayUnderTest) -> None:
    await opened_session(gateway, "countless")
    gateway.upstream.received.clear()

    reply = await post(gateway, "countless", b"\x1e".join([b"3"] * 20_000))

    assert (reply.status, reply.code) == (400, "socketio_request_refused")
    assert gateway.upstream.received == []


async def test_pages_of_allowed_origins_can_read_what_we_answer_to_their_polling(gateway: GatewayUnderTest) -> None:
    await opened_session(gateway, "cors")
    origin = f"Origin: {ORIGIN}"
    posted = await post(gateway, "cors", b'40{"token":"x"}', origin)
    polled = await gateway.get(f"{POLL}&sid=cors", origin)

    assert (posted.status, polled.status) == (200, 200)
    assert polled.body.startswith(b'44{"message":"invalid_token"')
    assert [reply.all("access-control-allow-origin") for reply in (posted, polled)] == [[ORIGIN], [ORIGIN]]
