"""Reads one answer after the other through llhttp (httptools, strict): whatever is not plain.

What llhttp refuses, and what no proxy should relay (a head without end, a flood of interim answers, bytes after the
body), ends the connection.
"""

import re
from typing import TYPE_CHECKING

import httptools

from gateway.errors import UpstreamMalformed
from gateway.upstream import answer
from gateway.upstream.answer import HEAD_CAP, NOT_NOMINABLE_ANSWER, AnswerHead, Framing, judge_answer_name, judged_names

if TYPE_CHECKING:
    from gateway.upstream.connection import UpstreamConnection
    from gateway.upstream.exchange import Exchange

_NONE, _LENGTH, _CHUNKED, _UNTIL_CLOSE = Framing.NONE, Framing.LENGTH, Framing.CHUNKED, Framing.UNTIL_CLOSE
INTERIM_CAP = 16
"""Interim (1xx) answers before a final one; a server sends one or two."""
_REASON = re.compile(rb"[\t\x20-\x7e\x80-\xff]*+")  # RFC 9112 §4; llhttp lets other control characters pass


class AnswerReader:
    """Tells the sink of the exchange under way what its connection brings."""

    __slots__ = (
        "_chunked",
        "_connection",
        "_connection_options",
        "_done",
        "_exchange",
        "_has_cors",
        "_has_length",
        "_interim",
        "_lines",
        "_parser",
        "_reason",
        "_unrelayed",
        "_violation",
    )

    def __init__(self, connection: "UpstreamConnection") -> None:
        self._connection = connection
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None

    @property
    def spent(self) -> bool:
        """It cannot read another answer."""
        return self._parser is None

    def spend(self) -> None:
        """Read no more, and let go of the parser, which refers back to us."""
        self._parser = self._exchange = None

    def _begin(self, exchange: "Exchange") -> None:
        self._exchange = exchange
        self._done = self._chunked = self._has_length = self._has_cors = False
        self._lines: list[bytes] = []
        self._connection_options: set[bytes] = set()
        self._reason = b""
        self._violation: str | None = None
        self._interim = self._unrelayed = 0

    def feed(self, exchange: "Exchange", data: bytes) -> None:
        """Read bytes that came for an exchange."""
        connection, parser = self._connection, self._parser
        if exchange is not self._exchange:
            self._begin(exchange)
        if parser is None:
            return
        self._unrelayed += len(data)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._switch(data[upgrade.args[0] :]):
                return
            self._violation = self._violation or "unsolicited_upgrade"
        except httptools.HttpParserError:
            self._violation = self._violation or "grammar"
        if self._done:
            # What follows a whole answer is nobody's: the answer stands, the connection does not.
            connection.closing |= self._violation is not None
        elif self._violation is not None or self._unrelayed > HEAD_CAP:
            connection.fail(UpstreamMalformed(self._violation or "head_too_large"))
            return
        if connection.answered:
            # Before the answer nothing counts: a head that trickles must not outlive `response_timeout`.
            connection.touched = connection.pool.loop.time()
        exchange.sink.flush()
        if self._done and connection.exchange is exchange:
            self._exchange = None
            connection.finish()

    def _switch(self, rest: bytes) -> bool:
        """Take the bytes behind a 101; True when they are. Nobody asked for one here: `upgrade.py` does."""
        return False

    # llhttp; it goes through a whole read, so that every callback has to ask whether its message still counts.

    def on_message_begin(self) -> None:
        """A message begins; after a final answer there must be none."""
        if self._done:
            self._violation = self._violation or "bytes_after_answer"

    def on_status(self, reason: bytes) -> None:
        """Reason phrase, possibly in pieces."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field line of the head; after the head these are trailers, which are dropped."""
        if self._connection.answered:
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
        parser, exchange = self._parser, self._exchange
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
        self._connection.until_close = framing is _UNTIL_CLOSE
        self._connection.answered = True
        if not self._connection.served:
            self._connection.pool.proved(self._connection)
        self._unrelayed = 0
        fields = b"".join(line + b"\r\n" for line in self._lines)
        exchange.sink.head(AnswerHead(status, self._reason, fields, framing, self._has_cors))
        if bodiless:
            # llhttp would wait for the body that Content-Length describes; there is none, and its state is spent.
            self._connection.closing |= not parser.should_keep_alive()
            self._parser = None
            self._done = True
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
        self._connection.closing |= self._chunked and version == "1.0"
        return False

    def _skip_interim(self, status: int) -> None:
        self._interim += 1
        if status == 101 or self._interim > INTERIM_CAP:
            self._violation = "unsolicited_upgrade" if status == 101 else "interim_flood"
        self._lines, self._reason, self._connection_options = [], b"", set()
        self._chunked = self._has_length = self._has_cors = False

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self._done:
            self._violation = self._violation or "body_where_none_belongs"
        elif self._exchange is not None and self._connection.answered and self._violation is None:
            self._unrelayed = 0
            self._exchange.sink.body(data)

    def on_message_complete(self) -> None:
        """The answer (or an interim one, which does not count) is whole."""
        parser, exchange = self._parser, self._exchange
        if parser is None or exchange is None or not self._connection.answered or self._done:
            return
        self._done = True
        self._connection.closing |= not parser.should_keep_alive()
        exchange.sink.end()
