"""One forwarded request: takes a connection, sends, replays once where that is safe, tells the sink how it ends."""

import asyncio
from collections.abc import Callable

from gateway.errors import UpstreamError, UpstreamUnreachable
from gateway.upstream.answer import AnswerSink
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.pool import Upstream


class OutgoingRequest:
    """What goes up.

    Attributes:
        head: Complete request head with its blank line, and the body when it is already at hand.
        is_head: The method is HEAD: the answer has no body whatever its fields say.
        replayable: The method is safe to send twice and there is no body.
        body_follows: The lane will write a body piece by piece.
    """

    __slots__ = ("body_follows", "head", "is_head", "replayable")

    def __init__(self, head: bytes, is_head: bool, replayable: bool, body_follows: bool) -> None:
        self.head = head
        self.is_head = is_head
        self.replayable = replayable
        self.body_follows = body_follows


class Exchange:
    """One request and its answer. Callbacks only: the sole task is a dial, when no connection is at hand."""

    __slots__ = ("_connected", "_dialling", "_over", "_ready", "_replayed", "connection", "request", "sink", "upstream")

    def __init__(
        self,
        upstream: Upstream,
        request: OutgoingRequest,
        sink: AnswerSink,
        ready: Callable[[], None] | None = None,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            upstream: Where to.
            request: What.
            sink: Where the answer goes.
            ready: Called when the upstream takes the body, or more of it, from somebody who does not wait in `send`.
        """
        self.upstream = upstream
        self.request = request
        self.sink = sink
        self.connection: UpstreamConnection | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._connected: asyncio.Future[None] | None = None
        self._ready = ready
        self._replayed = self._over = False

    def start(self) -> None:
        """Send the request, at once when a connection is idle."""
        upstream, request = self.upstream, self.request
        connection = upstream.take()
        if connection is None:
            self._dialling = upstream.loop.create_task(self._dial())
        elif request.body_follows:
            self._send_on(connection)
        else:
            self.connection = connection
            connection.begin(self, request.head, upstream.loop.time())

    async def connected(self) -> bool:
        """Wait until the head was written and a body may follow; False when the exchange is already over."""
        if self.connection is None and not self._over:
            self._connected = self.upstream.loop.create_future()
            await self._connected
        return not self._over

    def ready(self) -> None:
        """The connection takes more of the request's body."""
        if self._ready is not None and not self._over:
            self._ready()

    @property
    def takes_body(self) -> bool:
        """A piece of the body may be written now."""
        connection = self.connection
        return connection is not None and not self._over and not connection.writing_paused

    def write(self, data: bytes) -> None:
        """Write a piece of the body; only while `takes_body`."""
        if self.connection is not None:
            self.connection.transport.write(data)
            self.connection.touched = self.upstream.loop.time()

    async def send(self, data: bytes) -> bool:
        """Write a piece of the body, waiting while the upstream is slow; False when nobody wants it any more."""
        if self.connection is None or self._over:
            return False
        self.write(data)
        if self.connection.writing_paused:
            await self.connection.writable()
        return not self._over

    def sent(self) -> None:
        """The body is complete: from now on the upstream owes an answer."""
        if self.connection is not None and not self._over:
            self.connection.sent()

    def pause(self) -> None:
        """The client is slow: read no more from the upstream."""
        if self.connection is not None and not self._over:
            self.connection.pause_reading()

    def resume(self) -> None:
        """The client caught up."""
        if self.connection is not None and not self._over:
            self.connection.resume_reading()

    def abort(self) -> None:
        """The client is gone, or nobody wants the answer: free the upstream at once. Harmless when all is over."""
        if self._over:
            return
        self._over = True
        if self._dialling is not None:
            self._dialling.cancel()
        if self.connection is not None:
            self.connection.abort()
        self._wake()

    # Told by the connection.

    def completed(self, connection: UpstreamConnection) -> None:
        """The answer is out."""
        self._over = True
        if self._connected is not None:
            self._wake()
        self.sink.done()

    def lost(self, connection: UpstreamConnection, error: UpstreamError) -> None:
        """The connection broke, or broke a rule."""
        stale = isinstance(error, UpstreamUnreachable) and connection.served > 0 and not connection.heard
        if stale and self.request.replayable and not self._replayed and not self.upstream.closed:
            # The upstream closed a kept connection just as we wrote: it never saw the request (RFC 9110 §9.2.2).
            self._replayed = True
            self.connection = None
            self._dialling = self.upstream.loop.create_task(self._dial(fresh=True, avoid=connection.address))
            return
        self._fail(error)

    async def _dial(self, *, fresh: bool = False, avoid: int | None = None) -> None:
        try:
            connection = await self._connect(fresh=fresh, avoid=avoid)
        except UpstreamError as error:
            self._fail(error)
            return
        if self._over:
            connection.abort()
        else:
            self._send_on(connection)

    async def _connect(self, *, fresh: bool, avoid: int | None) -> UpstreamConnection:
        return await self.upstream.connect(fresh=fresh, avoid=avoid)

    def _send_on(self, connection: UpstreamConnection) -> None:
        self.connection = connection
        connection.begin(self, self.request.head, self.upstream.loop.time(), body_follows=self.request.body_follows)
        if self.request.body_follows:
            self._wake()
            self.ready()

    def _fail(self, error: UpstreamError) -> None:
        self._over = True
        self._wake()
        self.sink.failed(error)

    def _wake(self) -> None:
        waiter, self._connected = self._connected, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
