"""The websockets of the benchmark: how many are opened, and what is said when they are not."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from benchmarks.checks import Wrong
from benchmarks.peers import Echo
from benchmarks.websockets import all_echo, closed, opened
from tests.support.ports import free_port


class Refusing(asyncio.Protocol):
    """A server that hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


@pytest.fixture(params=[Echo])
async def port(request: pytest.FixtureRequest) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(request.param, "127.0.0.1", 0)
    yield int(server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("count", [1, 63, 64, 130])
async def test_as_many_are_open_as_were_asked_for_and_each_echoes(port: int, count: int) -> None:
    clients = await opened(port, ["first", "second"], count)
    await all_echo(clients)

    assert [client.echoes for client in clients] == [1] * count
    await closed(clients, 0)


@pytest.mark.parametrize("port", [Refusing], indirect=True)
async def test_refused_websocket_is_told(port: int) -> None:
    with pytest.raises(Wrong, match="was refused with 1 open"):
        await opened(port, ["token"], 1)


async def test_server_that_is_not_there_is_told() -> None:
    with pytest.raises(Wrong, match="no connection"):
        await opened(free_port(), ["token"], 3)
