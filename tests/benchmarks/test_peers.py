"""Both ends of the benchmark's websockets speak with each other and with an independent library."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import websockets
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.peers import PAYLOAD, Client, Echo, accept_of, handshake, switched

FRAME = b"\x82\xfd\0\0\0\0" + b"m" * PAYLOAD


class Written(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data += bytes(data)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    yield int(server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()


def test_accept_is_that_of_the_standards_example() -> None:
    assert accept_of(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_other_answers_are_no_switch() -> None:
    assert not switched(b"HTTP/1.1 200 OK\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    assert not switched(b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: other")


@given(st.integers(min_value=0, max_value=5), st.lists(st.integers(min_value=1, max_value=400)))
def test_server_echoes_whole_messages_however_they_are_cut(messages: int, cuts: list[int]) -> None:
    echo, written, sent = Echo(), Written(), handshake("t") + FRAME * messages
    echo.connection_made(written)
    for cut in cuts:
        piece, sent = sent[:cut], sent[cut:]
        echo.data_received(piece)
    echo.data_received(sent)

    head, _, frames = written.data.partition(b"\r\n\r\n")

    assert switched(head)
    assert frames == (b"\x82\x7d" + b"m" * PAYLOAD) * messages


async def test_client_counts_echoes_and_goes_on_while_it_is_told_to(port: int) -> None:
    client, done = Client("t"), asyncio.Event()
    await asyncio.get_running_loop().create_connection(client.itself, "127.0.0.1", port)

    def three_times() -> bool:
        if client.echoes == 3:
            done.set()
        return client.echoes < 3

    assert await client.opened
    client.send(three_times)
    await asyncio.wait_for(done.wait(), 10)

    assert client.echoes == 3
    client.close()


async def test_independent_client_gets_a_message_of_that_length_back(port: int) -> None:
    async with websockets.connect(f"ws://127.0.0.1:{port}/socket", compression=None, close_timeout=0.1) as peer:
        await peer.send(b"m" * PAYLOAD)
        answer = await asyncio.wait_for(peer.recv(), 10)

    assert isinstance(answer, bytes)
    assert len(answer) == PAYLOAD
