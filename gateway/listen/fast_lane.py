"""The fast lane: every connection starts here, and plain proxied requests never leave it.

A plain request is one whose head arrived whole and well-formed, in origin form, without a body, an upgrade or an
expectation, for a route. It goes through the pipeline by callbacks: no task (but for a dial, or a caller who is not
known yet), no future, no request object. Anything else is handed over, socket and bytes, to the aiohttp lane, before
this lane has judged or answered any of it; in doubt it is handed over as well, so that there is one judge of the
unusual. Measured in docs/performance.md.
"""

import asyncio
import time
from typing import cast

import httptools

from config.model import Limits
from gateway.answer import Answer
from gateway.edge.arrival import Arrived, Incoming, new_request_id
from gateway.errors import GatewayError, HeadTimedOut, HeadTooLarge, UpstreamError
from gateway.listen.aiohttp_connection import LINGER_S, SWEEP_S, LaneServer
from gateway.listen.refusals import Refusals
from gateway.listen.relay import Relay
from gateway.pipeline import Passage, Pipeline, Way
from gateway.telemetry.metrics import NO_ROUTE
from gateway.upstream.exchange import Exchange

_END_OF_HEAD = b"\r\n\r\n"
_WAITING_CAP = 64 * 1024
"""Bytes of requests behind the one under way before the client is no longer read."""
_AT_ONCE = 32
"""Requests of one connection that are begun in one turn of the event loop."""


class FastLane:
    """What the connections of this lane share: the rooms, the limits, and the list of who is connected."""

    def __init__(
        self, pipeline: Pipeline, refusals: Refusals, limits: Limits, scheme: str, unusual: LaneServer
    ) -> None:
        """Prepare the lane.

        Args:
            pipeline: The way.
            refusals: Answers for what is refused.
            limits: Of one connection.
            scheme: `http` or `https`, of the listener.
            unusual: Makes the connections of the aiohttp lane.
        """
        self.pipeline = pipeline
        self.refusals = refusals
        self.limits = limits
        self.scheme = scheme
        self.unusual = unusual
        self.metrics = pipeline.rooms.metrics
        self.loop = asyncio.get_running_loop()
        self.connections: set[FastConnection] = set()
        self.draining = False
        self.empty = asyncio.Event()
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)

    def __call__(self) -> "FastConnection":
        """Make the protocol of one accepted connection."""
        return FastConnection(self)

    def forget(self, connection: "FastConnection") -> None:
        """A connection ended, or was handed over."""
        self.connections.discard(connection)
        if not self.connections and self.draining:
            self.empty.set()

    def _sweep(self) -> None:
        """Judge the deadlines of all connections with one timer."""
        now = self.loop.time()
        for connection in tuple(self.connections):
            connection.check_deadline(now)
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)

    async def drain(self, grace_s: float) -> None:
        """Let what is under way finish, close what is idle, cut what is left after the grace."""
        self.draining = True
        for connection in tuple(self.connections):
            connection.end_soon()
        if self.connections:
            try:
                async with asyncio.timeout(grace_s):
                    await self.empty.wait()
            except TimeoutError:
                for connection in tuple(self.connections):
                    connection.transport.abort()
        self._sweeper.cancel()


class FastConnection(asyncio.Protocol):
    """One client connection, until it is handed over."""

    __slots__ = (
        "_buffer",
        "_busy",
        "_deaf",
        "_departure",
        "_exchange",
        "_fields",
        "_forwarded",
        "_incoming",
        "_lane",
        "_left",
        "_parser",
        "_peer",
        "_read",
        "_reading_paused",
        "_relay",
        "_resolving",
        "_since",
        "_started",
        "_target",
        "_way",
        "_whole",
        "_writing_paused",
        "transport",
    )

    def __init__(self, lane: FastLane) -> None:
        self._lane = lane
        self._buffer = b""
        self._read = 0  # bytes of the buffer that llhttp has seen
        self._parser = httptools.HttpRequestParser(self)
        self._relay: Relay | None = None
        self._exchange: Exchange | None = None
        self._resolving: asyncio.Task[None] | None = None
        self._peer = ""
        self._busy = self._whole = self._writing_paused = self._reading_paused = self._deaf = self._left = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast(asyncio.Transport, transport)
        peername = transport.get_extra_info("peername")
        self._peer = peername[0] if isinstance(peername, tuple) else ""
        self._since = self._lane.loop.time()
        self._lane.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: so is what was done for it."""
        self._lane.forget(self)
        if self._resolving is not None:
            self._resolving.cancel()
        if self._exchange is not None:
            self._exchange.abort()
        self._relay = self._exchange = None
        self._leave()

    def _leave(self) -> None:
        """Let go of what refers back to us: the parser's cycle would keep the buffer until garbage is collected."""
        self._left = True
        self._buffer = b""
        del self._parser

    def pause_writing(self) -> None:
        """The client reads slowly: read no more from the upstream."""
        self._writing_paused = True
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        """The client caught up."""
        self._writing_paused = False
        if self._exchange is not None:
            self._exchange.resume()
        else:
            self._go_on()

    def data_received(self, data: bytes) -> None:
        """Take bytes; a request begins when its head is whole."""
        if self._deaf:
            return
        if not self._buffer and not self._busy:
            self._since = self._lane.loop.time()
        self._buffer = self._buffer + data if self._buffer else data
        if not self._busy and not self._writing_paused:
            self._proceed()
        if self._reading_paused or len(self._buffer) > _WAITING_CAP:
            self._regulate()

    def _regulate(self) -> None:
        """Read from the client only while little of what it sent ahead is waiting."""
        full = len(self._buffer) > _WAITING_CAP
        if full is not self._reading_paused and not self._left and not self.transport.is_closing():
            self._reading_paused = full
            if full:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    # One request after the other.

    def _proceed(self) -> None:
        """Take requests off the buffer until one is under way; none for a client that does not take its answers."""
        for _ in range(_AT_ONCE):
            if self._left or not self._buffer or self._busy or self._writing_paused or self.transport.is_closing():
                return
            if not self._next():
                return
        self._lane.loop.call_soon(self._continue)  # so many refusals in one read: let others have their turn

    def _next(self) -> bool:
        """Begin with the next request in the buffer; False when there is none yet, or it is not ours."""
        end = self._buffer.find(_END_OF_HEAD)
        if end >= 0:
            return self._begin(end + 4)
        if len(self._buffer) > self._lane.limits.head_bytes:
            self._refuse_unread(HeadTooLarge())
        elif not self._fed(len(self._buffer)):
            self._hand_over()
        return False

    def _fed(self, end: int) -> bool:
        """Let llhttp read the buffer up to `end`; False when it will not have it.

        What arrived is judged at once, so that garbage need not wait for the end of a head.
        """
        start, self._read = self._read, end
        try:
            self._parser.feed_data(self._buffer[start:end] if start else self._buffer[:end])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return False
        return True

    def _begin(self, size: int) -> bool:
        """Judge the head in the first `size` bytes and start on it; False when the connection was handed over."""
        lane = self._lane
        if size > lane.limits.head_bytes or not self._fed(size) or not self._whole:
            return self._hand_over()
        # llhttp swallows blank lines between requests: what is whole must not count as whole twice.
        self._read, self._whole = 0, False
        if self._parser.get_http_version() != "1.1" or len(self._fields) > lane.limits.head_fields:
            return self._hand_over()
        self._started = time.perf_counter()
        method = self._parser.get_method().decode("ascii")
        incoming = Incoming(method, self._target, self._fields, self._peer, lane.scheme, new_request_id())
        way: Way | None = None
        try:
            arrived = lane.pipeline.arrive(incoming)
        except GatewayError:
            return self._hand_over()
        if arrived.has_body or arrived.upgrade is not None or arrived.continue_wanted:
            return self._hand_over()
        try:
            way = lane.pipeline.direct(arrived)
            if way.endpoint is not None or way.preflight is not None:
                return self._hand_over()
            self._buffer = self._buffer[size:]
            self._way, self._incoming = way, incoming
            passage = lane.pipeline.known(way)
            if passage is None:
                self._busy = True
                self._resolving = lane.loop.create_task(self._resolve(way))
            else:
                self._forward(way, passage)
        except Exception as error:  # noqa: BLE001 - the outer edge: nothing may escape unanswered
            if way is None:
                self._buffer = self._buffer[size:]
            self._refuse(error, incoming, arrived, way)
        return True

    async def _resolve(self, way: Way) -> None:
        """Ask for a caller who is not known yet."""
        try:
            passage = await self._lane.pipeline.resolve(way)
            self._resolving = None
            self._forward(way, passage)
        except Exception as error:  # noqa: BLE001 - the outer edge
            self._refuse(error, way.arrived.incoming, way.arrived, way)
            self._go_on()

    def _forward(self, way: Way, passage: Passage) -> None:
        lane = self._lane
        departure = lane.pipeline.depart(way, passage)
        self._forwarded = time.perf_counter()
        relay = Relay(
            self.transport,
            http10=False,
            keep_alive=way.arrived.keep_alive and not lane.draining,
            cors=departure.cors,
            changed=self._changed,
        )
        self._relay, self._departure = relay, departure
        self._busy = True
        self._exchange = Exchange(departure.upstream, departure.request, relay)
        self._exchange.start()

    def _changed(self) -> None:
        """The exchange is over (that the client is slow is told by `pause_writing`)."""
        relay = self._relay
        if relay is None or not relay.finished:
            return
        lane, way, departure = self._lane, self._way, self._departure
        self._relay = self._exchange = None
        self._busy = False
        self._since = lane.loop.time()
        now = time.perf_counter()
        lane.metrics.upstream_durations.observe(departure.upstream.name, now - self._forwarded)
        error = relay.error
        if error is not None:
            if isinstance(error, UpstreamError):
                lane.metrics.upstream_failed(departure.upstream.name, error.reason)
            if not relay.started:
                self._refuse(error, self._incoming, way.arrived, way)
                self._go_on()
                return
        lane.metrics.answered(way.rule.name, self._incoming.method, relay.status, now - self._started)
        if relay.keep_alive:
            self._go_on()
        else:
            self._end()

    def _go_on(self) -> None:
        """Look for the next request, once the connection to the upstream is back in its pool."""
        if self._lane.draining and not self._buffer:
            self.transport.close()
        elif self._buffer and not self.transport.is_closing():
            self._lane.loop.call_soon(self._continue)

    def _continue(self) -> None:
        self._proceed()
        if self._reading_paused:
            self._regulate()

    # What is refused, and what is not ours to do.

    def _refuse(self, error: Exception, incoming: Incoming, arrived: Arrived | None, way: Way | None) -> None:
        """Answer for an error, whatever was under way."""
        self._relay = self._exchange = self._resolving = None
        self._busy = False
        answer = self._lane.refusals.answer(error, incoming, arrived, way)
        keep_alive = not answer.close and arrived is not None and arrived.keep_alive and not self._lane.draining
        label = way.rule.name if way is not None else NO_ROUTE
        self._lane.metrics.answered(label, incoming.method, answer.status, time.perf_counter() - self._started)
        self._write(answer, is_head=incoming.method == "HEAD", keep_alive=keep_alive)

    def _refuse_unread(self, error: GatewayError) -> None:
        """Answer for a head that never became whole."""
        incoming = Incoming("", b"", (), self._peer, self._lane.scheme, new_request_id())
        self._started = time.perf_counter()
        self._refuse(error, incoming, None, None)

    def _write(self, answer: Answer, *, is_head: bool, keep_alive: bool) -> None:
        if self.transport.is_closing():
            return
        date = self._lane.refusals.date()
        self.transport.write(answer.serialise(date=date, is_head=is_head, close=not keep_alive))
        if not keep_alive:
            self._end()

    def _end(self) -> None:
        """Say no more, and throw away for a moment what a client still sends: see `LINGER_S`."""
        self._deaf, self._buffer = True, b""
        self._since = self._lane.loop.time()
        if not self.transport.is_closing():
            self._regulate()
            if self.transport.can_write_eof():
                self.transport.write_eof()
            else:
                self.transport.close()  # TLS says goodbye, and itself throws away what comes until the client does too

    def _hand_over(self) -> bool:
        """Give the connection, with the bytes of this request and what follows, to the aiohttp lane. Gives False."""
        lane, transport, received = self._lane, self.transport, self._buffer
        lane.forget(self)
        self._leave()
        connection = lane.unusual()
        connection.connection_made(transport)
        transport.set_protocol(connection)
        transport.resume_reading()
        connection.data_received(received)
        return False

    # Deadlines.

    def check_deadline(self, now: float) -> None:
        """Close a connection that idles too long, and answer a head that dribbles."""
        if self._busy:
            return
        limits, quiet = self._lane.limits, now - self._since
        if self._writing_paused or self.transport.is_closing():
            if quiet > limits.keepalive:
                self.transport.abort()  # a close would wait for a client that does not take its answer
        elif self._deaf:
            if quiet > LINGER_S:
                self.transport.close()
        elif self._buffer:
            if quiet > limits.head_timeout:
                self._refuse_unread(HeadTimedOut())
        elif quiet > limits.keepalive:
            self.transport.close()

    def end_soon(self) -> None:
        """Close when nothing is under way or arriving; else let that be the last."""
        if self._relay is not None and not self._relay.started:
            self._relay.keep_alive = False
        elif not self._busy and not self._buffer:
            self.transport.close()

    # llhttp

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._fields: list[tuple[bytes, bytes]] = []
        self._target = b""
        self._whole = False

    def on_url(self, part: bytes) -> None:
        """The request target, possibly in pieces."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field line."""
        self._fields.append((name, value.strip(b" \t") if value[-1:] in _BLANKS else value))

    def on_message_complete(self) -> None:
        """The head is all there is: no body."""
        self._whole = True


_BLANKS = (b" ", b"\t")
