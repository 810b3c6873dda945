"""Where one message ends and the next begins: raw bytes on a socket, sent whole and in pieces."""

import asyncio
from typing import Any

import pytest

from tests.support.gateway import GatewayUnderTest, mint_token
from tests.support.upstream import Received, read_body
from tests.support.wire import Reply, Wire, bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS: dict[str, Any] = {"limits": {"head_bytes": 32 * 1024, "head_fields": 100}}
HOST = b"Host: app.example.test\r\n"
SMUGGLED = b"GET /public/smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
DELIVERIES = pytest.mark.parametrize("piece", [1 << 20, 7, 1], ids=["whole", "sevens", "bytes"])


def post(*lines: bytes, body: bytes = b"", version: bytes = b"1.1", target: bytes = b"/public/x") -> bytes:
    head = b"POST %b HTTP/%b\r\n%b" % (target, version, HOST)
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


async def deliver(wire: Wire, raw: bytes, piece: int) -> None:
    """Send bytes in pieces, each a read of its own; the gateway may close before the last."""
    try:
        for start in range(0, len(raw), piece):
            await wire.send(raw[start : start + piece])
            await asyncio.sleep(0)
    except ConnectionError:
        pass


async def refused(gateway: GatewayUnderTest, raw: bytes, piece: int = 1 << 20) -> Reply:
    """Send bytes that must be refused: one answer, then the end of the connection."""
    async with gateway.wire() as wire:
        await deliver(wire, raw, piece)
        reply = await wire.reply()
        assert reply.get("connection") == "close"
        assert await wire.closed()
        return reply


def whole_requests(gateway: GatewayUnderTest) -> list[bytes]:
    return [received.target for received in gateway.upstream.received if received.whole]


@DELIVERIES
@pytest.mark.parametrize(
    "lines",
    [
        (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        (b"Content-Length: 5", b"Content-Length: 5"),
        (b"Content-Length: 5", b"Content-Length: 6"),
        (b"Content-Length: 5, 5",),
        (b"Content-Length: +5",),
        (b"Content-Length: -5",),
        (b"Content-Length: 5 5",),
        (b"Content-Length: 0x5",),
        (b"Content-Length:",),
        ("Content-Length: ٥".encode(),),
        (b"Content-Length: 99999999999999999999999999",),
    ],
)
async def test_s01_ambiguous_lengths_are_refused(
    gateway: GatewayUnderTest, lines: tuple[bytes, ...], piece: int
) -> None:
    reply = await refused(gateway, post(*lines, body=b"0\r\n\r\n" + SMUGGLED), piece)

    assert (reply.status, reply.code) == (400, "request_malformed")
    assert gateway.upstream.received == []


async def test_s01_a_length_with_leading_zeros_goes_up_canonical(gateway: GatewayUnderTest) -> None:
    reply = await gateway.ask(post(b"Content-Length: 0005", body=b"hello"))

    assert reply.status == 200
    assert gateway.upstream.last.one("content-length") == "5"
    assert gateway.upstream.last.body == b"hello"


@DELIVERIES
@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"Transfer-Encoding: xchunked", 400),
        (b"Transfer-Encoding: chunked, chunked", 400),
        (b"Transfer-Encoding: chunked;q=1", 400),
        (b"Transfer-Encoding: \x0bchunked", 400),
        (b"Transfer-Encoding: chunked, identity", 400),
        (b'Transfer-Encoding: "chunked"', 400),
        (b"Transfer-Encoding : chunked", 400),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        (b"Transfer-Encoding: gzip, chunked", 501),
    ],
)
async def test_s02_other_transfer_codings_are_refused(
    gateway: GatewayUnderTest, line: bytes, status: int, piece: int
) -> None:
    reply = await refused(gateway, post(line, body=b"0\r\n\r\n" + SMUGGLED), piece)

    assert reply.status == status
    assert gateway.upstream.received == []


async def test_s02_chunks_in_http_1_0_are_refused(gateway: GatewayUnderTest) -> None:
    reply = await refused(gateway, post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED, version=b"1.0"))

    assert reply.status == 400
    assert gateway.upstream.received == []


BAD_CHUNKS = (
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b"+5\r\nhello\r\n0\r\n\r\n",
    b"-5\r\nhello\r\n0\r\n\r\n",
    b"55555555555555555555\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhelloX\r\n0\r\n\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"5\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"5;a=\nb\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n\r\n0\r\n\r\n",
    b"\r\n5\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nTrailer : x\r\n\r\n",
    b"5\r\nhello\r\n0\r\nA: b\r\n c\r\n\r\n",
    b"5\r\nhello\r\ngarbage",
)


@DELIVERIES
@pytest.mark.parametrize("chunks", BAD_CHUNKS)
async def test_s03_broken_chunks_are_refused_and_no_upstream_sees_a_whole_body(
    gateway: GatewayUnderTest, chunks: bytes, piece: int
) -> None:
    reply = await refused(gateway, post(b"Transfer-Encoding: chunked", body=chunks + SMUGGLED), piece)

    assert (reply.status, reply.code) == (400, "request_malformed")
    assert whole_requests(gateway) == []


async def test_s03_a_chunk_that_breaks_late_is_refused_at_once(gateway: GatewayUnderTest) -> None:
    async with gateway.wire() as wire:
        await wire.send(post(b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n"))
        await gateway.upstream.seen(1)
        await wire.send(b"zz\r\n" + SMUGGLED)
        reply = await wire.reply()

        assert reply.status == 400
        assert await wire.closed()
    await asyncio.wait_for(gateway.upstream.lost.wait(), 5)
    assert whole_requests(gateway) == []


async def test_s03_a_chunk_that_breaks_after_the_answer_began_cuts_it(gateway: GatewayUnderTest) -> None:
    async def respond(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun")
        await read_body(received, reader)

    gateway.upstream.respond_early = respond
    async with gateway.wire() as wire:
        await wire.send(post(b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n"))
        began = await wire.reader.readuntil(b"begun")
        await wire.send(b"zz\r\n" + SMUGGLED)
        rest = await wire.rest()

    assert began.startswith(b"HTTP/1.1 200 ")
    assert rest == b""
    assert whole_requests(gateway) == []


async def test_s03_broken_chunks_for_an_own_endpoint_are_refused(gateway: GatewayUnderTest) -> None:
    raw = request(
        "/users/current/settings",
        bearer(mint_token()),
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
        method="PATCH",
    )

    reply = await refused(gateway, raw + b"2\r\n{}\r\nzz\r\n" + SMUGGLED)

    assert (reply.status, reply.code) == (400, "request_malformed")


@DELIVERIES
@pytest.mark.parametrize(
    "raw",
    [
        b"GET /public/x HTTP/1.1\n" + HOST + b"\r\n",
        b"GET /public/x HTTP/1.1\r\nHost: app.example.test\n\r\n",
        b"GET /public/x HTTP/1.1\r\n" + HOST + b"A: b\n\r\n",
        b"GET /public/x HTTP/1.1\r\n" + HOST + b"A: b\r\n\n" + SMUGGLED,
        b"GET /public/x HTTP/1.1\r" + HOST + b"\r\n",
        b"GET /public/x HTTP/1.1\r\n" + HOST + b"A: b\rC: d\r\n\r\n",
    ],
)
async def test_s04_lines_that_do_not_end_in_crlf_are_refused(gateway: GatewayUnderTest, raw: bytes, piece: int) -> None:
    reply = await refused(gateway, raw, piece)

    assert reply.status == 400
    assert gateway.upstream.received == []


@DELIVERIES
@pytest.mark.parametrize(
    "line",
    [
        b"A: a\x00b",
        b"A: a\rb",
        b"A: a\x0bb",
        b"A: a\x7fb",
        b"A\x00: b",
        b"A : b",
        b"A\t: b",
        b": b",
        b"A: b\r\n folded",
        b"A: b\r\n\tfolded",
        b" A: b",
        b"A",
        b"A(: b",
    ],
)
async def test_h10_malformed_field_lines_are_refused(gateway: GatewayUnderTest, line: bytes, piece: int) -> None:
    raw = b"GET /public/x HTTP/1.1\r\n" + HOST + line + b"\r\n\r\n"

    reply = await refused(gateway, raw, piece)

    assert (reply.status, reply.code) == (400, "request_malformed")
    assert gateway.upstream.received == []


async def test_h10_blanks_around_a_value_do_not_go_up(gateway: GatewayUnderTest) -> None:
    await gateway.get("/public/x", "X-Value: \t a b \t ", "X-Actor-Id:   admin \t")

    assert b"X-Value: a b\r\n" in gateway.upstream.last.head + b"\r\n"
    assert gateway.upstream.last.one("x-actor-id") == ""


@pytest.mark.parametrize(
    ("raw", "statuses"),
    [
        (b"GET /public/x\r\n\r\n", {400, 505}),
        (b"GET /public/x HTTP/0.9\r\n" + HOST + b"\r\n", {400, 505}),
        (b"GET /public/x HTTP/2.0\r\n" + HOST + b"\r\n", {400, 505}),
        (b"GET /public/x HTTP/1.2\r\n" + HOST + b"\r\n", {400, 505}),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505}),
        (b"get /public/x HTTP/1.1\r\n" + HOST + b"\r\n", {400, 405}),
        (b"G" * 60 + b" /public/x HTTP/1.1\r\n" + HOST + b"\r\n", {400, 405}),
        (b"GET /public/x HTTP/1.1\r\n\r\n", {400}),
        (b"GET /public/x HTTP/1.1\r\n" + HOST + HOST + b"\r\n", {400}),
        (b"GET http://other.test/public/x HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), {400}),
    ],
)
async def test_s05_unknown_versions_methods_and_hosts_are_refused(
    gateway: GatewayUnderTest, raw: bytes, statuses: set[int]
) -> None:
    reply = await refused(gateway, raw + SMUGGLED)

    assert reply.status in statuses
    assert gateway.upstream.received == []


@DELIVERIES
async def test_s06_trailers_never_become_fields(gateway: GatewayUnderTest, piece: int) -> None:
    trailers = b"Authorization: Bearer x\r\nX-Actor-Id: usr_admin\r\nX-Checksum: 1\r\nConnection: Host\r\n"
    raw = post(b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n" + trailers + b"\r\n")

    async with gateway.wire() as wire:
        await deliver(wire, raw, piece)
        reply = await wire.reply()

    assert reply.status == 200
    received = gateway.upstream.last
    assert received.body == b"hello"
    assert received.one("x-actor-id") == ""
    assert received.one("host") == "app.example.test"
    assert received.all("authorization") == received.all("x-checksum") == []


@DELIVERIES
@pytest.mark.parametrize("trailer", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
async def test_s06_framing_among_the_trailers_is_refused(gateway: GatewayUnderTest, trailer: bytes, piece: int) -> None:
    body = b"5\r\nhello\r\n0\r\n" + trailer + b"\r\n\r\n"

    reply = await refused(gateway, post(b"Transfer-Encoding: chunked", body=body + SMUGGLED), piece)

    assert reply.status == 400
    assert whole_requests(gateway) == []


@DELIVERIES
@pytest.mark.parametrize("trailers", [b"Host: evil.test\r\n", b"Host: evil.test\r\nX-B: 1\r\n"])
async def test_s06_a_host_among_the_trailers_is_nobodys(gateway: GatewayUnderTest, trailers: bytes, piece: int) -> None:
    body = b"5\r\nhello\r\n0\r\n" + trailers + b"\r\n"

    reply = await refused(gateway, post(b"Transfer-Encoding: chunked", body=body + SMUGGLED), piece)

    assert reply.status in (200, 400)
    assert {value for received in gateway.upstream.received for value in received.all("host")} <= {"app.example.test"}
    assert b"/public/smuggled" not in whole_requests(gateway)


async def test_s07_the_connection_ends_after_a_chunked_request(gateway: GatewayUnderTest) -> None:
    trailer = b"Authorization: Bearer " + mint_token().encode()
    raw = post(b"Transfer-Encoding: chunked", body=b"0\r\n" + trailer + b"\r\n\r\n")

    async with gateway.wire() as wire:
        await wire.send(raw + b"GET /private HTTP/1.1\r\n" + HOST + b"\r\n")
        first = await wire.reply()

        assert first.get("connection") == "close"
        assert await wire.closed()
    assert [received.target for received in gateway.upstream.received] == [b"/public/x"]


@pytest.mark.parametrize("gap", [False, True], ids=["pipelined", "later"])
async def test_s08_connect_is_refused_and_what_follows_is_not_read(gateway: GatewayUnderTest, gap: bool) -> None:
    async with gateway.wire() as wire:
        await wire.send(b"CONNECT app.example.test:443 HTTP/1.1\r\n" + HOST + b"\r\n" + (b"" if gap else SMUGGLED))
        reply = await wire.reply()
        if gap:
            await deliver(wire, SMUGGLED, 1 << 20)

        assert reply.status == 405
        assert await wire.closed()
    assert gateway.upstream.received == []


async def test_s09_an_offer_of_http_2_is_not_forwarded_and_answered_plainly(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get(
        "/public/x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"
    )

    assert reply.status == 200
    for name in ("connection", "upgrade", "http2-settings"):
        assert gateway.upstream.last.all(name) == []


@pytest.mark.parametrize("upgrade", ["h2c", "websocket, h2c", "websocket"])
async def test_s09_bytes_behind_an_upgrade_are_never_read_as_http(gateway: GatewayUnderTest, upgrade: str) -> None:
    raw = request("/public/x", "Connection: Upgrade", f"Upgrade: {upgrade}")

    async with gateway.wire() as wire:
        await wire.send(raw + SMUGGLED)
        reply = await wire.reply()

        assert "close" in reply.all("connection")
        assert await wire.closed()
    assert b"/public/smuggled" not in whole_requests(gateway)


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
async def test_s09_the_body_of_an_upgrade_is_never_read_as_http(gateway: GatewayUnderTest, upgrade: str) -> None:
    raw = request("/x", "Connection: Upgrade", f"Upgrade: {upgrade}", method="POST", body=SMUGGLED)

    async with gateway.wire() as wire:
        await wire.send(raw)
        reply = await wire.reply()

        assert reply.status == 401
        assert await wire.closed()
    assert gateway.upstream.received == []


@pytest.mark.parametrize(
    ("lines", "target", "status"),
    [((), b"/x", 401), ((b"Host: app.example.test",), b"/public/x", 400), ((), b"/public/../x", 400)],
)
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_s10_a_refusal_before_the_body_came_ends_the_connection(
    gateway: GatewayUnderTest, lines: tuple[bytes, ...], target: bytes, status: int, framing: str
) -> None:
    field = b"Transfer-Encoding: chunked" if framing == "chunked" else b"Content-Length: 1000"
    async with gateway.wire() as wire:
        await wire.send(post(field, *lines, target=target))
        reply = await wire.reply()
        await deliver(wire, SMUGGLED * 3, 1 << 20)

        assert reply.status == status
        assert reply.get("connection") == "close"
        assert await wire.closed()
    assert gateway.upstream.received == []


async def test_s10_a_body_that_looks_like_a_request_is_a_body(gateway: GatewayUnderTest) -> None:
    async with gateway.wire() as wire:
        reply = await wire.ask(post(b"Content-Length: %d" % len(SMUGGLED), target=b"/x", body=SMUGGLED))
        after = await wire.ask(request("/public/after"))

    assert reply.status == 401
    assert after.status == 200
    assert [received.target for received in gateway.upstream.received] == [b"/public/after"]
