"""The upstream's answer, written to the client's transport with framing of our own.

Both lanes use it. It holds back what one read from the upstream yields and writes it once, so that a small answer
is one write; nothing is ever held beyond that read.
"""

import asyncio
import socket
import struct
from collections.abc import Callable

from gateway.errors import GatewayError
from gateway.upstream.answer import AnswerHead, Framing

_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED, _UNTIL_CLOSE = Framing.CHUNKED, Framing.UNTIL_CLOSE  # read once: see edge/slots.py
HIGH_WATER = 128 * 1024
"""Bytes waiting in the client's transport before the upstream is paused."""


class Relay:
    """Sink of one exchange after the other (`upstream.answer.AnswerSink`).

    Attributes:
        status: Of the answer, 0 until its head came.
        keep_alive: Whether the client's connection may carry another request afterwards.
        error: What broke the exchange, None when it is complete or under way.
    """

    __slots__ = (
        "_changed",
        "_chunked",
        "_cors",
        "_http10",
        "_lines",
        "_out",
        "_transport",
        "error",
        "finished",
        "keep_alive",
        "started",
        "status",
    )

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        *,
        http10: bool,
        keep_alive: bool,
        cors: bytes,
        changed: Callable[[], None],
        lines: bytes = b"",
    ) -> None:
        """Prepare the way back.

        Args:
            transport: The client's.
            http10: The client speaks HTTP/1.0 and knows no chunks.
            keep_alive: The client wants, and we allow, another request on this connection.
            cors: Field lines to add when the upstream sent no CORS of its own, each with its CRLF.
            changed: Called when the exchange ends and when the client is too slow.
            lines: Field lines to add in any case.
        """
        self._transport = transport
        self._http10 = http10
        self._changed = changed
        self._out: list[bytes] = []
        self.begin(keep_alive, cors, lines)

    def begin(self, keep_alive: bool, cors: bytes, lines: bytes = b"") -> None:
        """Prepare for the next answer on this connection; parameters as above."""
        self._cors = cors
        self._lines = lines
        self._chunked = False
        self.keep_alive = keep_alive
        self.started = self.finished = False
        self.status = 0
        self.error: GatewayError | None = None

    @property
    def congested(self) -> bool:
        """The client reads more slowly than the upstream writes."""
        return self._transport.get_write_buffer_size() > HIGH_WATER

    @property
    def streams(self) -> bool:
        """The answer began, and does not say how long it is."""
        return self._chunked and self.started and not self.finished

    def whole(self, head: AnswerHead, body: bytes) -> None:
        """Write an answer that came at once."""
        transport = self._transport
        self.status = head.status
        self.started = True
        if not transport.is_closing():  # uvloop raises where asyncio ignores
            start = _OK if head.status == 200 and head.reason == b"OK" else _status_line(head)
            own = (
                b""
                if self.keep_alive and not self._cors and not self._lines and not self._http10
                else self._own_lines(head)
            )
            transport.write(b"".join((start, head.fields, own, b"\r\n", body)))

    def head(self, head: AnswerHead) -> None:
        """Write status line and fields; choose the framing the client understands."""
        self.status = head.status
        self.started = True
        own = b""
        if head.framing is _CHUNKED or head.framing is _UNTIL_CLOSE:
            if self._http10:
                self.keep_alive = False
            else:
                self._chunked = True
                own = b"Transfer-Encoding: chunked\r\n"
        self._out += (_status_line(head), head.fields, own, self._own_lines(head), b"\r\n")

    def _own_lines(self, head: AnswerHead) -> bytes:
        """What we say of the connection, and to browsers where the upstream says nothing."""
        lines = self._lines if head.has_cors else self._cors + self._lines
        if not self.keep_alive:
            return b"Connection: close\r\n" + lines
        return b"Connection: keep-alive\r\n" + lines if self._http10 else lines

    def body(self, data: bytes) -> None:
        """Frame a piece of the body."""
        self._out.append(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self) -> None:
        """Close the body's framing; trailers are dropped."""
        if self._chunked:
            self._out.append(b"0\r\n\r\n")

    def flush(self) -> None:
        """Write what this read from the upstream gave."""
        if self._out and not self._transport.is_closing():  # uvloop raises where asyncio ignores
            self._transport.write(b"".join(self._out))
            self._out.clear()
            if self._transport.get_write_buffer_size() > HIGH_WATER:
                self._changed()

    def done(self) -> None:
        """The exchange is complete."""
        self.finished = True
        self._changed()

    def switched(self) -> None:
        """The upstream switched protocols: the client's transport is a tunnel's from now on."""
        self.status = 101
        self.started = self.finished = True
        self._changed()

    def failed(self, error: GatewayError) -> None:
        """The exchange broke; after the head only cutting the connection tells the client the truth.

        The owner closes it. Here it is reset where a close would lie, because the end of the connection is the end of
        the body (HTTP/1.0), and where a close would never come, because the client does not read.
        """
        unread = self._transport.get_write_buffer_size() > 0  # what this very call writes does not count
        self.flush()
        self.keep_alive = False
        if self.started and (self._http10 or unread):
            _reset(self._transport)
        self.error = error
        self.finished = True
        self._changed()


def _status_line(head: AnswerHead) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason)


_LINGER_NOT = struct.pack("ii", 1, 0)


def _reset(transport: asyncio.WriteTransport) -> None:
    """End a connection so that the peer sees an error: a plain abort sends FIN when nothing is unsent or unread."""
    connection = transport.get_extra_info("socket")
    if connection is not None and not transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    transport.abort()
