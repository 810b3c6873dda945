"""Upstreams that fail, seen by a client: what it is told, and that nobody after it is harmed."""

import asyncio
import socket
from typing import Any

import pytest

from tests.support.gateway import GatewayUnderTest, gateway_under_test
from tests.support.upstream import OK, Received, answer_ok, answering, answering_and_closing, until
from tests.support.wire import request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = {
    "upstreams": {"app": {"response_timeout": 0.3, "idle_timeout": 0.5, "queue_timeout": 0.3, "max_connections": 4}}
}


async def silent(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    await reader.read()
    return False


async def test_an_upstream_that_refuses_is_502(database_url: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        port = taken.getsockname()[1]
        async with (
            gateway_under_test(database_url, upstreams={"app": {"url": f"http://127.0.0.1:{port}"}}) as gateway,
            gateway.wire() as wire,
        ):
            replies = [await wire.ask(request("/public/x")) for _ in range(2)]
            failures = await gateway.metric("gateway_upstream_errors_total", reason="connect_failed")

    assert [(reply.status, reply.code) for reply in replies] == [(502, "upstream_unreachable")] * 2
    assert failures == 2
    assert b"127.0.0.1" not in replies[0].body
    assert str(port).encode() not in replies[0].body


async def test_an_upstream_that_does_not_answer_is_504_and_its_connection_is_dropped(
    gateway: GatewayUnderTest,
) -> None:
    gateway.upstream.respond = silent
    reply = await gateway.get("/public/x")

    assert (reply.status, reply.code) == (504, "upstream_timeout")
    await until(lambda: not gateway.upstream.writers)


async def test_an_upstream_that_trickles_its_head_is_504(gateway: GatewayUnderTest) -> None:
    async def trickle(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in OK:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    gateway.upstream.respond = trickle
    reply = await gateway.get("/public/x")

    assert reply.status == 504


async def test_an_upstream_that_closes_without_an_answer_is_502(gateway: GatewayUnderTest) -> None:
    gateway.upstream.respond = answering_and_closing(b"")
    reply = await gateway.get("/public/x")

    assert (reply.status, reply.code) == (502, "upstream_unreachable")


async def test_an_upstream_that_closes_within_its_head_is_502(gateway: GatewayUnderTest) -> None:
    gateway.upstream.respond = answering_and_closing(OK[:30])
    reply = await gateway.get("/public/x")

    assert (reply.status, reply.code) == (502, "upstream_unreachable")


async def die_once_reused(gateway: GatewayUnderTest) -> None:
    """Leave one kept connection on which the upstream dies at the next request; new connections work."""
    for writer in tuple(gateway.upstream.writers):
        writer.close()
    await until(lambda: not gateway.upstream.writers)
    first: list[asyncio.StreamWriter] = []

    async def respond(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool | None:
        if writer in first:
            return False
        if not first:
            first.append(writer)
        await answer_ok(received, reader, writer)
        return None

    gateway.upstream.respond = respond
    await gateway.get("/public/warm")
    gateway.upstream.received.clear()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
async def test_a_safe_request_is_replayed_once_when_a_kept_connection_died(
    gateway: GatewayUnderTest, method: str
) -> None:
    await die_once_reused(gateway)
    reply = await gateway.ask(request("/public/x", method=method))

    assert reply.status == 200
    assert [received.target for received in gateway.upstream.received] == [b"/public/x"] * 2


@pytest.mark.parametrize(("method", "body"), [("POST", b""), ("PATCH", b""), ("PUT", b"hello")])
async def test_any_other_request_is_never_sent_twice(gateway: GatewayUnderTest, method: str, body: bytes) -> None:
    await die_once_reused(gateway)
    reply = await gateway.ask(request("/public/x", method=method, body=body))

    assert reply.status == 502
    assert len(gateway.upstream.received) == 1


async def test_a_replay_that_fails_too_is_502(gateway: GatewayUnderTest) -> None:
    await die_once_reused(gateway)
    gateway.upstream.respond = answering_and_closing(b"")
    reply = await gateway.get("/public/x")

    assert reply.status == 502
    assert len(gateway.upstream.received) == 2


async def test_a_connection_that_died_after_a_first_byte_is_not_replayed(gateway: GatewayUnderTest) -> None:
    await gateway.get("/public/warm")
    gateway.upstream.respond = answering_and_closing(b"HTTP/1.1 2")
    gateway.upstream.received.clear()
    reply = await gateway.get("/public/x")

    assert reply.status == 502
    assert len(gateway.upstream.received) == 1


@pytest.mark.parametrize(
    "cut",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\nzz\r\n",
    ],
)
async def test_an_answer_cut_short_is_passed_on_cut_short(gateway: GatewayUnderTest, cut: bytes) -> None:
    gateway.upstream.respond = answering_and_closing(cut)
    async with gateway.wire() as wire:
        await wire.send(request("/public/x") + request("/public/next"))
        answer = await wire.rest()

    assert answer.count(b"HTTP/1.1") == 1
    assert b"begun" in answer
    assert not answer.endswith(b"0\r\n\r\n")


async def test_http_1_0_learns_by_a_reset_that_an_answer_was_cut_short(gateway: GatewayUnderTest) -> None:
    gateway.upstream.respond = answering_and_closing(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n"
    )
    async with gateway.wire() as wire:
        await wire.send(b"GET /public/x HTTP/1.0\r\nHost: app.example.test\r\n\r\n")

        with pytest.raises(ConnectionResetError):
            while await asyncio.wait_for(wire.reader.read(100), 5):
                pass


async def test_an_answer_that_stalls_is_cut(gateway: GatewayUnderTest) -> None:
    async def stall(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")
        return await silent(received, reader, writer)

    gateway.upstream.respond = stall
    async with gateway.wire() as wire:
        await wire.send(request("/public/x"))
        answer = await wire.rest()

    assert answer.endswith(b"begun")
    await until(lambda: not gateway.upstream.writers)


async def test_an_answer_that_keeps_coming_is_not_cut(gateway: GatewayUnderTest) -> None:
    async def slow(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            await asyncio.sleep(0.1)
            writer.write(b"x")
            await writer.drain()

    gateway.upstream.respond = slow
    reply = await gateway.get("/public/x")

    assert reply.body == b"x" * 10


async def test_when_all_connections_stay_busy_the_next_is_503_with_retry_after(gateway: GatewayUnderTest) -> None:
    async def slow(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        await asyncio.sleep(0.45)
        writer.write(b"k")

    gateway.upstream.respond = slow
    holding = [asyncio.create_task(gateway.get("/public/x")) for _ in range(4)]
    await gateway.upstream.seen(4)
    refused = await gateway.get("/public/x")
    held = await asyncio.gather(*holding)

    assert (refused.status, refused.code) == (503, "upstream_busy")
    assert refused.get("retry-after") == "1"
    assert [reply.body for reply in held] == [b"ok"] * 4


async def test_interim_answers_are_swallowed(gateway: GatewayUnderTest) -> None:
    gateway.upstream.respond = answering(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)
    reply = await gateway.get("/public/x")

    assert (reply.status, reply.interim, reply.body) == (200, [], b"ok")
    assert reply.all("link") == []


async def test_failures_do_not_end_a_client_connection_that_is_whole(gateway: GatewayUnderTest) -> None:
    async with gateway.wire() as wire:
        gateway.upstream.respond = answering_and_closing(b"")
        first = await wire.ask(request("/public/x"))
        gateway.upstream.respond = answer_ok
        second = await wire.ask(request("/public/x"))

    assert (first.status, second.status) == (502, 200)
