"""Chunk sizes and extensions: what they may hide is bounded (S04), and what ordinary clients send passes."""

import asyncio

import pytest

from tests.support.gateway import GatewayUnderTest, mint_token
from tests.support.upstream import OK, Received, read_body
from tests.support.wire import bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHUNKED = "Transfer-Encoding: chunked"
LONG = b";x=" + b"a" * 8192
END = b"0\r\n\r\n"
PIECES = pytest.mark.parametrize("piece", [1 << 20, 1000, 100], ids=["whole", "thousands", "hundreds"])


def upload(own: bool) -> bytes:
    """The head of a chunked request, for a proxied route or for an endpoint of our own."""
    if not own:
        return request("/public/x", CHUNKED, method="POST")
    lines = (bearer(mint_token()), "Content-Type: application/json", CHUNKED)
    return request("/users/current/settings", *lines, method="PATCH")


async def answered(gateway: GatewayUnderTest, raw: bytes, piece: int) -> tuple[int, str | None]:
    """Send in pieces, each a read of its own; gives status and code of the one answer, after which all is over."""
    async with gateway.wire() as wire:
        try:
            for start in range(0, len(raw), piece):
                await wire.send(raw[start : start + piece])
                await asyncio.sleep(0)
        except ConnectionError:
            pass  # it was told to go before the last piece
        reply = await wire.reply()
        assert reply.get("connection") == "close"
        assert await wire.closed()
    return reply.status, reply.code if reply.status >= 400 else None


@PIECES
@pytest.mark.parametrize("own", [False, True], ids=["proxied", "own_endpoint"])
@pytest.mark.parametrize(
    "body",
    [
        b"2" + LONG + b"\r\n{}\r\n" + END,
        b"2\r\n{}\r\n0" + LONG + b"\r\n\r\n",
        b"2" + LONG,
        b"2;" + LONG[1:4000] + b"\r\n{}\r\n0;" + LONG[1:4000] + b"\r\n\r\n",
    ],
    ids=["first_chunk", "last_chunk", "no_end", "two_halves"],
)
async def test_s04_a_long_chunk_extension_is_refused(
    gateway: GatewayUnderTest, own: bool, body: bytes, piece: int
) -> None:
    verdict = await answered(gateway, upload(own) + body, piece)

    assert verdict == (400, "request_malformed")
    assert not any(received.whole for received in gateway.upstream.received)


@PIECES
@pytest.mark.parametrize(
    ("chunk", "count"),
    [(b"1\r\na\r\n", 20_000), (b"1;a=b\r\na\r\n", 5_000), (b'5;name="value";other\r\nhello\r\n', 2_000)],
    ids=["tiny", "tiny_with_extension", "short_with_extensions"],
)
async def test_s04_ordinary_chunks_pass_however_many(
    gateway: GatewayUnderTest, chunk: bytes, count: int, piece: int
) -> None:
    verdict = await answered(gateway, upload(own=False) + chunk * count + END, piece)

    assert verdict == (200, None)
    assert gateway.upstream.last.body == chunk.split(b"\r\n")[1] * count


@PIECES
async def test_s04_ordinary_chunks_reach_an_own_endpoint(gateway: GatewayUnderTest, piece: int) -> None:
    body = b'2;a=b\r\n{"\r\n' + b"1\r\nk\r\n" * 500 + b'4;c="d"\r\n":1}\r\n' + END

    verdict = await answered(gateway, upload(own=True) + body, piece)

    assert verdict[0] != 400


@PIECES
@pytest.mark.parametrize("before", [1, 15, 16, 17, 50])
async def test_s04_chunks_behind_pipelined_requests_pass(gateway: GatewayUnderTest, before: int, piece: int) -> None:
    raw = request("/users/current") * before + upload(own=False) + (b"64\r\n" + b"a" * 100 + b"\r\n") * 200 + END
    async with gateway.wire() as wire:
        for start in range(0, len(raw), piece):
            await wire.send(raw[start : start + piece])
            await asyncio.sleep(0)
        statuses = [(await wire.reply()).status for _ in range(before + 1)]

    assert statuses == [401] * before + [200]
    assert gateway.upstream.last.body == b"a" * 20_000


async def test_s04_requests_behind_chunks_are_not_taken_for_their_lines(gateway: GatewayUnderTest) -> None:
    raw = upload(own=False) + b"2\r\nok\r\n" + END
    verdict = await answered(gateway, raw + request("/public/unread", "X-Pad: " + "p" * 5000) * 4, 1 << 20)

    assert verdict == (200, None)
    assert len(gateway.upstream.received) == 1


async def test_s04_chunks_a_slow_upstream_leaves_waiting_are_not_taken_for_lines(gateway: GatewayUnderTest) -> None:
    gate = asyncio.Event()

    async def slow(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await read_body(received, reader)
        writer.write(OK)

    gateway.upstream.respond_early = slow
    async with gateway.wire() as wire:
        await wire.send(upload(own=False))
        sending = asyncio.create_task(wire.send((b"100\r\n" + bytes(256) + b"\r\n") * 80_000 + END))
        await asyncio.sleep(0.5)
        gate.set()
        await sending
        reply = await wire.reply()

    assert reply.status == 200
    assert len(gateway.upstream.last.body) == 80_000 * 256
