"""What the tests of outages rest on: each fault is what it says."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.fault_proxy import Fault, FaultProxy, fault_proxy
from tests.support.wire import Wire, connected


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data)
    writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    async with fault_proxy(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}") as running:
        yield running
    server.close()


@pytest.fixture
async def wire(proxy: FaultProxy) -> AsyncIterator[Wire]:
    """A connection through it."""
    async with connected(proxy.port) as opened:
        yield opened


async def _asked(wire: Wire, words: bytes = b"hello") -> bytes:
    """What comes back within a moment."""
    wire.writer.write(words)
    heard = b""
    try:
        async with asyncio.timeout(0.3):
            while len(heard) < len(words):
                if not (data := await wire.reader.read(1000)):
                    break
                heard += data
    except TimeoutError:
        pass
    return heard


async def test_bytes_pass_both_ways(proxy: FaultProxy, wire: Wire) -> None:

    assert await _asked(wire) == b"hello"
    assert (proxy.connections, proxy.open) == (1, 1)


async def test_what_a_blackhole_held_back_arrives_when_it_ends(proxy: FaultProxy, wire: Wire) -> None:
    await proxy.set(Fault.BLACKHOLE)
    during = await _asked(wire)
    await proxy.set(Fault.NONE)
    after = await wire.reader.readexactly(5)

    assert (during, after) == (b"", b"hello")


async def test_half_an_answer_comes_and_the_rest_when_all_is_well(proxy: FaultProxy, wire: Wire) -> None:
    await proxy.set(Fault.HALF)
    during = await _asked(wire)
    await proxy.set(Fault.NONE)

    assert (during, await wire.reader.readexactly(2)) == (b"hel", b"lo")


async def test_a_trickle_is_slow_and_ends_well(proxy: FaultProxy, wire: Wire) -> None:
    await proxy.set(Fault.TRICKLE)
    during = await _asked(wire, b"x" * 1000)
    await proxy.set(Fault.NONE)

    assert 0 < len(during) < 100
    assert len(await wire.reader.readexactly(1000 - len(during))) == 1000 - len(during)


async def test_redis_that_loads_answers_each_command_with_that(proxy: FaultProxy, wire: Wire) -> None:
    await proxy.set(Fault.LOADING)
    wire.writer.write(b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n")

    assert (await wire.reader.readline(), await wire.reader.readline()) == (
        b"-LOADING Redis is loading the dataset in memory\r\n",
    ) * 2


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.REFUSE])
async def test_open_connections_are_cut_and_new_ones_do_not_serve_until_all_is_well(
    proxy: FaultProxy, wire: Wire, fault: Fault
) -> None:
    await _asked(wire)
    await proxy.set(fault)
    with pytest.raises(ConnectionResetError):
        await wire.reader.readexactly(1)
    with pytest.raises((ConnectionError, EOFError)):
        async with connected(proxy.port) as refused:
            await refused.reader.readexactly(1)
    await proxy.set(Fault.NONE)
    async with connected(proxy.port) as again:
        assert await _asked(again) == b"hello"
