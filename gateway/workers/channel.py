"""What supervisor and worker say to each other, over two socket pairs.

One carries frames (four bytes of length, then bytes): first the worker's orders, pickled, because they hold secrets
that JSON would mask; from then on JSON. The other carries listening sockets alone: event loops read without the
ancillary data in which descriptors travel.

| from | message | |
| --- | --- | --- |
| supervisor | `{"do": "samples", "id": n}`, `{"do": "checks", "id": n}` | answered with `id` and the name as key |
| supervisor | `{"do": "adopt", "socket": i}` | listen on the socket that lies in the other pair as well |
| supervisor | `{"do": "release", "socket": i}` | leave it again |
| worker | `{"event": "listening", "reloads": bool}` | `reloads`: it handles SIGHUP |
| worker | `{"event": "failed", "message": text}` | why it cannot start |
| worker | `{"event": "draining"}` | it listens on nothing more |
| worker | `{"samples": […]}` | its last figures |
"""

import asyncio
import json
import pickle
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.model import Settings

Message = dict[str, Any]
_LENGTH = 4


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker needs to know at its start.

    Attributes:
        index: Its place, from 0.
        settings: Everything that can be set; in force also when the file has changed since.
        config: The settings file, for a reload.
        database_url: Of the database that the supervisor prepared.
    """

    index: int
    settings: Settings
    config: Path
    database_url: str


class Channel:
    """One end of the frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> "Channel":
        """Take over one end of a socket pair."""
        end.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=end))

    def send(self, message: Message) -> None:
        """Send a message; lost without a word when the other side is gone, which the reader finds out."""
        self.send_frame(json.dumps(message).encode("ascii"))

    def send_frame(self, frame: bytes) -> None:
        """Send bytes."""
        if not self._writer.is_closing():
            self._writer.write(len(frame).to_bytes(_LENGTH, "big") + frame)

    async def messages(self) -> AsyncIterator[Message]:
        """Read messages until the other side is gone, however it went."""
        while True:
            try:
                size = int.from_bytes(await self._reader.readexactly(_LENGTH), "big")
                frame = await self._reader.readexactly(size)
            except (asyncio.IncompleteReadError, OSError):
                return
            yield json.loads(frame)

    async def close(self) -> None:
        """Close, with what was sent delivered if the other side is there."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return


def packed(orders: Orders) -> bytes:
    """Write orders as a frame's bytes."""
    return pickle.dumps(orders)


def receive_orders(end: socket.socket) -> Orders:
    """Wait for the orders, which are the first frame; blocks.

    Raises:
        EOFError: The supervisor is gone.
    """
    orders = pickle.loads(_exactly(end, int.from_bytes(_exactly(end, _LENGTH), "big")))  # noqa: S301 - our parent's
    if not isinstance(orders, Orders):
        raise TypeError("the first frame holds no orders")
    return orders


def _exactly(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = end.recv(size - len(data))
        if not part:
            raise EOFError("the supervisor is gone")
        data += part
    return data


def pass_listener(end: socket.socket, listener: socket.socket) -> None:
    """Send a listening socket; it stays ours as well."""
    socket.send_fds(end, [b"."], [listener.fileno()])


def receive_listener(end: socket.socket) -> socket.socket:
    """Take the next listening socket; one must be there or on its way.

    Raises:
        EOFError: The supervisor is gone.
    """
    data, descriptors, _, _ = socket.recv_fds(end, 1, 1)
    if not data or not descriptors:
        raise EOFError("the supervisor is gone")
    listener = socket.socket(fileno=descriptors[0])
    listener.setblocking(False)
    return listener
