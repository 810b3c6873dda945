"""The gateway's two ends as bytes: what clients that are not Socket.IO's try, and what reaches the upstream."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.frames import Opcode

from gateway.socketio.packets import Connect
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.minted import websocket_token
from tests.support.socketio_upstream import ROUTE
from tests.support.upstream import Received
from tests.support.websockets import ServersEar, frame, handshake, switching
from tests.support.wire import Wire, bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = {
    "routes": [ROUTE, {"path": "/**", "auth": "required", "upstream": "app"}],
    "limits": {"head_timeout": "1s"},
}
OPEN = "/socket.io/?EIO=4&transport=websocket"
POLL = "/socket.io/?EIO=4&transport=polling"
MASK = b"\x01\x02\x03\x04"
HELLO = frame(1, b'0{"sid":"abc","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}')
OPENED = b'0{"sid":"%b","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000}'
EVENT = frame(1, b'42["x"]', mask=MASK)


class End:
    """One websocket at the gateway: the client's wire, and what reached the upstream behind the handshake."""

    def __init__(self, gateway: GatewayUnderTest, wire: Wire) -> None:
        self.gateway, self.wire = gateway, wire
        self.received = b""
        self.arrived = asyncio.Event()
        self.over = asyncio.Event()
        self.writer: asyncio.StreamWriter | None = None
        gateway.upstream.respond_early = self._respond

    async def _respond(self, received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        self.writer, ear = writer, ServersEar()
        writer.write(switching() + HELLO)
        while data := await reader.read(65536):
            self.received += data
            self.arrived.set()
            if any(one.opcode is Opcode.CLOSE for one in ear.hear(data)):
                break
        self.over.set()
        return False

    async def open(self, *lines: str, target: str = OPEN, early: bytes = b"") -> bytes:
        """Shake hands; gives the head of the 101."""
        await self.wire.send(handshake(target, *lines) + early)
        head = await self.wire.reader.readuntil(b"\r\n\r\n")
        assert await self.wire.reader.readexactly(len(HELLO)) == HELLO
        return head

    async def connect(self, token: str) -> bytes:
        """Connect the default namespace; gives what reached the upstream, unmasked."""
        await self.wire.send(frame(1, b'40{"token":"%b"}' % token.encode(), mask=MASK))
        await self.upstream_heard()
        sent, self.received = self.received, b""
        self.arrived.clear()
        return unmasked(sent)

    async def connect_after(self, payload: bytes, token: str) -> None:
        """The same behind a message that was sent before."""
        await self.wire.send(frame(1, b'40{"token":"%b"}' % token.encode(), mask=MASK))
        before = frame(1, payload, mask=MASK)
        async with asyncio.timeout(5):
            while len(self.received) <= len(before):
                self.arrived.clear()
                await self.arrived.wait()
        assert self.received.startswith(before)
        assert unmasked(self.received[len(before) :]).startswith(b"40{")

    async def upstream_heard(self) -> None:
        async with asyncio.timeout(5):
            await self.arrived.wait()

    async def upstream_says(self, raw: bytes) -> None:
        assert self.writer is not None
        self.writer.write(raw)
        await self.writer.drain()

    async def answer(self) -> bytes:
        """The payload of the next short or medium frame for the client."""
        first, second = await self.wire.reader.readexactly(2)
        size = second if second < 126 else int.from_bytes(await self.wire.reader.readexactly(2), "big")
        return bytes((first,)) + await self.wire.reader.readexactly(size)

    async def closed_with(self) -> int:
        """The code of the close frame."""
        answer = await self.answer()
        assert answer[:1] == b"\x88", answer
        return int.from_bytes(answer[1:3], "big")


def unmasked(raw: bytes) -> bytes:
    size, at = raw[1] & 0x7F, 2
    if size == 126:
        size, at = int.from_bytes(raw[2:4], "big"), 4
    key, payload = raw[at : at + 4], raw[at + 4 :]
    assert raw[:1] == b"\x81"
    assert len(payload) == size
    return bytes(byte ^ key[place % 4] for place, byte in enumerate(payload))


@asynccontextmanager
async def an_end(gateway: GatewayUnderTest) -> AsyncIterator[End]:
    async with gateway.wire() as wire:
        yield End(gateway, wire)


async def test_handshake_goes_up_without_compression_token_and_identity(gateway: GatewayUnderTest) -> None:
    token = await websocket_token(gateway)
    async with an_end(gateway) as end:
        head = await end.open(
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
            f"Referer: https://app.example.test/?token={token}",
            "X-Actor-Id: forged",
            target=f"{OPEN}&token={token}&t=1",
        )

    seen = gateway.upstream.last
    assert seen.target == b"/socket.io/?EIO=4&transport=websocket&t=1"
    assert seen.all("sec-websocket-extensions") == []
    assert seen.all("x-actor-id") == [""]
    assert b"extensions" not in head.lower()
    assert token.encode() not in seen.head


async def test_connect_is_rewritten_and_what_follows_it_waits(gateway: GatewayUnderTest) -> None:
    token = await websocket_token(gateway)
    async with an_end(gateway) as end:
        text = b'40/chat,{"room":"a","token":"%b"}' % token.encode()
        pieces = [text[:3], text[3:11], text[11:]]
        frames = [
            frame(1 if not place else 0, piece, final=place == 2, mask=MASK) for place, piece in enumerate(pieces)
        ]
        event = frame(1, b'42/chat,["x"]', mask=MASK)
        await end.open()
        await end.wire.send(frames[0] + frame(9, b"ping", mask=MASK) + frames[1] + frames[2] + event)
        async with asyncio.timeout(5):
            while not end.received.endswith(event):
                end.arrived.clear()
                await end.arrived.wait()

    ping = frame(9, b"ping", mask=MASK)
    assert end.received.startswith(ping)
    connect = Connect.parse(unmasked(end.received[len(ping) : -len(event)]))
    assert connect.namespace == b"/chat"
    assert connect.auth == {"room": "a"}
    assert (connect.token or "").count(".") == 2
    assert token.encode() not in end.received


async def test_a_token_in_the_query_counts_for_a_packet_that_brings_none(gateway: GatewayUnderTest) -> None:
    async with an_end(gateway) as end:
        await end.open(target=f"{OPEN}&token={await websocket_token(gateway)}")
        await end.wire.send(frame(1, b"40", mask=MASK))
        await end.upstream_heard()

    assert Connect.parse(unmasked(end.received)).token is not None


@pytest.mark.parametrize(
    "sent",
    [
        EVENT,
        frame(1, b"41", mask=MASK),
        frame(1, b'43/a,1["x"]', mask=MASK),
        frame(1, b'451-["x"]', mask=MASK),
        frame(1, b"44{}", mask=MASK),
        frame(1, b"0{}", mask=MASK),
        frame(1, b"bNDB7fQ==", mask=MASK),
        frame(1, b"40{", mask=MASK),
        frame(2, b"0{}", mask=MASK),  # binary, which Socket.IO for Python could take for a packet
        frame(2, b"\x040{}", mask=MASK),
        frame(1, b"40{}"),  # not masked
        b"\xc1\x84" + MASK + b"abcd",  # compressed
    ],
)
@pytest.mark.parametrize("early", [False, True], ids=["after", "with the handshake"])
async def test_nothing_goes_up_before_a_namespace_is_admitted(
    gateway: GatewayUnderTest, sent: bytes, early: bool
) -> None:
    async with an_end(gateway) as end:
        await end.open(early=sent if early else b"")
        if not early:
            await end.wire.send(sent)

        assert await end.closed_with() == 1008
        await asyncio.wait_for(end.over.wait(), 10)
    assert end.received == b"" or end.received[0] == 0x88


@pytest.mark.parametrize(
    "sent",
    [
        frame(1, b'42/chat,["x"]', mask=MASK),
        frame(1, b'421-/chat,["x"]', mask=MASK),
        frame(2, b'0/chat,{"token":"x"}', mask=MASK),
        frame(1, b'451-["x",{"_placeholder":true,"num":0}]', mask=MASK) + frame(1, b'42["y"]', mask=MASK),
    ],
)
async def test_nothing_goes_up_for_another_namespace_than_those_admitted(
    gateway: GatewayUnderTest, sent: bytes
) -> None:
    async with an_end(gateway) as end:
        await end.open()
        await end.connect(await websocket_token(gateway))
        await end.wire.send(sent)

        assert await end.closed_with() == 1008
        await asyncio.wait_for(end.over.wait(), 10)
    assert b"chat" not in end.received
    assert frame(1, b'42["y"]', mask=MASK) not in end.received


async def test_refusal_comes_between_the_upstreams_messages(gateway: GatewayUnderTest) -> None:
    async with an_end(gateway) as end:
        await end.open()
        first, last = frame(1, b"42[1,", final=False), frame(0, b"2]")
        await end.upstream_says(first)
        assert await end.wire.reader.readexactly(len(first)) == first
        await end.wire.send(frame(1, b'40/a,{"token":"x"}', mask=MASK))
        await asyncio.sleep(0.1)
        await end.upstream_says(last[:3])
        await end.upstream_says(last[3:] + HELLO)

        assert await end.wire.reader.readexactly(len(last)) == last
        refusal = await end.answer()
        assert refusal.startswith(b'\x8144/a,{"message":"invalid_token"')
        assert await end.wire.reader.readexactly(len(HELLO)) == HELLO
    assert end.received == b"" or end.received[0] == 0x88


async def test_silent_websocket_is_timed_out_and_one_that_connected_is_not(gateway: GatewayUnderTest) -> None:
    async with an_end(gateway) as silent:
        await silent.open()
        async with an_end(gateway) as talks:
            await talks.open()
            await talks.connect(await websocket_token(gateway))
            await silent.wire.send(frame(1, b"3", mask=MASK))

            assert await silent.closed_with() == 1008
            await talks.wire.send(EVENT)
            await talks.upstream_heard()
            assert talks.received == EVENT


async def test_guesses_are_counted(gateway: GatewayUnderTest) -> None:
    async with an_end(gateway) as end:
        await end.open()
        for _ in range(10):
            await end.wire.send(frame(1, b'40{"token":"x"}', mask=MASK))
            assert (await end.answer()).startswith(b"\x8144{")
        await end.wire.send(frame(1, b'40{"token":"x"}', mask=MASK))

        assert await end.closed_with() == 1008


async def test_w07_revoked_client_hears_4401_and_is_not_heard_any_more(gateway: GatewayUnderTest) -> None:
    async with an_end(gateway) as end:
        await end.open()
        await end.connect(await websocket_token(gateway))
        gateway.reloader.home.live.end(session="sess_2testSession")
        await end.wire.send(EVENT)

        assert await end.closed_with() == 4401
        await asyncio.wait_for(end.over.wait(), 10)
    assert EVENT not in end.received


@pytest.mark.parametrize(
    "target",
    [
        "/socket.io/?EIO=3&transport=websocket",
        "/socket.io/?transport=websocket",
        "/socket.io/",
        "/socket.io/?EIO=4&transport=polling",
        "/socket.io/?EIO=4&transport=websocket&transport=polling",
        "/socket.io/?EIO=4&EIO=3&transport=websocket",
        "/socket.io/?EIO=4&%74ransport=polling&transport=websocket",
        "/socket.io/?EIO=4&transport=websocket;sid=a",
        f"{OPEN}&sid=unknown",
        f"{OPEN}&sid[]=a",
        f"{OPEN}&sid=a%20b",
    ],
)
async def test_handshakes_that_servers_could_read_differently_are_refused(
    gateway: GatewayUnderTest, target: str
) -> None:
    gateway.upstream.received.clear()
    reply = await gateway.ask(handshake(target))

    assert reply.status == 400
    assert reply.code in ("socketio_request_refused", "socketio_session_unknown")
    assert gateway.upstream.received == []


@pytest.mark.parametrize(
    ("method", "target", "lines", "body"),
    [
        ("GET", "/socket.io/?EIO=3&transport=polling", (), b""),
        ("GET", "/socket.io/?EIO=4", (), b""),
        ("GET", f"{POLL}&j=0", (), b""),
        ("GET", f"{POLL}&b64=1", (), b""),
        ("GET", f"{POLL}&sid=unknown", (), b""),
        ("GET", POLL, (), b"x"),
        ("POST", f"{POLL}&sid=unknown", (), b"40"),
        ("POST", POLL, (), b"40"),
        ("DELETE", POLL, (), b""),
        ("GET", "/socket.io/?EIO=4&transport=webtransport", (), b""),
    ],
)
async def test_polling_that_no_client_does_is_refused(
    gateway: GatewayUnderTest, method: str, target: str, lines: tuple[str, ...], body: bytes
) -> None:
    gateway.upstream.received.clear()
    reply = await gateway.ask(request(target, *lines, method=method, body=body))

    assert reply.status == 400
    assert reply.code in ("socketio_request_refused", "socketio_session_unknown")
    assert gateway.upstream.received == []


async def test_w06_plain_request_of_the_route_needs_a_credential_it_accepts(gateway: GatewayUnderTest) -> None:
    token = await websocket_token(gateway)
    gateway.upstream.received.clear()
    replies = [
        await gateway.get("/socket.io/socket.io.js"),
        await gateway.get(f"/socket.io/x?token={token}"),
        await gateway.get("/socket.io/x", bearer(mint_token())),
        await gateway.get("/socket.io/x", bearer(token)),
    ]

    assert [reply.status for reply in replies] == [401, 401, 401, 401]
    assert gateway.upstream.received == []


async def opened_session(gateway: GatewayUnderTest, sid: str) -> None:
    body = OPENED % sid.encode()
    gateway.upstream.respond = answering(body)
    reply = await gateway.get(POLL, "Accept-Encoding: gzip")
    assert (reply.status, reply.body) == (200, body)
    assert gateway.upstream.last.all("accept-encoding") == []


def answering(body: bytes, *, chunked: bool = False) -> Any:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
    sized = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    pieces = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (
        5,
        body[:5],
        max(1, len(body) - 5),
        body[5:] or b" ",
    )

    async def respond(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head + (pieces if chunked else sized))

    return respond


async def post(gateway: GatewayUnderTest, sid: str, body: bytes, *lines: str) -> Any:
    return await gateway.ask(request(f"{POLL}&sid={sid}", *lines, method="POST", body=body))


async def test_payload_goes_up_rewritten_and_a_poll_waits_for_it(gateway: GatewayUnderTest) -> None:
    await opened_session(gateway, "one")
    token = await websocket_token(gateway)
    gateway.upstream.received.clear()
    gateway.upstream.respond = answering(b"2")
    waiting = asyncio.create_task(gateway.get(f"{POLL}&sid=one"))
    await asyncio.sleep(0.1)
    before = len(gateway.upstream.received)
    reply = await post(gateway, "one", b'40{"token":"%b"}\x1e3\x1e40/chat,{"token":"x"}' % token.encode())
    polled = await waiting

    assert before == 0
    assert (reply.status, polled.status) == (200, 200)
    (posted,) = (one for one in gateway.upstream.received if one.request_line.startswith(b"POST"))
    assert int(posted.one("content-length")) == len(posted.body)
    connect, pong = posted.body.split(b"\x1e")
    assert Connect.parse(connect).token is not None
    assert pong == b"3"
    assert token.encode() not in posted.body
    again = await gateway.get(f"{POLL}&sid=one")
    answers = polled.body + again.body
    assert re.search(rb'44/chat,\{"message":"invalid_token"', answers)


async def test_a_chunked_opening_answer_is_understood(gateway: GatewayUnderTest) -> None:
    gateway.upstream.respond = answering(OPENED % b"two", chunked=True)
    await gateway.get(POLL)
    gateway.upstream.respond = answering(b"ok")
    reply = await gateway.ask(
        request(f"{POLL}&sid=two", "Transfer-Encoding: chunked", method="POST", body=b"") + b"1\r\n3\r\n0\r\n\r\n"
    )

    assert reply.status == 200
    assert gateway.upstream.last.body == b"3"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'42["x"]',
        b"3\x1e",
        b"5",
        b"bAAA=",
        b'd=42["x"]',
        b'40{"token":"x"',
        b"3" * (1024 * 1024 + 1),
    ],
    ids=range(8),
)
async def test_payload_that_no_client_sends_ends_the_session(gateway: GatewayUnderTest, body: bytes) -> None:
    await opened_session(gateway, "three")
    gateway.upstream.received.clear()
    reply = await post(gateway, "three", body)

    assert reply.status in (400, 413)
    assert gateway.upstream.received == []
    if reply.status == 400:
        assert (await post(gateway, "three", b"3")).code == "socketio_session_unknown"


async def test_encoded_payload_is_refused(gateway: GatewayUnderTest) -> None:
    await opened_session(gateway, "four")

    reply = await post(gateway, "four", b"\x1f\x8b", "Content-Encoding: gzip")

    assert (reply.status, reply.code) == (415, "content_type_unsupported")


async def test_silent_session_is_timed_out(gateway: GatewayUnderTest) -> None:
    await opened_session(gateway, "five")

    polled = await gateway.get(f"{POLL}&sid=five")

    assert (polled.status, polled.code) == (400, "socketio_session_unknown")


async def test_session_of_one_path_is_none_of_another(gateway: GatewayUnderTest) -> None:
    await opened_session(gateway, "six")

    reply = await gateway.get("/socket.io/other?EIO=4&transport=polling&sid=six")

    assert reply.code == "socketio_session_unknown"


async def test_websocket_that_takes_a_session_over_carries_nothing_before_it_did(
    gateway: GatewayUnderTest,
) -> None:
    token = (await websocket_token(gateway)).encode()
    await opened_session(gateway, "seven")
    async with an_end(gateway) as end:
        await end.open(target=f"{OPEN}&sid=seven")
        await end.wire.send(frame(1, b'40{"token":"%b"}' % token, mask=MASK))
        assert await end.closed_with() == 1008
    gateway.upstream.respond_early = None
    await opened_session(gateway, "eight")
    async with an_end(gateway) as end:
        await end.open(target=f"{OPEN}&sid=eight")
        takes = frame(1, b"2probe", mask=MASK) + frame(1, b"5", mask=MASK)
        await end.wire.send(takes)
        await end.upstream_heard()
        assert end.received == takes
        end.received = b""
        end.arrived.clear()
        await end.connect(token.decode())
        gateway.upstream.respond_early = None
        reply = await post(gateway, "eight", b'42["x"]')

    assert reply.code == "socketio_session_unknown"


@pytest.mark.parametrize(
    "changes",
    [{"upstreams": {"app": {"url": None, "addresses": ["http://127.0.0.1:1", "http://127.0.0.1:2"]}}}],
    ids=["addresses"],
)
async def test_polling_is_refused_where_a_session_has_no_one_place(
    module_database_url: str, changes: dict[str, Any]
) -> None:
    async with gateway_under_test(module_database_url, **SETTINGS, **changes) as gateway:
        reply = await gateway.get(POLL)

    assert (reply.status, reply.code) == (400, "socketio_request_refused")
