"""Bodies both ways: how they are delimited for each side, and that nothing of them changes."""

import asyncio

import pytest

from tests.support.gateway import GatewayUnderTest
from tests.support.upstream import OK, Received, answering, answering_and_closing, read_body, until
from tests.support.wire import Wire, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SIZES = (0, 1, 100, 65_536, 1_000_000)
HTTP10 = b"%b /public/x HTTP/1.0\r\nHost: app.example.test\r\n%b\r\n"
CHUNKED_OK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nT: t\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nabcde"


def chunks_of(body: bytes, size: int = 1000) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("size", SIZES)
async def test_a_body_of_known_length_goes_up_with_its_length(gateway: GatewayUnderTest, size: int) -> None:
    body = bytes(index % 251 for index in range(size))
    async with gateway.wire() as wire:
        reply = await wire.ask(request("/public/x", f"Content-Length: {size}", method="POST") + body)
        again = await wire.ask(request("/public/again"))

    assert (reply.status, again.status) == (200, 200)
    received = gateway.upstream.received[0]
    assert received.body == body
    assert received.one("content-length") == str(size)
    assert received.all("transfer-encoding") == []


@pytest.mark.parametrize("size", SIZES)
async def test_a_chunked_body_goes_up_chunked(gateway: GatewayUnderTest, size: int) -> None:
    body = bytes(index % 251 for index in range(size))
    reply = await gateway.ask(request("/public/x", "Transfer-Encoding: chunked", method="POST") + chunks_of(body))

    assert reply.status == 200
    assert gateway.upstream.last.body == body
    assert gateway.upstream.last.all("content-length") == []


async def test_a_request_without_a_body_goes_up_without_framing(gateway: GatewayUnderTest) -> None:
    for method in ("GET", "POST", "DELETE"):
        await gateway.ask(request("/public/x", method=method))

        assert gateway.upstream.last.all("content-length") == []
        assert gateway.upstream.last.all("transfer-encoding") == []


@pytest.mark.parametrize("size", SIZES)
async def test_an_answer_of_known_length_keeps_it(gateway: GatewayUnderTest, size: int) -> None:
    body = bytes(index % 251 for index in range(size))
    gateway.upstream.respond = answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, body))
    reply = await gateway.get("/public/x")

    assert reply.body == body
    assert reply.get("content-length") == str(size)


@pytest.mark.parametrize("size", SIZES)
async def test_a_chunked_answer_stays_chunked(gateway: GatewayUnderTest, size: int) -> None:
    body = bytes(index % 251 for index in range(size))
    gateway.upstream.respond = answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks_of(body))
    reply = await gateway.get("/public/x")

    assert reply.body == body
    assert reply.get("transfer-encoding") == "chunked"


@pytest.mark.parametrize("size", SIZES)
async def test_an_answer_until_close_becomes_chunked(gateway: GatewayUnderTest, size: int) -> None:
    body = bytes(index % 251 for index in range(size))
    gateway.upstream.respond = answering_and_closing(b"HTTP/1.1 200 OK\r\n\r\n" + body)
    async with gateway.wire() as wire:
        reply = await wire.ask(request("/public/x"))
        again = await wire.ask(request("/public/x"))

    assert (reply.body, again.body) == (body, body)
    assert reply.get("transfer-encoding") == "chunked"


@pytest.mark.parametrize("answer", [CHUNKED_OK, UNTIL_CLOSE], ids=["chunked", "until_close"])
async def test_http_1_0_gets_no_chunks_but_the_end_of_the_connection(gateway: GatewayUnderTest, answer: bytes) -> None:
    gateway.upstream.respond = answering_and_closing(answer)
    async with gateway.wire() as wire:
        reply = await wire.ask(HTTP10 % (b"GET", b"Connection: keep-alive\r\n"))

    assert reply.body == b"abcde"
    assert reply.all("transfer-encoding") == reply.all("t") == []
    assert reply.get("connection") == "close"


async def test_http_1_0_is_kept_alive_when_it_asks(gateway: GatewayUnderTest) -> None:
    async with gateway.wire() as wire:
        first = await wire.ask(HTTP10 % (b"GET", b"Connection: keep-alive\r\n"))
        second = await wire.ask(HTTP10 % (b"GET", b""))

        assert (first.get("connection"), second.get("connection")) == ("keep-alive", "close")
        assert await wire.closed()


async def test_trailers_are_dropped(gateway: GatewayUnderTest) -> None:
    gateway.upstream.respond = answering(CHUNKED_OK)
    async with gateway.wire() as wire:
        await wire.send(request("/public/x", "Connection: close"))
        answer = await wire.rest()

    assert answer.endswith(b"\r\n0\r\n\r\n")
    assert b"T: t" not in answer


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 404 Not Found\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b'HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: "a"\r\n\r\n'),
    ],
)
async def test_answers_without_a_body_leave_both_connections_whole(
    gateway: GatewayUnderTest, method: str, answer: bytes
) -> None:
    gateway.upstream.respond = answering(answer)
    async with gateway.wire() as wire:
        first = await wire.ask(request("/public/x", method=method))
        gateway.upstream.respond = answering(OK)
        second = await wire.ask(request("/public/x"))

    assert first.status == int(answer[9:12])
    assert first.get("content-length") == ("1000" if b"1000" in answer else None)
    assert (second.status, second.body) == (200, b"ok")


async def test_pipelined_requests_are_answered_in_order(gateway: GatewayUnderTest) -> None:
    async def echo(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if received.target.endswith(b"0"):
            await asyncio.sleep(0.02)  # the first is the slowest
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(received.target), received.target))

    gateway.upstream.respond = echo
    async with gateway.wire() as wire:
        await wire.send(b"".join(request(f"/public/{number}") for number in range(100)))
        bodies = [(await wire.reply()).body for _ in range(100)]

    assert bodies == [b"/public/%d" % number for number in range(100)]


async def test_connections_are_kept_alive_on_both_sides(gateway: GatewayUnderTest) -> None:
    await gateway.get("/public/warm")
    before = gateway.upstream.connections
    async with gateway.wire() as wire:
        for number in range(20):
            reply = await wire.ask(request(f"/public/{number}", method="POST", body=b"hello"))

            assert reply.get("connection") is None
    assert gateway.upstream.connections == before


async def test_a_client_that_asks_for_the_end_gets_it(gateway: GatewayUnderTest) -> None:
    async with gateway.wire() as wire:
        reply = await wire.ask(request("/public/x", "Connection: close"))

        assert reply.get("connection") == "close"
        assert await wire.closed()
    assert len(gateway.upstream.received) == 1


async def test_an_upstream_that_closes_does_not_end_the_client(gateway: GatewayUnderTest) -> None:
    gateway.upstream.respond = answering_and_closing(OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"))
    async with gateway.wire() as wire:
        first = await wire.ask(request("/public/x"))
        second = await wire.ask(request("/public/x"))

    assert first.get("connection") is None
    assert second.status == 200


async def upload_in_part(wire: Wire, gateway: GatewayUnderTest) -> None:
    await wire.send(request("/public/x", "Content-Length: 1000000", method="POST") + b"part")
    await gateway.upstream.seen(1)


async def test_an_early_answer_is_relayed_and_both_connections_end(gateway: GatewayUnderTest) -> None:
    gateway.upstream.respond_early = answering(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
    async with gateway.wire() as wire:
        await upload_in_part(wire, gateway)
        reply = await wire.reply()

        assert (reply.status, reply.body, reply.get("connection")) == (413, b"no", "close")
        assert await wire.closed()
    await until(lambda: not gateway.upstream.writers)


async def test_an_answer_may_begin_before_the_upload_ends(gateway: GatewayUnderTest) -> None:
    async def respond(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n")
        await read_body(received, reader)
        writer.write(b"4\r\ndone\r\n0\r\n\r\n")

    gateway.upstream.respond_early = respond
    async with gateway.wire() as wire:
        await upload_in_part(wire, gateway)
        await wire.reader.readuntil(b"begun\r\n")
        await wire.send(bytes(1_000_000 - 4))
        rest = await wire.rest()

    assert rest == b"4\r\ndone\r\n0\r\n\r\n"
    assert gateway.upstream.last.body == b"part" + bytes(1_000_000 - 4)
