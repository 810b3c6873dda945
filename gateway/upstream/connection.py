"""One connection to an upstream: requests out, answers in, deadlines judged, given back or dropped.

The plain answer, a whole head with a counted body, is read here as it stands (`plain_answer.py`); every other
goes through llhttp (`reader.py`).
"""

import asyncio
from typing import TYPE_CHECKING, cast

from gateway.errors import UpstreamError, UpstreamMalformed, UpstreamTimedOut, UpstreamUnreachable
from gateway.upstream.reader import AnswerReader

if TYPE_CHECKING:
    from gateway.upstream.exchange import Exchange
    from gateway.upstream.pool import Upstream


class UpstreamConnection:
    """A kept-alive connection, an `asyncio.Protocol` by its shape; carries one exchange at a time.

    Attributes:
        address: Which of the pool's addresses it leads to.
        served: Exchanges it has completed.
        heard: Bytes of an answer to this exchange came.
        answered: The answer's head was relayed.
        until_close: Only the end of the connection ends this answer.
        closing: No further exchange may begin here.
        touched: When this exchange last made progress, by the loop's clock.
    """

    __slots__ = (
        "_ended",
        "_left",
        "_reader",
        "_reads",
        "_write_waiter",
        "address",
        "answered",
        "closing",
        "exchange",
        "heard",
        "idle_since",
        "pool",
        "reading_paused",
        "request_sent",
        "served",
        "touched",
        "transport",
        "until_close",
        "writing_paused",
    )

    def __init__(self, pool: "Upstream", address: int = 0) -> None:
        self.pool = pool
        self.address = address
        self.exchange: Exchange | None = None
        self.served = 0
        self.idle_since = self.touched = 0.0
        self.writing_paused = self.reading_paused = self.closing = self._ended = False
        self.answered = self.heard = self.until_close = self.request_sent = self._reads = False
        self._write_waiter: asyncio.Future[None] | None = None
        self._reader: AnswerReader | None = None
        self._left = 0

    def begin(self, exchange: "Exchange", head: bytes, now: float, *, body_follows: bool = False) -> None:
        """Start an exchange: write the request's head (and whatever body is already at hand)."""
        self.answered = self.heard = self.until_close = self._reads = False
        self.exchange = exchange
        self.request_sent = not body_follows
        self.touched = now
        self.transport.write(head)

    @property
    def usable(self) -> bool:
        """Tell whether a new exchange may start here."""
        return not self.closing and not self.transport.is_closing()

    def _drop_reader(self) -> None:
        """Let go of it: its parser's callbacks refer back to us."""
        if self._reader is not None:
            self._reader.spend()
            self._reader = None

    def abort(self) -> None:
        """Drop the connection at once; nothing more is told to its exchange."""
        self.exchange = None
        self.closing = True
        self.transport.abort()

    def fail(self, error: UpstreamError) -> None:
        """End the exchange with an error and drop the connection."""
        exchange, self.exchange = self.exchange, None
        self.closing = True
        self.transport.abort()
        if exchange is not None:
            exchange.lost(self, error)

    def sent(self) -> None:
        """The request's last byte was written."""
        self.request_sent = True
        self.touched = self.pool.loop.time()

    def pause_reading(self) -> None:
        """The client is slow: leave the answer in the socket."""
        self.reading_paused = True
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        """The client caught up."""
        self.reading_paused = False
        self.touched = self.pool.loop.time()
        self.transport.resume_reading()

    async def writable(self) -> None:
        """Wait until the transport takes more; returns at once in the ordinary case."""
        if self.writing_paused and not self.closing:
            self._write_waiter = self.pool.loop.create_future()
            await self._write_waiter

    def overdue(self, now: float) -> UpstreamError | None:
        """Judge the deadlines of the exchange under way."""
        quiet = now - self.touched
        if not self.answered and self.request_sent:
            return UpstreamTimedOut("response_timeout") if quiet > self.pool.response_timeout_s else None
        return UpstreamTimedOut("idle_timeout") if quiet > self.pool.idle_timeout_s else None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the exchange, if one is under way, and leave the pool."""
        self.closing = True
        self._drop_reader()
        self._wake_writer()
        self.pool.left(self)
        exchange = self.exchange
        if exchange is None:
            return
        if self.until_close and exc is None and self.answered and self._was_ended():
            exchange.sink.end()
            exchange.sink.flush()
            self.finish()
            return
        self.exchange = None
        if not self.answered:
            self.pool.died(self)
        exchange.lost(self, UpstreamUnreachable("truncated" if self.answered else "closed_early"))

    def eof_received(self) -> None:
        """The upstream said that it sends no more; over TLS by its own close, not by TCP's."""
        self._ended = True

    def _was_ended(self) -> bool:
        """Tell an answer's end from a cut: anybody on the way can end TCP beneath TLS (RFC 9112 §9.8)."""
        return self._ended or self.transport.get_extra_info("sslcontext") is None

    def pause_writing(self) -> None:
        """The socket is full: the client must wait."""
        self.writing_paused = True

    def resume_writing(self) -> None:
        """The socket takes more again."""
        self.writing_paused = False
        self._wake_writer()
        if self.exchange is not None:
            self.exchange.ready()

    def _wake_writer(self) -> None:
        waiter, self._write_waiter = self._write_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Relay what belongs to the answer under way."""
        exchange = self.exchange
        if exchange is None:
            self.fail(UpstreamMalformed("unsolicited_bytes"))
        elif self._left:
            self._relay_counted(exchange, data)
        elif self._reads or self.heard or not self._relay_plain(exchange, data):
            self._reads = True
            if self._reader is None or self._reader.spent:
                self._reader = self.make_reader()
            self.heard = True
            self._reader.feed(exchange, data)

    def make_reader(self) -> AnswerReader:
        """Make the reader of answers that are not plain."""
        return AnswerReader(self)

    def _relay_plain(self, exchange: "Exchange", data: bytes) -> bool:
        """Relay the first bytes of a plain answer, perhaps all of it; False when it is not plain."""
        plain = self.pool.plain_answers.read(data, is_head=exchange.request.is_head)
        if plain is None:
            return False
        head, start, length = plain
        left = start + length - len(data)
        if left < 0:
            return False  # bytes behind the answer: for the reader to judge
        self.heard = self.answered = True
        self.touched = self.pool.loop.time()
        if not self.served:
            self.pool.proved(self)
        self._left = left
        if not left:
            exchange.sink.whole(head, data[start:])
            if self.exchange is exchange:
                self.finish()
        else:
            exchange.sink.head(head)
            exchange.sink.body(data[start:])
            exchange.sink.flush()
        return True

    def _relay_counted(self, exchange: "Exchange", data: bytes) -> None:
        """Relay more of a body whose length is known."""
        self.touched = self.pool.loop.time()
        left = self._left - len(data)
        if left < 0:
            # What follows a whole answer is nobody's: the answer stands, the connection does not.
            data, left, self.closing = data[: self._left], 0, True
        self._left = left
        exchange.sink.body(data)
        if left:
            exchange.sink.flush()
        else:
            exchange.sink.end()
            exchange.sink.flush()
            if self.exchange is exchange:
                self.finish()

    def finish(self) -> None:
        """The answer is out: back to the pool, unless something forbids a next exchange here."""
        exchange, self.exchange = self.exchange, None
        self.served += 1
        if not self.request_sent:
            # An early answer: the rest of the request will not be sent, so this connection cannot serve another.
            self.closing = True
        if exchange is not None:
            exchange.completed(self)
        if self.closing or self.until_close:
            self.closing = True
            # Not `close`, which first sends what is buffered: a rest of an upload nobody reads would hold the place.
            self.transport.abort()
        else:
            if self.reading_paused:  # by a client that was slow to the last: the next one must not find it so
                self.resume_reading()
            self.pool.release(self)
