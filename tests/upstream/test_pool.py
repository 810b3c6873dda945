"""The pool: how many connections there are, who gets one, and what becomes of dead ones. Over real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import UpstreamBusy, UpstreamError, UpstreamTimedOut, UpstreamUnreachable
from gateway.upstream.exchange import Exchange
from gateway.upstream.pool import Upstream
from tests.support.exchanges import KeptSink, outgoing, upstream
from tests.support.upstream import Received, RecordingUpstream, answer_ok, recording_upstream, until


@asynccontextmanager
async def pooled(max_connections: int = 4, **times: float) -> AsyncIterator[tuple[Upstream, RecordingUpstream]]:
    async with recording_upstream() as server:
        pool = upstream(port=server.port, max_connections=max_connections, **times)
        try:
            yield pool, server
        finally:
            pool.close()


def start(pool: Upstream, method: str = "GET") -> tuple[Exchange, KeptSink]:
    sink = KeptSink()
    exchange = Exchange(pool, outgoing(method), sink)
    exchange.start()
    return exchange, sink


def ended(sink: KeptSink) -> bool:
    return bool(sink.calls) and sink.calls[-1] in ("done", "failed")


async def finished(*sinks: KeptSink) -> None:
    await until(lambda: all(map(ended, sinks)))


async def never(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    await reader.read()
    return False


async def test_one_after_the_other_share_a_connection() -> None:
    async with pooled() as (pool, server):
        for _ in range(5):
            _, sink = start(pool)
            await finished(sink)

        assert server.connections == 1
        assert (pool.open, pool.idle) == (1, 1)


async def test_more_than_may_be_open_wait_and_are_all_served() -> None:
    async with pooled(max_connections=8) as (pool, server):
        sinks = [start(pool)[1] for _ in range(100)]
        await asyncio.sleep(0)
        most_queued = pool.queued
        await finished(*sinks)

        assert all(sink.calls[-1] == "done" for sink in sinks)
        assert server.most_open <= 8
        assert most_queued == 92
        assert (pool.open, pool.idle, pool.queued) == (8, 8, 0)


async def test_who_waits_too_long_is_told_to_come_back() -> None:
    async with pooled(max_connections=1, queue_timeout_s=0.05) as (pool, server):
        server.respond = never
        start(pool)
        sinks = [start(pool)[1] for _ in range(3)]
        await finished(*sinks)

        assert all(isinstance(sink.error, UpstreamBusy) for sink in sinks)
        assert (pool.open, pool.queued) == (1, 0)


async def test_a_place_handed_over_as_the_wait_ends_is_not_lost() -> None:
    async with pooled(max_connections=1, queue_timeout_s=0.05) as (pool, _):
        holder = await pool.connect()
        waiting = asyncio.create_task(pool.connect())
        await until(lambda: pool.queued)
        pool.release(holder)  # in this turn the place changes hands…
        waiting.cancel()  # …and its new owner gives up
        with pytest.raises(asyncio.CancelledError):
            await waiting

        assert (pool.open, pool.idle) == (1, 1)
        assert pool.take() is holder


async def test_a_connection_that_dies_on_its_way_to_a_waiting_request_is_replaced() -> None:
    async with pooled(max_connections=1) as (pool, _):
        holder = await pool.connect()
        waiting = asyncio.create_task(pool.connect())
        await until(lambda: pool.queued)
        pool.release(holder)
        holder.abort()
        given_out = await asyncio.wait_for(waiting, 5)

        assert given_out is not holder
        assert pool.open == 1


async def test_a_fresh_connection_is_dialled_even_when_a_used_one_comes_free() -> None:
    async with pooled(max_connections=1) as (pool, server):
        holder = await pool.connect()
        waiting = asyncio.create_task(pool.connect(fresh=True))
        await until(lambda: pool.queued)
        pool.release(holder)
        fresh = await asyncio.wait_for(waiting, 5)

        assert fresh is not holder
        assert pool.open == 1
        await until(lambda: len(server.writers) == 1)


async def test_a_refused_dial_leaves_no_trace_and_lets_the_next_one_try() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        pool = upstream(port=taken.getsockname()[1], max_connections=1)
        sinks = [start(pool)[1] for _ in range(4)]
        await finished(*sinks)

    assert all(isinstance(sink.error, UpstreamUnreachable) for sink in sinks)
    assert (pool.open, pool.queued) == (0, 0)


async def test_a_dial_that_hangs_ends_at_its_deadline() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(3)]
        try:
            for filler in fillers:  # fills the backlog, so that further dials get no answer
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            pool = upstream(port=port, connect_timeout_s=0.1)
            with pytest.raises(UpstreamTimedOut):
                await pool.connect()
        finally:
            for filler in fillers:
                filler.close()

    assert pool.open == 0


async def test_a_server_that_closes_at_once_takes_no_place() -> None:
    async def slam(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(slam, "127.0.0.1", 0)
    pool = upstream(port=server.sockets[0].getsockname()[1])
    for _ in range(30):
        _, sink = start(pool)
        await finished(sink)
        assert isinstance(sink.error, UpstreamUnreachable)
    await until(lambda: pool.open == 0)
    server.close()

    assert (pool.open, pool.idle) == (0, 0)


async def test_a_dead_idle_connection_is_not_used() -> None:
    async with pooled() as (pool, server):
        _, first = start(pool)
        await finished(first)
        for writer in tuple(server.writers):
            writer.close()
        await until(lambda: pool.open == 0)
        _, second = start(pool, "POST")
        await finished(second)

        assert second.calls[-1] == "done"
        assert server.connections == 2


async def test_idle_connections_end_after_a_while() -> None:
    async with pooled(kept_idle_s=0.05) as (pool, server):
        _, sink = start(pool)
        await finished(sink)
        await until(lambda: pool.open == 0)
        await until(lambda: not server.writers)

        assert pool.idle == 0


async def test_closing_ends_what_is_under_way_and_what_waits_and_dials_no_more() -> None:
    async with pooled(max_connections=2) as (pool, server):
        _, warm = start(pool)
        await finished(warm)
        server.respond = never
        sinks = [start(pool)[1] for _ in range(5)]
        await server.seen(3)
        pool.close()
        await finished(*sinks)
        _, late = start(pool)
        await finished(late)

        assert all(sink.calls == ["failed"] for sink in (*sinks, late))
        await until(lambda: pool.open == 0)
        assert server.connections == 2


OPERATIONS = st.lists(
    st.sampled_from(["start", "start", "start", "post", "abort", "abort_last", "turn", "wait", "server_drops", "mood"]),
    min_size=1,
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(operations=OPERATIONS, cap=st.integers(1, 3))
async def test_the_count_of_connections_is_true_whatever_happens(operations: list[str], cap: int) -> None:
    async def moody(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool | None:
        mood = len(server.received) % 5
        if mood == 1:
            return False
        if mood == 2:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokay")
        elif mood == 3:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\ncut")
            return False
        else:
            await answer_ok(received, reader, writer)
        return None

    async with pooled(max_connections=cap) as (pool, server):
        under_way: list[tuple[Exchange, KeptSink]] = []
        for operation in operations:
            match operation:
                case "abort" | "abort_last" if not under_way:
                    pass
                case "start" | "post":
                    under_way.append(start(pool, "GET" if operation == "start" else "POST"))
                case "abort":
                    under_way.pop(0)[0].abort()
                case "abort_last":
                    under_way.pop()[0].abort()
                case "turn":
                    await asyncio.sleep(0)
                case "wait":
                    await asyncio.sleep(0.003)
                case "server_drops":
                    for writer in tuple(server.writers):
                        writer.transport.abort()
                case "mood":
                    server.respond = moody if server.respond is answer_ok else answer_ok
                case _:
                    raise AssertionError(operation)
            assert 0 <= pool.open <= cap
        await until(lambda: all(ended(sink) for _, sink in under_way))

        assert all(sink.calls.count("done") + sink.calls.count("failed") == 1 for _, sink in under_way)
        assert all(sink.error is None or isinstance(sink.error, UpstreamError) for _, sink in under_way)
        assert pool.queued == 0
        await until(lambda: pool.open == pool.idle)
        pool.close()
        await until(lambda: pool.open == 0)
