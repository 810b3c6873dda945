"""One client connection of the fast lane: a request after the other, until it ends or is handed over.

Longer than a file here should be: it is one machine, whose every part reads and writes the same state.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from gateway.actors.actor import Actor
from gateway.answer import Answer
from gateway.edge.arrival import Arrived, Incoming, new_request_id
from gateway.edge.head import END_OF_HEAD, may_become_plain
from gateway.errors import CredentialRejected, GatewayError, HeadTimedOut, HeadTooLarge, UpstreamError
from gateway.listen.aiohttp_connection import LINGER_S, ON_ITS_WAY_S
from gateway.listen.plain_request import read_plain
from gateway.listen.relay import Relay
from gateway.live.registry import GRACE_S, has_expired
from gateway.pipeline import Pipeline
from gateway.telemetry.metrics import NO_ROUTE
from gateway.upstream.exchange import Exchange
from gateway.way import Way

if TYPE_CHECKING:
    from gateway.listen.fast_lane import FastLane

_AT_ONCE = 32
"""Requests of one connection that are begun in one turn of the event loop."""


class FastConnection:
    """A client's connection; an `asyncio.Protocol` by its shape.

    At most one request is under way (`_busy`). What came of its body waits in `_body` until the upstream takes it;
    what came behind it waits in `_buffer`.
    """

    __slots__ = (
        "_body",
        "_body_left",
        "_buffer",
        "_busy",
        "_deaf",
        "_exchange",
        "_forwarded",
        "_gone",
        "_head_bytes",
        "_lane",
        "_lines_end",
        "_peer",
        "_reading_paused",
        "_relay",
        "_resolving",
        "_seen",
        "_since",
        "_started",
        "_way",
        "_writing_paused",
        "transport",
    )

    def __init__(self, lane: "FastLane") -> None:
        self._lane = lane
        self._buffer = self._body = b""
        self._head_bytes = 0  # of the request under way
        self._body_left = 0  # bytes of its body that did not arrive yet
        self._seen = self._lines_end = 0  # of a head that is not whole: bytes looked at, and where its last line begins
        self._relay: Relay | None = None
        self._exchange: Exchange | None = None
        self._resolving: asyncio.Task[None] | None = None
        self._peer = ""
        self._busy = self._writing_paused = self._reading_paused = self._deaf = self._gone = False

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
        self._leave()

    def _leave(self) -> None:
        """Let go of everything: the relay refers back to us, and bytes would stay until garbage is collected."""
        self._gone = True
        self._buffer = self._body = b""
        self._relay = self._exchange = None

    def eof_received(self) -> None:
        """The client sends no more: to us it is gone."""

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
        if self._busy:
            if self._body_left:
                data = self._take_body(data)
            self._buffer += data
        elif self._deaf:
            return
        elif self._buffer:
            self._buffer += data
            self._proceed()
        else:
            self._buffer = data
            # Mostly the head is all that came; `_begin` looks for an earlier end unless it knows these very fields.
            end = len(data) - 4 if data.endswith(END_OF_HEAD) else data.find(END_OF_HEAD)
            if end < 0 or self._writing_paused:
                self._since = self._lane.loop.time()
                self._proceed()
            elif self._begin(end) and not self._busy:
                self._proceed()
        if self._reading_paused or len(self._buffer) + len(self._body) > self._lane.waiting_cap:
            self._regulate()

    def _regulate(self) -> None:
        """Read from the client only while little of what it sent ahead is waiting."""
        full = len(self._buffer) + len(self._body) > self._lane.waiting_cap
        if full is not self._reading_paused and not self._gone and not self.transport.is_closing():
            self._reading_paused = full
            if full:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    # One request after the other.

    def _proceed(self) -> None:
        """Take requests off the buffer until one is under way; none for a client that does not take its answers."""
        for _ in range(_AT_ONCE):
            if self._gone or not self._buffer or self._busy or self._writing_paused or self.transport.is_closing():
                return
            if not self._next():
                return
        self._lane.loop.call_soon(self._continue)  # so many refusals in one read: let others have their turn

    def _next(self) -> bool:
        """Begin with the next request in the buffer; False when there is none yet, or it is not ours."""
        buffer, seen = self._buffer, self._seen
        end = buffer.find(END_OF_HEAD, seen - 3 if seen > 3 else 0)
        if end >= 0:
            return self._begin(end)
        self._seen = len(buffer)
        if len(buffer) > self._lane.limits.head_bytes:
            self._refuse_unread(HeadTooLarge())
        elif not seen or b"\n" in buffer[seen:]:  # not at every byte of a head that dribbles
            if not may_become_plain(buffer, self._lines_end):
                self._hand_over()
            else:
                self._lines_end = buffer.rfind(b"\n") + 1
        return False

    def _begin(self, end: int) -> bool:
        """Start on the first request in the buffer, whose head ends here; False when the connection was handed over."""
        self._started = time.perf_counter()
        plain = read_plain(self._lane, self._buffer, end, self._peer)
        if isinstance(plain, int):
            return self._hand_over(plain)
        arrived, self._head_bytes, self._body_left = plain
        lane, pipeline = self._lane, self._lane.pipeline
        way: Way | None = None
        try:
            way = pipeline.direct(arrived)
            if way.endpoint is not None or way.preflight is not None or way.rule.socketio:
                return self._hand_over(self._head_bytes + self._body_left)
            self._consume()
            self._way = way
            if pipeline.known(way):
                self._forward(way, pipeline)
            else:
                self._busy = True
                self._resolving = lane.loop.create_task(self._resolve(way, pipeline))
        except Exception as error:  # noqa: BLE001 - the outer edge: nothing may escape unanswered
            if way is None:
                self._consume()
            self._refuse(error, arrived.incoming, arrived, way)
        return True

    def _consume(self) -> None:
        """Take the judged head off the buffer, and as much of its body as is there."""
        buffer, size, length = self._buffer, self._head_bytes, self._body_left
        self._seen = self._lines_end = 0
        if not length:
            self._buffer = buffer[size:] if len(buffer) > size else b""
            return
        self._body, self._buffer = buffer[size : size + length], buffer[size + length :]
        self._body_left = length - len(self._body)

    async def _resolve(self, way: Way, pipeline: Pipeline) -> None:
        """Ask for a caller who is not known yet."""
        live = pipeline.rooms.live
        since = live.ends
        try:
            with pipeline.rooms.lease:
                await pipeline.resolve(way)
            self._resolving = None
            self._forward(way, pipeline)
            caller, exchange = way.caller, self._exchange
            if caller is not None and exchange is not None and live.missed(caller.actor, since) is not None:
                self._lane.loop.call_later(GRACE_S, self._cut, exchange)
        except Exception as error:  # noqa: BLE001 - the outer edge
            self._refuse(error, way.arrived.incoming, way.arrived, way)
            self._go_on()

    def _forward(self, way: Way, pipeline: Pipeline) -> None:
        departure = pipeline.depart(way)
        self._forwarded = time.perf_counter()
        streams = self._body_left > 0
        if self._body and not streams:  # the whole body is at hand: head and body are one write
            departure.head += self._body
            self._drop_body()
        departure.body_follows = streams
        relay = self._relay
        if relay is None:
            relay = self._relay = Relay(self.transport, http10=False, keep_alive=False, cors=b"", changed=self._changed)
        # An answer that comes before the end of its request ends the connection: what follows is a rest of a body.
        keep_alive = not (streams or way.arrived.head.closes or self._lane.draining)
        relay.begin(keep_alive, departure.cors, departure.lines)
        self._busy = True
        self._exchange = exchange = Exchange(departure.upstream, departure, relay, self._send_body if streams else None)
        exchange.start()

    # The body of the request under way.

    def _take_body(self, data: bytes) -> bytes:
        """Take what belongs to the body; gives what comes behind it."""
        left = self._body_left
        piece = data if len(data) <= left else data[:left]
        self._body = self._body + piece if self._body else piece
        self._body_left = left - len(piece)
        self._send_body()
        return data[left:]

    def _send_body(self) -> None:
        """Send up what waits, if the upstream takes it."""
        exchange, relay = self._exchange, self._relay
        if exchange is None or relay is None or not exchange.takes_body:
            return
        if self._body:
            body, self._body = self._body, b""
            exchange.write(body)
        if not self._body_left:
            exchange.sent()
            if not relay.started:  # else the client was told already that this connection ends
                relay.keep_alive = not (self._way.arrived.head.closes or self._lane.draining)
        if self._reading_paused:
            self._regulate()

    def _drop_body(self) -> None:
        """Hold no more of the body, and read on: nothing else would, when its last piece stopped the reading."""
        self._body = b""
        if self._reading_paused:
            self._regulate()

    def _changed(self) -> None:
        """The exchange is over (that the client is slow is told by `pause_writing`)."""
        relay, exchange = self._relay, self._exchange
        if relay is None or not relay.finished or exchange is None:
            return
        lane, way, upstream = self._lane, self._way, exchange.upstream.name
        self._exchange = None
        self._busy = False
        self._since = lane.loop.time()
        now = time.perf_counter()
        lane.metrics.upstream_durations.observe(upstream, now - self._forwarded)
        error = relay.error
        if error is not None:
            if isinstance(error, UpstreamError):
                lane.metrics.upstream_failed(upstream, error.reason)
            if not relay.started:
                self._refuse(error, way.arrived.incoming, way.arrived, way)
                self._go_on()
                return
        lane.metrics.answered(way.rule.name, way.arrived.incoming.method, relay.status, now - self._started)
        if way.rule.track is not None and error is None:
            lane.pipeline.rooms.usage.note(way.rule.track, way.caller, relay.status)
        if not relay.keep_alive:
            self._end()
        elif self._buffer or lane.draining:
            self._go_on()

    def _go_on(self) -> None:
        """Look for the next request, once the connection to the upstream is back in its pool."""
        if self._buffer:
            if not self.transport.is_closing():
                self._lane.loop.call_soon(self._continue)
        elif self._lane.draining:
            self.transport.close()

    def _continue(self) -> None:
        self._proceed()
        if self._reading_paused:
            self._regulate()

    # What is refused, and what is not ours to do.

    def _refuse(self, error: Exception, incoming: Incoming, arrived: Arrived | None, way: Way | None) -> None:
        """Answer for an error, whatever was under way."""
        self._exchange = self._resolving = None
        self._busy = False
        self._since = self._lane.loop.time()
        self._drop_body()
        answer = self._lane.refusals.answer(error, incoming, arrived, way)
        # The rest of a body that nobody will read must not be taken for a request: the connection ends.
        unfit = answer.close or arrived is None or arrived.head.closes or self._lane.draining
        keep_alive = not unfit and not self._body_left
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
        self._deaf, self._buffer, self._body = True, b"", b""
        self._since = self._lane.loop.time()
        if not self.transport.is_closing():
            self._regulate()
            if self.transport.can_write_eof():
                self.transport.write_eof()
            else:
                self.transport.close()  # TLS says goodbye, and itself throws away what comes until the client does too

    def _hand_over(self, lent_bytes: int = 0) -> bool:
        """Give the connection, with the bytes of this request and what follows, to the aiohttp lane.

        Args:
            lent_bytes: Bytes of this request, if it is to come back when nothing follows; 0 gives it away.

        Returns:
            False, which says so.
        """
        lane, transport, received = self._lane, self.transport, self._buffer
        lane.forget(self)
        self._leave()
        connection = lane.unusual()
        if lent_bytes:
            connection.lend(lent_bytes, lane.take_back)
        connection.connection_made(transport)
        transport.set_protocol(connection)
        transport.resume_reading()
        connection.data_received(received)
        return False

    # The end of whoever sent the request under way, and deadlines.

    def end_exchange(self, fits: Callable[[Actor], bool], after_s: float) -> None:
        """Cut the request under way if its actor fits, and if it is still under way after some seconds."""
        if self._exchange is not None:
            caller = self._way.caller
            if caller is not None and fits(caller.actor):
                self._lane.loop.call_later(after_s, self._cut, self._exchange)

    def _cut(self, exchange: Exchange) -> None:
        relay = self._relay
        if relay is not None and self._exchange is exchange and not relay.finished:
            exchange.abort()
            relay.failed(CredentialRejected("caller_ended"))

    def check_deadline(self, now: float) -> None:
        """Close a connection that idles too long, and answer a head that dribbles; a stream ends with its token."""
        if self._busy:
            if self._exchange is not None and self._relay is not None and self._relay.streams:
                caller = self._way.caller
                if caller is not None and has_expired(caller.actor.principal):
                    self._cut(self._exchange)
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
        """Close when nothing is under way or arriving; else let that be the last.

        A client that was heard of a moment ago, or was just accepted, may have a request on its way: it has that time.
        """
        if self not in self._lane.connections:
            return
        if self._exchange is not None and self._relay is not None:
            if not self._relay.started:
                self._relay.keep_alive = False
        elif not self._busy and not self._buffer:
            rest_s = self._since + ON_ITS_WAY_S - self._lane.loop.time()
            if rest_s > 0:
                self._lane.loop.call_later(rest_s, self.end_soon)
            else:
                self.transport.close()
