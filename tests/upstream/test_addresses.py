"""A pool with several addresses: what a dial does when one of them fails. Over real sockets."""

import asyncio
import errno
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import UpstreamError, UpstreamTimedOut, UpstreamUnreachable
from gateway.upstream.address import UpstreamAddress, parse_addresses
from gateway.upstream.exchange import Exchange
from gateway.upstream.pool import Upstream
from gateway.upstream.rotation import DEATHS
from tests.support.exchanges import KeptSink, outgoing, upstream
from tests.support.upstream import Received, RecordingUpstream, answer_ok, recording_upstream, until


@asynccontextmanager
async def pooled(count: int = 2, max_connections: int = 8) -> AsyncIterator[tuple[Upstream, list[RecordingUpstream]]]:
    async with recording_upstream() as first, recording_upstream() as second, recording_upstream() as third:
        servers = [first, second, third][:count]
        pool = upstream([at(server.port) for server in servers], max_connections=max_connections)
        try:
            yield pool, servers
        finally:
            pool.close()


def at(port: int) -> UpstreamAddress:
    return UpstreamAddress("127.0.0.1", port)


@contextmanager
def refusing() -> Iterator[UpstreamAddress]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        yield at(taken.getsockname()[1])


@contextmanager
def swallowing() -> Iterator[UpstreamAddress]:
    """An address that answers no dial."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:  # fills the backlog
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        try:
            yield at(full.getsockname()[1])
        finally:
            for filler in fillers:
                filler.close()


@contextmanager
def no_more_files() -> Iterator[None]:
    """A process that may open no further file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as next_one:
        lowest_free = next_one.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def ask(pool: Upstream, method: str = "GET") -> KeptSink:
    sink = KeptSink()
    Exchange(pool, outgoing(method), sink).start()
    await until(lambda: sink.calls and sink.calls[-1] in ("done", "failed"))
    return sink


async def slam(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    return False


async def test_one_request_after_the_other_goes_to_one_address_after_the_other() -> None:
    async with pooled(3) as (pool, servers):
        for _ in range(30):
            await ask(pool)

        assert [len(server.received) for server in servers] == [10, 10, 10]
        assert [server.connections for server in servers] == [1, 1, 1]
        assert (pool.open, pool.idle) == (3, 3)


async def test_requests_at_once_are_spread_too() -> None:
    async with pooled(2, max_connections=20) as (pool, servers):
        for _ in range(5):
            await asyncio.gather(*(ask(pool) for _ in range(20)))

        assert all(45 <= len(server.received) <= 55 for server in servers)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_refused_dial_goes_on_at_another_address_whatever_the_method(method: str) -> None:
    with refusing() as dead:
        async with recording_upstream() as server:
            pool = upstream([dead, at(server.port)])
            sinks = [await ask(pool, method) for _ in range(6)]
            pool.close()

    assert [sink.calls[-1] for sink in sinks] == ["done"] * 6
    assert [health.failures for health in pool.rotation.addresses] == [1, 0]
    assert server.connections == 1


async def test_an_address_that_swallows_dials_leaves_time_for_the_next() -> None:
    with swallowing() as mute:
        async with recording_upstream() as server:
            pool = upstream([mute, at(server.port)], connect_timeout_s=1.0)
            sink = await ask(pool)
            pool.close()

    assert sink.calls[-1] == "done"
    assert [health.failures for health in pool.rotation.addresses] == [1, 0]


async def test_when_every_address_refuses_each_was_dialled_once() -> None:
    with refusing() as one, refusing() as two:
        pool = upstream([one, two], max_connections=1)
        sinks = [await ask(pool) for _ in range(3)]

    assert all(isinstance(sink.error, UpstreamUnreachable) for sink in sinks)
    assert [health.failures for health in pool.rotation.addresses] == [3, 3]
    assert pool.open == 0


async def test_when_every_address_swallows_the_dial_the_deadline_is_that_of_one() -> None:
    loop = asyncio.get_running_loop()
    with swallowing() as one, swallowing() as two:
        pool = upstream([one, two], connect_timeout_s=0.4)
        started = loop.time()
        with pytest.raises(UpstreamTimedOut):
            await pool.connect()

        assert loop.time() - started >= 0.3
    assert pool.open == 0


async def test_idle_connections_of_an_address_that_rests_are_closed() -> None:
    async with pooled(2) as (pool, servers):
        for _ in range(4):
            await ask(pool)
        pool._rest(0, begins=pool.rotation.dial_failed(0))
        await until(lambda: pool.open == 1)
        for _ in range(4):
            await ask(pool)

        assert [len(server.received) for server in servers] == [2, 6]


async def test_an_address_that_takes_connections_and_drops_them_rests_until_it_answers() -> None:
    async with pooled(2) as (pool, servers):
        servers[0].respond = slam
        failed = [sink for sink in [await ask(pool) for _ in range(20)] if sink.error is not None]

        assert len(failed) == DEATHS
        assert pool.rotation.resting == 1

        servers[0].respond = answer_ok
        pool.rotation.addresses[0].rests_until = asyncio.get_running_loop().time()  # as if the rest was over
        for _ in range(4):
            assert (await ask(pool)).error is None
        assert pool.rotation.resting == 0


async def test_a_replay_goes_to_another_address() -> None:
    async with pooled(2) as (pool, servers):
        for _ in range(2):
            await ask(pool)
        servers[0].respond = slam
        sink = await ask(pool)

        assert sink.calls[-1] == "done"
        assert [len(server.received) for server in servers] == [2, 2]


async def test_a_place_that_stands_unused_at_one_address_serves_another_ones_turn() -> None:
    async with pooled(2, max_connections=1) as (pool, servers):
        for _ in range(6):
            assert (await ask(pool)).calls[-1] == "done"

        assert pool.open == 1
        assert sum(server.connections for server in servers) == 1


async def test_an_address_that_is_back_gets_its_share_though_another_holds_all_places() -> None:
    async with pooled(2, max_connections=4) as (pool, servers):
        pool._rest(1, begins=pool.rotation.dial_failed(1))
        await asyncio.gather(*(ask(pool) for _ in range(8)))
        assert (servers[0].connections, servers[1].connections) == (4, 0)

        pool.rotation.dialled(1)
        for _ in range(5):
            await asyncio.gather(*(ask(pool) for _ in range(8)))

        await until(lambda: (len(servers[0].writers), len(servers[1].writers)) == (2, 2))
        assert servers[1].connections == 2
        assert pool.open == 4


async def test_want_of_files_on_this_side_is_not_held_against_an_address() -> None:
    async with pooled(2) as (pool, _):
        with no_more_files(), pytest.raises(UpstreamUnreachable) as caught:
            await pool.connect()

        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.EMFILE
        assert [health.failures for health in pool.rotation.addresses] == [0, 0]
        assert pool.open == 0


async def test_a_burst_of_dials_beyond_a_sockets_backlog_waits(tmp_path: Path) -> None:
    served = RecordingUpstream()
    server = await asyncio.start_unix_server(served.serve, tmp_path / "app.sock", backlog=1)
    pool = upstream(
        parse_addresses([f"unix:{tmp_path}/app.sock"]), max_connections=200, connect_timeout_s=60, queue_timeout_s=60
    )
    sinks = await asyncio.gather(*(ask(pool) for _ in range(200)))
    pool.close()
    server.close()

    assert [sink.error for sink in sinks if sink.error is not None] == []


async def test_a_socket_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    pool = upstream(parse_addresses([f"unix:{tmp_path}/app.sock"]))

    with pytest.raises(UpstreamError) as caught:
        await pool.connect()
    assert caught.value.reason == "connect_failed"


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["start", "start", "start", "post", "abort", "turn", "wait", "drop", "mood", "rest", "due"]),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(events=EVENTS, cap=st.integers(1, 5))
async def test_the_count_of_connections_is_true_whatever_happens_at_the_addresses(
    events: list[tuple[str, int]], cap: int
) -> None:
    async with pooled(2, max_connections=cap) as (pool, servers):
        under_way: list[tuple[Exchange, KeptSink]] = []
        for event, index in events:
            match event:
                case "start" | "post":
                    sink = KeptSink()
                    exchange = Exchange(pool, outgoing("GET" if event == "start" else "POST"), sink)
                    exchange.start()
                    under_way.append((exchange, sink))
                case "abort":
                    if under_way:
                        under_way.pop(0)[0].abort()
                case "turn" | "wait":
                    await asyncio.sleep(0 if event == "turn" else 0.003)
                case "drop":
                    for writer in tuple(servers[index].writers):
                        writer.transport.abort()
                case "mood":
                    servers[index].respond = slam if servers[index].respond is answer_ok else answer_ok
                case "rest":
                    pool._rest(index, begins=pool.rotation.dial_failed(index))
                case "due":
                    health = pool.rotation.addresses[index]
                    health.rests_until = min(health.rests_until, pool.loop.time())
                case _:
                    raise AssertionError(event)
            assert 0 <= pool.open <= cap
        sinks = [sink for _, sink in under_way]
        await until(lambda: all(sink.calls and sink.calls[-1] in ("done", "failed") for sink in sinks))

        assert pool.queued == 0
        await until(lambda: pool.open == pool.idle)
        assert sum(pool._held) == pool.open
        pool.close()
        await until(lambda: pool.open == 0)
        assert pool._held == [0, 0]


def test_addresses_come_apart_as_the_settings_write_them() -> None:
    assert parse_addresses(["http://[::1]:9000", "unix:/run/a b.sock"]) == (
        UpstreamAddress("::1", 9000),
        UpstreamAddress(path="/run/a b.sock"),
    )


def test_an_https_address_is_never_dialled_in_the_clear() -> None:
    with pytest.raises(ValueError, match="TLS context"):
        parse_addresses(["https://app.internal:443"])
