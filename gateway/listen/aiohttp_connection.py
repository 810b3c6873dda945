"""aiohttp's connections, made ours: deadlines of heads, limits of chunk lines, lingering after refusals, draining.

What they carry is answered by the lane (`aiohttp_lane.py`), which they know by the few calls of `Lane` alone.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, cast

from aiohttp import web
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import _ErrInfo

from config.model import Limits

SWEEP_S = 0.5
"""Seconds between two looks at the deadlines of heads."""
LINGER_S = 1.0
"""Seconds of bytes nobody wants that are still read after an answer: closing over them would destroy the answer."""
ON_ITS_WAY_S = 1.0
"""Seconds within which a drain expects a request from a client that it heard of; closing over it would lose it."""
_DRAIN_LOOK_S = 0.05
CHUNK_LINES_CAP = 4096
"""Bytes of chunk sizes and extensions taken beyond sixteen for each byte of content."""
_LOOK_BYTES = 1024
"""Bytes parsed at once where chunk lines may be among them."""
_END_OF_HEAD = b"\r\n\r\n"


GiveBack = Callable[[asyncio.Transport], None]


class Lane(Protocol):
    """What answers the requests of these connections."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""

    def refuse_unread(self, request: web.BaseRequest, error: BaseException | None) -> web.StreamResponse:
        """Answer bytes that are no request."""

    def refuse_late(self, transport: asyncio.Transport) -> None:
        """Answer a head that did not arrive in time."""

    def drain(self) -> None:
        """Let every answer from now on end its connection."""

    def end_expired(self) -> None:
        """Cut the streams whose tokens are over."""


class LaneServer(web.Server):
    """aiohttp's low-level server with connections of our own making."""

    def __init__(self, lane: Lane, limits: Limits) -> None:
        super().__init__(
            lane.handle,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            lingering_time=0,  # `LaneConnection` lingers: it tells the client first that nothing more comes
            **_options_of(limits),
        )
        self._lane = lane
        self._head_timeout_s = limits.head_timeout
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def adopt(self, limits: Limits) -> None:
        """Bind every connection from now on by these limits; its parser keeps them to its end."""
        self._kwargs |= _options_of(limits)
        self._head_timeout_s = limits.head_timeout

    def _sweep(self) -> None:
        """Judge the heads of all connections, and streams whose tokens are over, with one timer."""
        now = self._loop.time()
        for connection in self.connections:
            cast(LaneConnection, connection).check_head(now, self._head_timeout_s)
        self._lane.end_expired()
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def pre_shutdown(self) -> None:
        """Close what is idle; every answer from now on ends its connection."""
        self._lane.drain()
        for connection in self.connections:
            cast(LaneConnection, connection).end_when_idle()

    async def shutdown(self, timeout: float | None = None) -> None:
        """Let what is under way finish, uploads too (aiohttp's own way would stop reading them); then cut the rest.

        Args:
            timeout: Seconds to wait; None cuts at once.
        """
        until = self._loop.time() + (timeout or 0.0)
        while self.connections and self._loop.time() < until:
            self.pre_shutdown()
            await asyncio.sleep(_DRAIN_LOOK_S)
        self._sweeper.cancel()
        await super().shutdown(_DRAIN_LOOK_S)

    def __call__(self) -> "LaneConnection":
        """Make the protocol of one accepted connection."""
        return LaneConnection(self, self._lane, loop=self._loop, **self._kwargs)


def _options_of(limits: Limits) -> dict[str, Any]:
    return {
        "keepalive_timeout": limits.keepalive,
        "max_line_size": limits.head_bytes,
        "max_field_size": limits.head_bytes,
        "max_headers": limits.head_fields,
    }


class LaneConnection(web.RequestHandler):
    """aiohttp's connection; what its parser refuses is answered our way, without a traceback per request."""

    __slots__ = (
        "_chunk_lines",
        "_chunked",
        "_content_length",
        "_deaf",
        "_detached",
        "_give_back",
        "_head_since",
        "_head_tail",
        "_lane",
        "_lent_bytes",
        "_made_at",
        "_received",
        "_unfinished",
    )

    def __init__(self, manager: LaneServer, lane: Lane, **options: Any) -> None:
        super().__init__(manager, **options)
        self._lane = lane
        self._deaf = self._detached = False
        self._made_at = self._loop.time()
        self._unfinished: StreamReader | None = None
        self._chunked = False
        self._chunk_lines = 0  # bytes of the latest request's body that were no content
        self._content_length = 0
        self._head_tail = b""  # the last bytes before, if they may be the beginning of a head's end
        self._head_since: float | None = None
        self._received = self._lent_bytes = 0
        self._give_back: GiveBack | None = None

    def lend(self, size: int, give_back: GiveBack) -> None:
        """Take this connection for one request alone: when it is answered and nothing else came, give it back.

        Args:
            size: Bytes of the request, its body included.
            give_back: Takes the transport.
        """
        self._lent_bytes, self._give_back = size, give_back

    def data_received(self, data: bytes) -> None:
        """Parse, in pieces that end where a head or a body does: see `_piece`."""
        self._received += len(data)
        start = 0
        while not self._deaf:
            end = self._piece(data, start)
            self._parse(data[start:end])
            start = end
            if start >= len(data):
                break

    def _piece(self, data: bytes, start: int) -> int:
        """Where to stop parsing: with an error, the parser forgets the whole requests before it in the same bytes.

        In a chunked body the pieces are small, so that chunk lines can be told from content.
        """
        body = self._unfinished
        if body is not None and not body.is_eof():
            return start + (_LOOK_BYTES if self._chunked else max(1, self._content_length - body.total_bytes))
        if self._upgraded:
            return len(data)
        before, self._head_tail = self._head_tail, b""
        end = (before + data[start : start + 3]).find(_END_OF_HEAD)
        if end >= 0:  # it began in the bytes before
            return start + end + 4 - len(before)
        end = data.find(_END_OF_HEAD, start)
        if end >= 0:
            return end + 4
        self._head_tail = (before + data[max(start, len(data) - 3) :])[-3:]
        return len(data)

    def _parse(self, data: bytes) -> None:
        """Parse; when a body turns out broken, tell whoever reads it.

        aiohttp only queues the parser's error behind the request whose body it is, which would wait for ever (S03).
        """
        body = self._unfinished if self._chunked else None
        known = body.total_bytes if body is not None and not body.is_eof() else None
        super().data_received(data)
        self._head_since = (self._head_since or self._loop.time()) if data and self._idle else None
        if body is not None and known is not None and not body.is_eof():
            self._judge_chunk_lines(body, len(data) - (body.total_bytes - known))
        if self._messages:
            message, content = self._messages[-1]
            if isinstance(message, _ErrInfo):
                self._break_body()
            elif content is not self._unfinished:  # only the latest request can have a body that is still to come
                self._unfinished, self._chunked, self._chunk_lines = content, message.chunked, 0
                self._content_length = int(message.headers.get("Content-Length", 0))

    def _judge_chunk_lines(self, body: StreamReader, size: int) -> None:
        """Refuse a body that hides bytes in its chunk lines (S04): the parser skips extensions of any length unread.

        Args:
            body: Under way before and after these bytes, so that all of them are its own.
            size: Of them, those that were no content.
        """
        self._chunk_lines += size
        if self._chunk_lines > CHUNK_LINES_CAP + 16 * body.total_bytes:
            self._break_body()

    def _break_body(self) -> None:
        self._deaf = True
        if self._unfinished is not None and not self._unfinished.is_eof():
            self._unfinished.set_exception(web.RequestPayloadError("body_grammar"))

    def detach(self) -> tuple[asyncio.Transport | None, bytes]:
        """Give the transport away, with the bytes that came behind an upgrade's head; None when the client is gone.

        To aiohttp it is as if the client had left, but that the handler, which calls this, may return in peace.
        """
        transport, early = self.transport, self._message_tail
        self.transport, self._message_tail, self._detached = None, b"", True
        self._task_handler = None
        self.connection_lost(None)
        return transport, early

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """End an answer, and with it a connection that must not go on.

        Closing over bytes that still come would reset the connection and destroy the answer on its way. So, unless the
        client meant to close too: no more from us, and what it sends is thrown away for a moment.
        """
        if self._detached:
            return resp, True
        finished = await super().finish_response(request, resp, start_time)
        transport = self.transport
        if self._give_back is not None and resp.keep_alive and self._received == self._lent_bytes:
            give_back, (lent, _) = self._give_back, self.detach()
            if lent is not None and not lent.is_closing():
                give_back(lent)
            return resp, True
        if not resp.keep_alive and transport is not None and (self._deaf or request.keep_alive):
            self._deaf = True
            if not transport.is_closing():
                if not transport.can_write_eof():
                    transport.close()  # TLS says goodbye, and itself throws away what comes until the client does too
                    return finished
                transport.write_eof()
                await asyncio.sleep(LINGER_S)  # cancelled as soon as the client closes
        return finished

    @property
    def _idle(self) -> bool:
        return not self._messages and self._waiter is not None and not self._waiter.done()

    def _process_keepalive(self) -> None:
        """Close what is idle for too long; a head that began has a deadline of its own, and an answer after it."""
        if self._head_since is None:
            super()._process_keepalive()
        else:
            self._keepalive_handle = None  # armed again behind the next answer

    def end_when_idle(self) -> None:
        """Close unless a request is here or under way, or on its way from a client that was just accepted."""
        if self._idle and self._loop.time() - self._made_at > ON_ITS_WAY_S:
            self.force_close()

    def check_head(self, now: float, timeout_s: float) -> None:
        """Answer a head that dribbles."""
        if self._head_since is None or not self._idle:
            return
        if now - self._head_since > timeout_s and self.transport is not None:
            self._lane.refuse_late(self.transport)
            self._deaf, self._head_since = True, None
            if self.transport.is_closing() or not self.transport.can_write_eof():
                self.force_close()
            else:  # what dribbles on is thrown away for a moment: see `LINGER_S`
                self.transport.write_eof()
                self._loop.call_later(LINGER_S, self.force_close)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be parsed; `message` holds the attacker's bytes and is not used."""
        return self._lane.refuse_unread(request, exc)
