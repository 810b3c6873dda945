"""Independent websocket clients talk with an independent server through the tunnel, and notice nothing of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from tests.support.gateway import gateway_under_test
from tests.support.websocket_clients import Opening, WebsocketClient, open_with_aiohttp, open_with_websockets
from tests.support.websockets import echo, echo_server

MIB = 1 << 20
CLIENTS = pytest.mark.parametrize("opening", [open_with_websockets, open_with_aiohttp], ids=["websockets", "aiohttp"])
COMPRESSION = pytest.mark.parametrize("compress", [False, True], ids=["plain", "deflate"])


@pytest.fixture(params=[True, False], ids=["fast_lane", "aiohttp_lane"])
def fast_lane(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def talking(database_url: str, fast_lane: bool) -> Any:
    """Opens a client, by the library a test names, to a server whose handler it names."""

    @asynccontextmanager
    async def talk(opening: Opening, handler: Any = echo, **options: Any) -> AsyncIterator[WebsocketClient]:
        offered = options.get("subprotocols")
        async with (
            echo_server(handler=handler, subprotocols=offered and offered[1:]) as url,
            gateway_under_test(database_url, fast_lane=fast_lane, upstreams={"app": {"url": url}}) as gateway,
            opening(f"ws://127.0.0.1:{gateway.port}/public/ws", **options) as client,
        ):
            yield client

    return talk


@CLIENTS
@COMPRESSION
async def test_messages_up_to_16_mib_come_back(talking: Any, opening: Opening, compress: bool) -> None:
    pattern = bytes(index % 251 for index in range(65_537))
    messages = ["", "grüße", "x" * 126, b"", pattern[:125], pattern[:65_535], pattern, pattern * 256]
    async with talking(opening, compress=compress) as client:
        got = []
        for message in messages:
            await client.send(message)
            got.append(await client.receive())

        assert client.compressed is compress
    assert got == messages


@CLIENTS
@COMPRESSION
async def test_fragments_of_the_server_arrive_as_one_message(talking: Any, opening: Opening, compress: bool) -> None:
    parts = ["a", "b" * 70_000, "", "c" * 126]

    async def in_fragments(connection: ServerConnection) -> None:
        await connection.send(parts)
        await connection.wait_closed()

    async with talking(opening, in_fragments, compress=compress) as client:
        assert await client.receive() == "".join(parts)


@CLIENTS
async def test_a_ping_of_the_client_is_answered_with_its_payload(talking: Any, opening: Opening) -> None:
    async with talking(opening) as client:
        await client.ping(b"are you there")
        await client.send("still")

        assert await client.receive() == "still"


async def test_a_ping_of_the_server_is_answered_while_messages_flow(talking: Any) -> None:
    async def pinging(connection: ServerConnection) -> None:
        pong = await connection.ping(b"and you")
        await asyncio.wait_for(pong, 10)
        await connection.send("answered")
        await connection.wait_closed()

    async with talking(open_with_websockets, pinging) as client:
        assert await client.receive() == "answered"


@CLIENTS
async def test_a_subprotocol_is_agreed_end_to_end(talking: Any, opening: Opening) -> None:
    async with talking(opening, subprotocols=["v1.chat", "v2.chat"]) as client:
        assert client.subprotocol == "v2.chat"


@CLIENTS
@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
async def test_the_close_code_of_the_client_reaches_the_server(talking: Any, opening: Opening, code: int) -> None:
    ends: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    async def listening(connection: ServerConnection) -> None:
        with pytest.raises(ConnectionClosed) as end:
            await connection.recv()
        received = end.value.rcvd
        ends.set_result((received.code, received.reason) if received is not None else (0, ""))

    async with talking(opening, listening) as client:
        await client.close(code, "grüße")

        assert await asyncio.wait_for(ends, 10) == (code, "grüße")


@CLIENTS
@pytest.mark.parametrize("code", [1000, 1008, 1012, 4999])
async def test_the_close_code_of_the_server_reaches_the_client(talking: Any, opening: Opening, code: int) -> None:
    async def leaving(connection: ServerConnection) -> None:
        await connection.close(code, "enough")

    async with talking(opening, leaving) as client:
        assert await client.ended() == code


@CLIENTS
async def test_both_talk_at_once_without_waiting_for_each_other(talking: Any, opening: Opening) -> None:
    count = 200

    async def counting(connection: ServerConnection) -> None:
        async def pour() -> None:
            for number in range(count):
                await connection.send(b"%d" % number + bytes(20_000))

        pouring = asyncio.create_task(pour())
        got = [await connection.recv() for _ in range(count)]
        await pouring
        await connection.send(b"%d" % len(got))
        await connection.wait_closed()

    async with talking(opening, counting) as client:

        async def pour() -> None:
            for _ in range(count):
                await client.send(bytes(20_000))

        pouring = asyncio.create_task(pour())
        got = [await client.receive() for _ in range(count + 1)]
        await pouring

    assert got == [*(b"%d" % number + bytes(20_000) for number in range(count)), b"%d" % count]
