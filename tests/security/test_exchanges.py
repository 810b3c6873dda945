"""Expectations, hostile upstreams and limits, over a real socket."""

import asyncio
import gzip

import pytest

from tests.support.gateway import GatewayUnderTest, mint_token
from tests.support.upstream import OK, Received, answer_ok, answering, until
from tests.support.wire import bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")


def post(*lines: bytes, body: bytes = b"", version: bytes = b"1.1", target: bytes = b"/public/x") -> bytes:
    head = b"POST %b HTTP/%b\r\nHost: app.example.test\r\n" % (target, version)
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


async def test_s11_the_body_is_invited_only_after_the_credential_passed(gateway: GatewayUnderTest) -> None:
    expecting = post(b"Content-Length: 5", b"Expect: 100-continue", target=b"/x")
    invited = post(b"Content-Length: 5", b"Expect: 100-continue", bearer(mint_token()).encode(), target=b"/x")
    async with gateway.wire() as wire:
        await wire.send(expecting)
        refusal = await wire.reply()
        assert await wire.closed()
    async with gateway.wire() as wire:
        await wire.send(invited)
        assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await wire.send(b"hello")
        reply = await wire.reply()

    assert (refusal.status, refusal.interim) == (401, [])
    assert (reply.status, reply.interim) == (200, [])
    assert gateway.upstream.last.body == b"hello"
    assert gateway.upstream.last.all("expect") == []


async def test_s11_other_expectations_are_refused(gateway: GatewayUnderTest) -> None:
    reply = await gateway.ask(post(b"Content-Length: 5", b"Expect: the-best"))

    assert reply.status == 417
    assert gateway.upstream.received == []


async def test_s11_http_1_0_gets_no_interim_answer(gateway: GatewayUnderTest) -> None:
    async with gateway.wire() as wire:
        await wire.send(post(b"Content-Length: 5", b"Expect: 100-continue", version=b"1.0"))
        await gateway.upstream.seen(1)
        await wire.send(b"hello")
        reply = await wire.reply()

    assert (reply.status, reply.interim) == (200, [])


BAD_ANSWERS = {
    "bare_lf": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "bare_lf_after_a_field": b"HTTP/1.1 200 OK\r\nContent-Length: 2\nA: b\r\n\r\nok",
    "length_and_chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks_and_length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "two_lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "list_of_lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "other_coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding_twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "nul_in_reason": b"HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\nok",
    "cr_in_reason": b"HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nok",
    "nul_in_field": b"HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 2\r\n\r\nok",
    "cr_in_field": b"HTTP/1.1 200 OK\r\nA: b\rSet-Cookie: c\r\nContent-Length: 2\r\n\r\nok",
    "folded_field": b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
    "space_before_colon": b"HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 2\r\n\r\nok",
    "huge_head": b"HTTP/1.1 200 OK\r\nA: " + b"b" * 200_000 + b"\r\nContent-Length: 2\r\n\r\nok",
    "many_fields": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000 + b"Content-Length: 2\r\n\r\nok",
    "endless_field": b"HTTP/1.1 200 OK\r\nA: " + b"b" * 1_000_000,
    "interim_flood": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100 + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "unasked_upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nok",
    "http_2": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "no_head": b"hello",
    "status_0": b"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nok",
    "status_999": b"HTTP/1.1 999 OK\r\nContent-Length: 2\r\n\r\nok",
    "status_of_two_digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_s12_a_bad_answer_is_502_and_its_connection_is_not_used_again(
    gateway: GatewayUnderTest, name: str
) -> None:
    gateway.upstream.respond = answering(BAD_ANSWERS[name])
    async with gateway.wire() as wire:
        reply = await wire.ask(request("/public/x"))
        bad = gateway.upstream.connections
        gateway.upstream.respond = answer_ok
        after = await wire.ask(request("/public/after"))

    assert (reply.status, reply.code) == (502, "upstream_malformed")
    assert str(gateway.upstream.port) not in reply.body.decode()
    assert (after.status, after.body) == (200, b"ok")
    assert gateway.upstream.connections == bad + 1


SURPLUS = {
    "text": b"surplus",
    "another_answer": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    "half_an_answer": b"HTTP/1.1 200 OK\r\nContent-Len",
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("apart", [False, True], ids=["one_read", "next_read"])
@pytest.mark.parametrize("name", SURPLUS)
async def test_s12_bytes_behind_an_answer_reach_nobody(
    gateway: GatewayUnderTest, name: str, apart: bool, method: str
) -> None:
    async def respond(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        whole = OK if method == "GET" else OK.removesuffix(b"ok")
        if apart:
            writer.write(whole)
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.write(SURPLUS[name])
        else:
            writer.write(whole + SURPLUS[name])

    gateway.upstream.respond = respond
    async with gateway.wire() as wire:
        reply = await wire.ask(request("/public/x", method=method))
        await until(lambda: not gateway.upstream.writers)
        used = gateway.upstream.connections
        gateway.upstream.respond = answer_ok
        after = await wire.ask(request("/public/after"))

    assert (reply.status, reply.body) == (200, b"ok" if method == "GET" else b"")
    assert (after.status, after.body) == (200, b"ok")
    assert gateway.upstream.connections == used + 1


async def test_s12_endless_trailers_cut_the_answer(gateway: GatewayUnderTest) -> None:
    gateway.upstream.respond = answering(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: " + b"b" * 1_000_000
    )
    async with gateway.wire() as wire:
        await wire.send(request("/public/x"))
        answer = await wire.rest()

    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert not answer.endswith(b"0\r\n\r\n")


async def test_s13_every_client_gets_its_own_answer(gateway: GatewayUnderTest) -> None:
    async def respond(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool | None:
        nonce = received.one("x-nonce").encode()
        kind = int(nonce) % 7
        if kind == 0:
            return False
        if kind == 1:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b-surplus" % (len(nonce), nonce))
        elif kind == 2:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + nonce)
            return False
        elif kind == 3:
            writer.write(b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nno")
        elif kind == 4:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(nonce))
            await writer.drain()
            writer.write(nonce + b"\r\n0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(nonce), nonce))
        return None

    async def client(first: int) -> list[tuple[int, int, bytes]]:
        seen = []
        for nonce in range(first, first + 25):
            async with gateway.wire() as wire:
                await wire.send(request("/public/x", f"X-Nonce: {nonce}"))
                try:
                    reply = await wire.reply()
                except asyncio.IncompleteReadError as cut:
                    seen.append((nonce, 0, cut.partial))
                else:
                    seen.append((nonce, reply.status, reply.body))
        return seen

    gateway.upstream.respond = respond
    outcomes = [outcome for seen in await asyncio.gather(*(client(n * 25) for n in range(40))) for outcome in seen]

    assert len(outcomes) == 1000
    for nonce, status, body in outcomes:
        if nonce % 7 in (0, 3):
            assert status == 502
        elif nonce % 7 == 2:
            assert (status, body) == (0, b"%d" % nonce)
        else:
            assert (status, body) == (200, b"%d" % nonce)


@pytest.mark.parametrize(
    ("size", "fields", "status"),
    [(16_000, 0, 200), (31_000, 0, 200), (40_000, 0, 431), (70_000, 0, 431), (1, 90, 200), (1, 150, 431)],
)
async def test_heads_are_taken_up_to_their_limits(
    gateway: GatewayUnderTest, size: int, fields: int, status: int
) -> None:
    lines = [f"X-Large: {'a' * size}", *(f"X-{number}: v" for number in range(fields))]

    reply = await gateway.get("/public/x", *lines)

    assert reply.status == status
    if status == 431:
        assert reply.code == "head_too_large"
        assert gateway.upstream.received == []
    else:
        assert len(gateway.upstream.last.one("x-large")) == size


async def test_a_head_too_large_is_told_to_a_client_that_still_sends_it(gateway: GatewayUnderTest) -> None:
    async with gateway.wire() as wire:
        await wire.send(request("/public/x", "X-Large: a")[:-4])
        for _ in range(40):
            await wire.send(b"a" * 8000)
            await asyncio.sleep(0.002)
        reply = await wire.reply()

        assert (reply.status, reply.code) == (431, "head_too_large")
        assert await wire.closed()


@pytest.mark.parametrize("digits", ["9" * 19, "9" * 400, "1" + "0" * 18])
async def test_lengths_of_more_than_18_digits_are_refused(gateway: GatewayUnderTest, digits: str) -> None:
    reply = await gateway.ask(post(b"Content-Length: " + digits.encode()))

    assert reply.status == 400
    assert gateway.upstream.received == []


async def test_a_gzip_bomb_passes_as_it_is(gateway: GatewayUnderTest) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    gateway.upstream.respond = answering(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(bomb), bomb)
    )

    reply = await gateway.ask(
        post(b"Content-Encoding: gzip", b"Content-Length: %d" % len(bomb), body=bomb, target=b"/public/d05")
    )

    assert reply.body == bomb
    assert gateway.upstream.last.body == bomb
