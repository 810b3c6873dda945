"""The connections to one upstream: kept alive, newest first, capped, with a short queue when all are in use."""

import asyncio
from collections import deque
from collections.abc import Callable

from gateway.errors import UpstreamBusy, UpstreamTimedOut, UpstreamUnreachable
from gateway.upstream.connection import UpstreamConnection

KEPT_IDLE_S = 55.0
"""Seconds an unused connection is kept: below the 60 s and 75 s after which common servers close."""


class Upstream:
    """One backend at one address.

    Attributes:
        open: Connections open or being dialled.
        queued: Requests waiting for one.
        tunnels: Connections that switched protocols: neither counted in `open` nor capped by `max_connections`.
        closed: Nothing is dialled any more.
    """

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        *,
        connect_timeout_s: float,
        response_timeout_s: float,
        idle_timeout_s: float,
        max_connections: int,
        queue_timeout_s: float,
        kept_idle_s: float = KEPT_IDLE_S,
    ) -> None:
        self.name = name
        self.host = host
        self.port = port
        self.connect_timeout_s = connect_timeout_s
        self.response_timeout_s = response_timeout_s
        self.idle_timeout_s = idle_timeout_s
        self.max_connections = max_connections
        self.queue_timeout_s = queue_timeout_s
        self.kept_idle_s = kept_idle_s
        self.loop = asyncio.get_running_loop()
        self.open = 0
        self.tunnels = 0
        self.closed = False
        self._idle: deque[UpstreamConnection] = deque()
        self._all: set[UpstreamConnection] = set()
        self._apart: set[UpstreamConnection] = set()
        self._queue: deque[asyncio.Future[UpstreamConnection | None]] = deque()
        self._sweep_every_s = min(1.0, max(0.02, min(response_timeout_s, idle_timeout_s, kept_idle_s) / 4))
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> int:
        """Connections waiting for a request."""
        return len(self._idle)

    @property
    def upgraded(self) -> int:
        """Connections outside the pool: tunnels, and handshakes under way."""
        return len(self._apart) + self.tunnels

    @property
    def queued(self) -> int:
        """Requests waiting for a connection."""
        return sum(not waiter.done() for waiter in self._queue)

    def take(self) -> UpstreamConnection | None:
        """The most recently used idle connection, None when there is none. Never waits."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def connect(self, *, fresh: bool = False) -> UpstreamConnection:
        """Dial, or wait for a connection when all allowed ones are in use.

        Args:
            fresh: Refuse a reused connection (a replay must not meet the same fate twice).

        Raises:
            UpstreamBusy: Nothing came free within `queue_timeout`.
            UpstreamUnreachable: Refused, unresolvable, or broken.
            UpstreamTimedOut: No connection within `connect_timeout`.
        """
        until = self.loop.time() + self.queue_timeout_s
        while self.open >= self.max_connections:
            connection = await self._queue_up(until)
            if connection is None:
                break  # the place is counted already
            if connection.usable and not fresh:
                return connection
            if connection in self._all:
                self._all.discard(connection)  # this dial takes its place
                connection.abort()
                break
            # It was lost on its way here and its place given back: stand in line again.
        else:
            self.open += 1
        return await self._dial()

    async def _queue_up(self, until: float) -> UpstreamConnection | None:
        """Wait for a connection, or (None) for the right to dial one; the place is already counted in `open`."""
        if self.closed:
            raise UpstreamUnreachable("shutting_down")
        waiter: asyncio.Future[UpstreamConnection | None] = self.loop.create_future()
        self._queue.append(waiter)
        # A timer of our own: `asyncio.timeout` may fire in the very turn that hands over a place, and lose it.
        timer = self.loop.call_at(until, self._give_up, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._return_place(waiter.result())
            raise
        finally:
            timer.cancel()

    def _give_up(self, waiter: "asyncio.Future[UpstreamConnection | None]") -> None:
        if not waiter.done():
            waiter.set_exception(UpstreamBusy("queue_timeout"))
        while self._queue and self._queue[0].done():
            self._queue.popleft()

    def _return_place(self, connection: UpstreamConnection | None) -> None:
        if connection is None:
            self.open -= 1
            self._admit()
        elif connection.usable:
            self.release(connection)

    async def _dial(self) -> UpstreamConnection:
        """Open a connection in a place that is already counted."""
        try:
            connection = await self._reach(lambda: UpstreamConnection(self))
        except BaseException:
            self.open -= 1
            self._admit()
            raise
        self._all.add(connection)
        self._watch(connection)
        return connection

    async def connect_apart(self, make: Callable[[], UpstreamConnection]) -> UpstreamConnection:
        """Dial a connection for one upgrade, outside the pool: long tunnels must not starve requests.

        Raises:
            UpstreamUnreachable: Refused, unresolvable, or broken.
            UpstreamTimedOut: No connection within `connect_timeout`.
        """
        connection = await self._reach(make)
        self._apart.add(connection)
        self._watch(connection)
        return connection

    def forget_apart(self, connection: UpstreamConnection) -> None:
        """A handshake's connection became a tunnel's, which keeps its own deadlines."""
        self._apart.discard(connection)

    def _watch(self, connection: UpstreamConnection) -> None:
        if self.closed:
            connection.abort()
            raise UpstreamUnreachable("shutting_down")
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(self._sweep_every_s, self._sweep)

    async def _reach(self, make: Callable[[], UpstreamConnection]) -> UpstreamConnection:
        try:
            async with asyncio.timeout(self.connect_timeout_s):
                return await self._open_connection(make)
        except TimeoutError:
            raise UpstreamTimedOut("connect_timeout") from None
        except (OSError, UnicodeError) as error:  # UnicodeError: a name no resolver takes
            raise UpstreamUnreachable("connect_failed") from error

    async def _open_connection(self, make: Callable[[], UpstreamConnection]) -> UpstreamConnection:
        if self.closed:
            raise UpstreamUnreachable("shutting_down")
        _, connection = await self.loop.create_connection(make, self.host, self.port)
        if not connection.usable:
            connection.abort()  # lost before anybody knew of it: `left` will not count it out
            raise UpstreamUnreachable("closed_early")
        return connection

    def release(self, connection: UpstreamConnection) -> None:
        """Take a connection back after a complete exchange."""
        if self.closed:
            connection.abort()
            return
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        connection.idle_since = self.loop.time()
        self._idle.append(connection)

    def left(self, connection: UpstreamConnection) -> None:
        """Forget a connection that is gone."""
        self._apart.discard(connection)
        if connection in self._all:
            self._all.discard(connection)
            self.open -= 1
            if connection in self._idle:
                self._idle.remove(connection)
            self._admit()

    def _admit(self) -> None:
        """A place came free: let the longest waiting request dial."""
        while self._queue and self.open < self.max_connections:
            waiter = self._queue.popleft()
            if not waiter.done():
                self.open += 1
                waiter.set_result(None)
                return

    def _sweep(self) -> None:
        """Judge deadlines of all connections; one timer for all, none per request."""
        now = self.loop.time()
        for connection in (*self._all, *self._apart):
            if connection.exchange is not None:
                if (error := connection.overdue(now)) is not None:
                    connection.fail(error)
            elif connection in self._idle and now - connection.idle_since > self.kept_idle_s:
                self._idle.remove(connection)
                connection.abort()
        self._sweeper = self.loop.call_later(self._sweep_every_s, self._sweep) if self._all or self._apart else None

    def close(self) -> None:
        """Drop every connection and dial no more; exchanges under way or waiting fail."""
        self.closed = True
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_exception(UpstreamUnreachable("shutting_down"))
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in (*self._all, *self._apart):
            connection.fail(UpstreamUnreachable("shutting_down"))
