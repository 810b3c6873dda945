"""What a process accepts clients on: sockets that can be added and taken away, and an end that loses nobody."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

_BACKLOG = 4096


class Listeners:
    """Listening sockets that lead to one lane."""

    def __init__(
        self,
        lane: Callable[[], asyncio.BaseProtocol],
        *,
        ssl: ssl.SSLContext | None,
        ssl_handshake_timeout: float | None,
        ssl_shutdown_timeout: float | None,
    ) -> None:
        """Prepare; nothing is listened on yet.

        Args:
            lane: Makes the protocol of one connection.
            ssl: Of the listener; None: plain.
            ssl_handshake_timeout: Seconds; None without TLS.
            ssl_shutdown_timeout: Seconds; None without TLS.
        """
        self._lane = lane
        self._ssl = ssl
        self._timeouts = (ssl_handshake_timeout, ssl_shutdown_timeout)
        self._loop = asyncio.get_running_loop()
        self._servers: dict[socket.socket, asyncio.Server] = {}
        self._beginning: set[asyncio.Task[None]] = set()

    async def open(self, listener: socket.socket) -> None:
        """Accept clients on a bound socket, which is ours from now on."""
        handshake, shutdown = self._timeouts
        self._servers[listener] = await self._loop.create_server(
            self._lane,
            sock=listener,
            backlog=_BACKLOG,
            ssl=self._ssl,
            ssl_handshake_timeout=handshake,
            ssl_shutdown_timeout=shutdown,
        )

    def close(self, listener: socket.socket) -> None:
        """Leave a socket to others who hold it; its connections stay, and so does who waits to be accepted."""
        server = self._servers.pop(listener, None)
        if server is not None:
            server.close()

    async def end(self, patience_s: float) -> None:
        """Stop listening, at once.

        A socket that is closed resets whoever was not accepted yet, and they may have sent their request already. So
        everybody who waits is accepted right before.

        Args:
            patience_s: Seconds they have for their TLS handshakes; who takes longer does so while others drain.
        """
        waiting: list[socket.socket] = []
        for listener in tuple(self._servers):
            waiting += _accepted(listener)
            self.close(listener)
        for connection in waiting:
            task = self._loop.create_task(self._begin(connection))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)
        if self._beginning:
            await asyncio.wait(self._beginning, timeout=patience_s)

    async def _begin(self, connection: socket.socket) -> None:
        handshake, shutdown = self._timeouts
        with suppress(OSError):  # gone again, or no TLS: what the loop's own accepting is silent about, too
            await self._loop.connect_accepted_socket(
                self._lane,
                connection,
                ssl=self._ssl,
                ssl_handshake_timeout=handshake,
                ssl_shutdown_timeout=shutdown,
            )


def _accepted(listener: socket.socket) -> list[socket.socket]:
    """Accept everybody who waits now."""
    taken: list[socket.socket] = []
    while True:
        try:
            connection, _ = listener.accept()
        except ConnectionAbortedError:
            continue  # left while waiting
        except OSError:  # nobody waits (BlockingIOError), or no more files may be open
            return taken
        connection.setblocking(False)
        taken.append(connection)
