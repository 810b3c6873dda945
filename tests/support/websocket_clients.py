"""Two independent websocket clients behind one shape, for tests that hold for both."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

DEADLINE_S = 30.0


class WebsocketClient(Protocol):
    """One open connection."""

    @property
    def subprotocol(self) -> str | None:
        """What was agreed."""

    @property
    def compressed(self) -> bool:
        """Messages are deflated."""

    async def send(self, message: str | bytes) -> None:
        """Send a message."""

    async def receive(self) -> str | bytes:
        """The next message."""

    async def ping(self, payload: bytes) -> None:
        """Send a ping and wait for its pong."""

    async def close(self, code: int, reason: str) -> None:
        """Close, and wait for the answer."""

    async def ended(self) -> int:
        """Wait for the server to close; gives its code."""


class OfWebsockets:
    """The client of the package `websockets`."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    @property
    def subprotocol(self) -> str | None:
        return self._connection.subprotocol

    @property
    def compressed(self) -> bool:
        assert self._connection.response is not None
        return "permessage-deflate" in self._connection.response.headers.get("Sec-WebSocket-Extensions", "")

    async def send(self, message: str | bytes) -> None:
        await self._connection.send(message)

    async def receive(self) -> str | bytes:
        async with asyncio.timeout(DEADLINE_S):
            return await self._connection.recv()

    async def ping(self, payload: bytes) -> None:
        await asyncio.wait_for(await self._connection.ping(payload), DEADLINE_S)

    async def close(self, code: int, reason: str) -> None:
        await self._connection.close(code, reason)

    async def ended(self) -> int:
        with pytest.raises(ConnectionClosed) as end:
            await self.receive()
        assert end.value.rcvd is not None
        return end.value.rcvd.code


class OfAiohttp:
    """The client of the package `aiohttp`."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self._connection = connection

    @property
    def subprotocol(self) -> str | None:
        return self._connection.protocol

    @property
    def compressed(self) -> bool:
        return bool(self._connection.compress)

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            await self._connection.send_str(message)
        else:
            await self._connection.send_bytes(message)

    async def receive(self) -> str | bytes:
        message = await self._connection.receive(DEADLINE_S)
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)
        data: str | bytes = message.data
        return data

    async def ping(self, payload: bytes) -> None:
        await self._connection.ping(payload)
        message = await self._connection.receive(DEADLINE_S)
        assert (message.type, bytes(message.data)) == (aiohttp.WSMsgType.PONG, payload)

    async def close(self, code: int, reason: str) -> None:
        await self._connection.close(code=code, message=reason.encode())

    async def ended(self) -> int:
        message = await self._connection.receive(DEADLINE_S)
        assert message.type is aiohttp.WSMsgType.CLOSE
        code: int = message.data
        return code


Opening = Callable[..., AbstractAsyncContextManager[WebsocketClient]]


@asynccontextmanager
async def open_with_websockets(
    url: str, *, compress: bool = False, subprotocols: Sequence[str] = (), token: str | None = None
) -> AsyncIterator[WebsocketClient]:
    """Connect with `websockets`."""
    options: dict[str, Any] = {"max_size": None, "ping_interval": None, "proxy": None}
    if token is not None:
        options["additional_headers"] = {"Authorization": f"Bearer {token}"}
    offered = [Subprotocol(name) for name in subprotocols] or None
    async with connect(url, compression="deflate" if compress else None, subprotocols=offered, **options) as connection:
        yield OfWebsockets(connection)


@asynccontextmanager
async def open_with_aiohttp(
    url: str, *, compress: bool = False, subprotocols: Sequence[str] = ()
) -> AsyncIterator[WebsocketClient]:
    """Connect with `aiohttp`, which here shows pongs and closes instead of keeping them."""
    async with (
        aiohttp.ClientSession(trust_env=False) as session,
        session.ws_connect(
            url, compress=15 if compress else 0, protocols=subprotocols, max_msg_size=0, autoping=False, autoclose=True
        ) as connection,
    ):
        yield OfAiohttp(connection)
