"""The connections to one upstream: kept alive, newest first, capped, with a short queue when all are in use.

An upstream may have several addresses. They share one cap and one queue; each keeps its own idle connections, so that
taking turns (`rotation.py`) needs no new connection. A dial that fails goes on at the next address: nothing was sent.
"""

import asyncio
import errno
import ssl
from collections import deque
from collections.abc import Callable, Sequence

import structlog

from gateway.errors import UpstreamBusy, UpstreamError, UpstreamTimedOut, UpstreamUnreachable
from gateway.upstream.address import UpstreamAddress, dial
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.plain_answer import PlainAnswers
from gateway.upstream.rotation import Rotation

Maker = Callable[[int], UpstreamConnection]
KEPT_IDLE_S = 55.0
"""Seconds an unused connection is kept: below the 60 s and 75 s after which common servers close."""
# Dials that fail for want of something on this machine say nothing about the address.
_OUR_OWN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
_log = structlog.get_logger()


class Upstream:
    """One backend, at one address or several.

    Attributes:
        rotation: Which of its addresses are well, and whose turn it is.
        open: Connections open or being dialled.
        queued: Requests waiting for one.
        tunnels: Connections that switched protocols: neither counted in `open` nor capped by `max_connections`.
        retired: No request comes any more but those under way: a connection is closed after its answer.
        closed: Nothing is dialled any more.
        plain_answers: What was learnt of the shapes of its answers.
    """

    def __init__(
        self,
        name: str,
        addresses: Sequence[UpstreamAddress],
        *,
        connect_timeout_s: float,
        response_timeout_s: float,
        idle_timeout_s: float,
        max_connections: int,
        queue_timeout_s: float,
        kept_idle_s: float = KEPT_IDLE_S,
    ) -> None:
        self.name = name
        self.connect_timeout_s = connect_timeout_s
        self.response_timeout_s = response_timeout_s
        self.idle_timeout_s = idle_timeout_s
        self.max_connections = max_connections
        self.queue_timeout_s = queue_timeout_s
        self.kept_idle_s = kept_idle_s
        self.loop = asyncio.get_running_loop()
        self.open = 0
        self.tunnels = 0
        self.retired = self.closed = False
        self.plain_answers = PlainAnswers()
        self._addresses = tuple(addresses)
        self._several = len(self._addresses) > 1
        self.rotation = Rotation(len(self._addresses), self.loop.time, probe_s=connect_timeout_s)
        self._idle: tuple[deque[UpstreamConnection], ...] = tuple(deque() for _ in self._addresses)
        self._all: set[UpstreamConnection] = set()
        self._apart: set[UpstreamConnection] = set()
        self._held = [0] * len(self._addresses)  # of `_all`, by address
        self._queue: deque[asyncio.Future[UpstreamConnection | None]] = deque()
        self._sweep_every_s = min(1.0, max(0.02, min(response_timeout_s, idle_timeout_s, kept_idle_s) / 4))
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> int:
        """Connections waiting for a request."""
        return sum(map(len, self._idle))

    @property
    def upgraded(self) -> int:
        """Connections outside the pool: tunnels, and handshakes under way."""
        return len(self._apart) + self.tunnels

    @property
    def queued(self) -> int:
        """Requests waiting for a connection."""
        return sum(not waiter.done() for waiter in self._queue)

    def take(self) -> UpstreamConnection | None:
        """The most recently used idle connection of the address whose turn it is, None when there is none.

        Never waits.
        """
        turn = self.rotation.turn() if self._several else 0
        if turn is None:
            return None
        idle = self._idle[turn]
        while idle:
            connection = idle.pop()
            if not connection.closing and not connection.transport.is_closing():  # `usable`, without a call
                if self._several:
                    self.rotation.taken(turn)
                return connection
        return None

    async def connect(self, *, fresh: bool = False, avoid: int | None = None) -> UpstreamConnection:
        """Dial, or wait for a connection when all allowed ones are in use.

        Args:
            fresh: Refuse a reused connection (a replay must not meet the same fate twice).
            avoid: Address to dial only when no other is fit.

        Raises:
            UpstreamBusy: Nothing came free within `queue_timeout`.
            UpstreamUnreachable: Refused, unresolvable, not verified, or broken, at every address.
            UpstreamTimedOut: No connection within `connect_timeout`.
        """
        until = self.loop.time() + self.queue_timeout_s
        while self.open >= self.max_connections:
            connection = self._spare() or await self._queue_up(until)
            if connection is None:
                break  # the place is counted already
            if connection.usable and not fresh and not self._is_wanted_elsewhere(connection):
                return connection
            if connection in self._all:
                self._forget(connection)  # this dial takes its place
                connection.abort()
                break
            # It was lost on its way here and its place given back: stand in line again.
        else:
            self.open += 1
        return await self._dial(avoid)

    def _spare(self) -> UpstreamConnection | None:
        """An idle connection of any address: all places are taken, so none may stand unused."""
        fullest = max(self._idle, key=len)
        return fullest.pop() if fullest else None

    def _is_wanted_elsewhere(self, connection: UpstreamConnection) -> bool:
        """Tell whether another address waits for its share of the places, which this connection's has exceeded.

        Without it an address that came back would get nothing while others hold all places.
        """
        share = self.max_connections // len(self._addresses)
        return self._held[connection.address] > share and any(
            held < share and self.rotation.is_fit(index) for index, held in enumerate(self._held)
        )

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

    async def _dial(self, avoid: int | None) -> UpstreamConnection:
        """Open a connection in a place that is already counted."""
        try:
            connection = await self._dial_in_turn(lambda address: UpstreamConnection(self, address), avoid)
        except BaseException:
            self.open -= 1
            self._admit()
            raise
        self._all.add(connection)
        self._held[connection.address] += 1
        self._watch(connection)
        return connection

    async def connect_apart(self, make: Maker) -> UpstreamConnection:
        """Dial a connection for one upgrade, outside the pool: long tunnels must not starve requests.

        Args:
            make: Makes the protocol of a connection, given the index of its address.

        Raises:
            UpstreamUnreachable: Refused, unresolvable, or broken.
            UpstreamTimedOut: No connection within `connect_timeout`.
        """
        connection = await self._dial_in_turn(make)
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

    async def _dial_in_turn(self, make: Maker, avoid: int | None = None) -> UpstreamConnection:
        """Dial one address after the other until one answers, each once, within `connect_timeout` overall."""
        until = self.loop.time() + self.connect_timeout_s
        failed: UpstreamError = UpstreamUnreachable("shutting_down")
        tried: set[int] = set()
        while not self.closed:
            left_s = until - self.loop.time()
            index = self.rotation.choose(tried, avoid=avoid) if left_s > 0 else None
            if index is None:
                break
            tried.add(index)
            # An address that swallows a dial without a word must leave time for the next.
            deadline_s = left_s if len(tried) == len(self._addresses) else left_s / 2
            try:
                return await self._open_connection(make, index, deadline_s)
            except UpstreamError as error:
                failed = error
        raise failed

    async def _open_connection(self, make: Maker, index: int, deadline_s: float) -> UpstreamConnection:
        """Dial one address, and tell the rotation what became of it."""
        try:
            connection = await dial(self._addresses[index], lambda: make(index), deadline_s)
        except (OSError, UnicodeError) as error:  # UnicodeError: a name no resolver takes
            if not isinstance(error, OSError) or error.errno not in _OUR_OWN:
                self._rest(index, begins=self.rotation.dial_failed(index))
            if isinstance(error, TimeoutError):
                raise UpstreamTimedOut("connect_timeout") from None
            reason = "tls_failed" if isinstance(error, ssl.SSLError) else "connect_failed"
            raise UpstreamUnreachable(reason).caused_by(error) from error
        if not connection.usable:
            connection.abort()  # lost before anybody knew of it: `left` will not count it out
            self.died(connection)
            raise UpstreamUnreachable("closed_early")
        if self.rotation.dialled(index):
            _log.info("upstream address is back", upstream=self.name, address_index=index)
        return connection

    def died(self, connection: UpstreamConnection) -> None:
        """A connection ended under a request, before an answer to it."""
        if connection.served:
            self.rotation.suspect(connection.address)
        else:
            self._rest(connection.address, begins=self.rotation.died(connection.address))

    def proved(self, connection: UpstreamConnection) -> None:
        """A new connection gave its first answer."""
        if self.rotation.proved(connection.address):
            _log.info("upstream address is back", upstream=self.name, address_index=connection.address)

    def _rest(self, index: int, *, begins: bool) -> None:
        """Leave an address alone, its idle connections too."""
        if begins:
            health = self.rotation.addresses[index]
            _log.warning(
                "upstream address rests", upstream=self.name, address_index=index, rests_in_a_row=health.pauses
            )
            for connection in tuple(self._idle[index]):
                connection.abort()
            self._idle[index].clear()

    def release(self, connection: UpstreamConnection) -> None:
        """Take a connection back after a complete exchange."""
        if self.closed or self.retired or (self._several and not self.rotation.is_well(connection.address)):
            connection.abort()
            return
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        connection.idle_since = self.loop.time()
        self._idle[connection.address].append(connection)

    def left(self, connection: UpstreamConnection) -> None:
        """Forget a connection that is gone."""
        self._apart.discard(connection)
        if connection in self._all:
            self._forget(connection)
            self.open -= 1
            self._admit()

    def _forget(self, connection: UpstreamConnection) -> None:
        """Strike a connection off the lists; its place stays counted."""
        self._all.discard(connection)
        self._held[connection.address] -= 1
        idle = self._idle[connection.address]
        if connection in idle:
            idle.remove(connection)

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
            elif connection in self._idle[connection.address] and now - connection.idle_since > self.kept_idle_s:
                self._idle[connection.address].remove(connection)
                connection.abort()
        self._sweeper = self.loop.call_later(self._sweep_every_s, self._sweep) if self._all or self._apart else None

    def retire(self) -> None:
        """Keep nothing idle from now on. What is under way, and what still comes of that, goes on undisturbed."""
        self.retired = True
        for idle in self._idle:
            for connection in tuple(idle):
                connection.abort()
            idle.clear()

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
