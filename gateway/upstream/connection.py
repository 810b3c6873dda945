"""One connection to an upstream: bytes in through llhttp, an answer out to a sink.

llhttp (through httptools) judges the grammar in its strict mode; what it refuses, and what no proxy should relay
(a head without end, a flood of interim answers, bytes after the body), ends the connection here.
"""

import asyncio
import re
from typing import TYPE_CHECKING, cast

import httptools

from gateway.errors import UpstreamError, UpstreamMalformed, UpstreamTimedOut, UpstreamUnreachable
from gateway.upstream import answer
from gateway.upstream.answer import NOT_NOMINABLE_ANSWER, AnswerHead, Framing, judge_answer_name, judged_names

if TYPE_CHECKING:
    from gateway.upstream.exchange import Exchange
    from gateway.upstream.pool import Upstream

_NONE, _LENGTH, _CHUNKED, _UNTIL_CLOSE = Framing.NONE, Framing.LENGTH, Framing.CHUNKED, Framing.UNTIL_CLOSE
HEAD_CAP = 64 * 1024
"""Bytes of an answer's field section; far above what servers send, far below what would hurt."""
INTERIM_CAP = 16
"""Interim (1xx) answers before a final one; a server sends one or two."""
_REASON = re.compile(rb"[\t\x20-\x7e\x80-\xff]*+")  # RFC 9112 §4; llhttp lets other control characters pass


class UpstreamConnection(asyncio.Protocol):
    """A kept-alive connection; carries one exchange at a time.

    Attributes:
        address: Which of the pool's addresses it leads to.
    """

    __slots__ = (
        "_answer_done",
        "_chunked",
        "_closing",
        "_connection_options",
        "_ended",
        "_has_cors",
        "_has_length",
        "_interim",
        "_lines",
        "_parser",
        "_reason",
        "_unrelayed",
        "_violation",
        "_write_waiter",
        "address",
        "answered",
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
        self.writing_paused = self.reading_paused = self._closing = self._ended = False
        self._write_waiter: asyncio.Future[None] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._reset()

    def _reset(self) -> None:
        self.answered = self.heard = self.until_close = self.request_sent = False
        self._answer_done = self._chunked = self._has_length = self._has_cors = False
        self._lines: list[bytes] = []
        self._connection_options: set[bytes] = set()
        self._reason = b""
        self._violation: str | None = None
        self._interim = self._unrelayed = 0

    def begin(self, exchange: "Exchange", head: bytes, now: float, *, body_follows: bool) -> None:
        """Start an exchange: write the request's head (and whatever body is already at hand)."""
        self._reset()
        self.exchange = exchange
        self.request_sent = not body_follows
        self.touched = now
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        self.transport.write(head)

    @property
    def usable(self) -> bool:
        """Tell whether a new exchange may start here."""
        return not self._closing and not self.transport.is_closing()

    def abort(self) -> None:
        """Drop the connection at once; nothing more is told to its exchange."""
        self.exchange = None
        self._closing = True
        self.transport.abort()

    def fail(self, error: UpstreamError) -> None:
        """End the exchange with an error and drop the connection."""
        exchange, self.exchange = self.exchange, None
        self._closing = True
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
        if self.writing_paused and not self._closing:
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
        self._closing = True
        self._parser = None  # its callbacks refer back to us
        self._wake_writer()
        self.pool.left(self)
        exchange = self.exchange
        if exchange is None:
            return
        if self.until_close and exc is None and self.answered and self._was_ended():
            exchange.sink.end()
            exchange.sink.flush()
            self._finish()
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

    def _wake_writer(self) -> None:
        waiter, self._write_waiter = self._write_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; its callbacks below tell the sink."""
        exchange = self.exchange
        if exchange is None or self._answer_done or self._parser is None:
            self.fail(UpstreamMalformed("unsolicited_bytes"))
            return
        self.heard = True
        self._unrelayed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._switch(data[upgrade.args[0] :]):
                return
            self._violation = self._violation or "unsolicited_upgrade"
        except httptools.HttpParserError:
            self._violation = self._violation or "grammar"
        if self._answer_done:
            # What follows a whole answer is nobody's: the answer stands, the connection does not.
            self._closing |= self._violation is not None
        elif self._violation is not None or self._unrelayed > HEAD_CAP:
            self.fail(UpstreamMalformed(self._violation or "head_too_large"))
            return
        if self.answered:
            # Before the answer nothing counts: a head that trickles must not outlive `response_timeout`.
            self.touched = self.pool.loop.time()
        exchange.sink.flush()
        if self._answer_done and self.exchange is exchange:
            self._finish()

    def _switch(self, rest: bytes) -> bool:
        """Take the bytes behind a 101; True when they are. Nobody asked for one here: `upgrade.py` does."""
        return False

    # llhttp; it goes through a whole read, so that every callback has to ask whether its message still counts.

    def on_message_begin(self) -> None:
        """A message begins; after a final answer there must be none."""
        if self._answer_done:
            self._violation = self._violation or "bytes_after_answer"

    def on_status(self, reason: bytes) -> None:
        """Reason phrase, possibly in pieces."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field line of the head; after the head these are trailers, which are dropped."""
        if self.answered:
            return
        verdict = judged_names.get(name)
        if verdict is None:
            verdict = judge_answer_name(name)
        if verdict == 0:  # PASS; a number, because every field of every answer comes by
            self._lines.append(name + b": " + value)
        elif verdict == 2:  # CONTENT_LENGTH
            self._has_length = True
            self._lines.append(name + b": " + value)
        elif verdict != 1:  # DROP
            self._read_field(verdict, name, value)

    def _read_field(self, verdict: int, name: bytes, value: bytes) -> None:
        if verdict == answer.TRANSFER_ENCODING:
            if value.strip().lower() != b"chunked" or self._chunked:
                self._violation = "transfer_coding"
            self._chunked = True
        elif verdict == answer.CONNECTION:
            if value != b"keep-alive":  # the usual value says nothing
                self._connection_options.update(option.strip().lower() for option in value.split(b","))
        else:
            self._has_cors = True
            self._lines.append(b"%b: %b" % (name, value))

    def on_headers_complete(self) -> None:
        """The head is whole: hand it over, or skip an interim one."""
        parser, exchange = self._parser, self.exchange
        if parser is None or exchange is None or self._violation is not None:
            return
        status = parser.get_status_code()
        if not 100 <= status < 600 or (self._reason != b"OK" and _REASON.fullmatch(self._reason) is None):
            self._violation = "status_line"
            return
        if status < 200:
            self._skip_interim(status)
            return
        if self._unrelayed > HEAD_CAP and sum(map(len, self._lines)) > HEAD_CAP:
            self._violation = "head_too_large"
            return
        if self._unversed(parser.get_http_version()):
            return
        bodiless = exchange.request.is_head or status in (204, 304)
        if self._connection_options:
            self._drop_nominated()
        if bodiless:
            framing = _NONE
            if status == 204 and self._has_length:  # RFC 9110 §8.6; some clients would wait for that body
                self._lines = [line for line in self._lines if line.partition(b":")[0].lower() != b"content-length"]
        elif self._chunked:
            framing = _CHUNKED
        else:
            framing = _LENGTH if self._has_length else _UNTIL_CLOSE
        self.until_close = framing is _UNTIL_CLOSE
        self.answered = True
        if not self.served:
            self.pool.proved(self)
        self._unrelayed = 0
        exchange.sink.head(AnswerHead(status, self._reason, self._lines, framing, self._has_cors))
        if bodiless:
            # llhttp would wait for the body that Content-Length describes; there is none, and its state is spent.
            self._closing |= not parser.should_keep_alive()
            self._parser = None
            self._answer_done = True
            exchange.sink.end()

    def _drop_nominated(self) -> None:
        nominated = self._connection_options - {b"", b"close", b"keep-alive"} - NOT_NOMINABLE_ANSWER
        if nominated:
            self._lines = [line for line in self._lines if line.partition(b":")[0].lower() not in nominated]

    def _unversed(self, version: str) -> bool:
        """Refuse versions whose framing we do not know; chunks in HTTP/1.0 end the connection (RFC 9112 §6.1)."""
        if version not in ("1.1", "1.0"):
            self._violation = "version"
            return True
        self._closing |= self._chunked and version == "1.0"
        return False

    def _skip_interim(self, status: int) -> None:
        self._interim += 1
        if status == 101 or self._interim > INTERIM_CAP:
            self._violation = "unsolicited_upgrade" if status == 101 else "interim_flood"
        self._lines, self._reason, self._connection_options = [], b"", set()
        self._chunked = self._has_length = self._has_cors = False

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self._answer_done:
            self._violation = self._violation or "body_where_none_belongs"
        elif self.exchange is not None and self.answered and self._violation is None:
            self._unrelayed = 0
            self.exchange.sink.body(data)

    def on_message_complete(self) -> None:
        """The answer (or an interim one, which does not count) is whole."""
        parser, exchange = self._parser, self.exchange
        if parser is None or exchange is None or not self.answered or self._answer_done:
            return
        self._answer_done = True
        self._closing |= not parser.should_keep_alive()
        exchange.sink.end()

    def _finish(self) -> None:
        """The answer is out: back to the pool, unless something forbids a next exchange here."""
        exchange, self.exchange = self.exchange, None
        self.served += 1
        if not self.request_sent:
            # An early answer: the rest of the request will not be sent, so this connection cannot serve another.
            self._closing = True
        if exchange is not None:
            exchange.completed(self)
        if self._closing or self.until_close:
            self._closing = True
            # Not `close`, which first sends what is buffered: a rest of an upload nobody reads would hold the place.
            self.transport.abort()
        else:
            if self.reading_paused:  # by a client that was slow to the last: the next one must not find it so
                self.resume_reading()
            self.pool.release(self)
