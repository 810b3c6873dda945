"""Tunnels: two transports whose bytes go to each other, and the registry that knows them all.

No task, no future and no timer of its own per tunnel: two small protocols, and one timer for all deadlines. Bytes are
neither judged nor kept; whoever reads slowly stops the other side from being read.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from typing import ClassVar, TypeVar

from gateway.upstream.frames import FrameTracker, close_frame
from gateway.upstream.pool import Upstream

UNAUTHORIZED = 4401
"""401 in the range RFC 6455 §7.4.2 leaves to applications: whoever opened it may not call any more."""
SERVICE_RESTART = 1012
GOING_AWAY = 1001
REPLY_S = 3.0
"""Seconds a client has to answer a close frame of ours before both ends are cut."""
HALF_CLOSED_S = 10.0
"""Seconds of silence for which the second direction outlives the first; TCP has no other word for a dead websocket."""
_SWEEP_S = 1.0
PROBED_AFTER_S, PROBED_EVERY_S, PROBES = 60, 15, 4
"""TCP's own probes of a silent end: one that vanished without a word is noticed within two minutes."""


class Leg(asyncio.Protocol):
    """One end of a tunnel.

    Attributes:
        ended: Its peer sends no more.
        gone: Its connection is lost.
        full_since: Loop time since when its peer takes too little; 0 while it keeps up.
    """

    __slots__ = ("ended", "full_since", "gone", "other", "transport", "tunnel")
    name: ClassVar[str]
    other: "Leg"

    def __init__(self, tunnel: "Tunnel", transport: asyncio.Transport) -> None:
        self.tunnel = tunnel
        self.transport = transport
        self.ended = self.gone = False
        self.full_since = 0.0
        _probe_when_silent(transport)

    def write(self, data: bytes) -> None:
        """Send to this peer, unless its connection is ending."""
        if data and not self.transport.is_closing():  # uvloop raises where asyncio ignores
            self.transport.write(data)

    def resume(self) -> None:
        """Read from this peer again."""
        if not self.ended and not self.transport.is_closing():
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        """The peer is slow: read no more from the other one."""
        self.full_since = self.tunnel.registry.loop.time()
        if not self.other.ended and not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """The peer caught up."""
        self.full_since = 0.0
        self.other.resume()

    def eof_received(self) -> bool:
        """Half a close: pass it on, keep the other half."""
        self.ended = True
        self.tunnel.half_closed(self)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """One end is gone; what is left in the other one's buffer may still arrive."""
        self.gone = self.ended = True
        self.tunnel.lost(self)


def _probe_when_silent(transport: asyncio.Transport) -> None:
    """Let the system find out whether a silent peer is still there; a unix socket's always is."""
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):  # not everywhere under this name
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBED_AFTER_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBED_EVERY_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)


class ClientLeg(Leg):
    """The client's end."""

    __slots__ = ()
    name = "client"

    def data_received(self, data: bytes) -> None:
        """Bytes go up."""
        self.tunnel.touched = self.tunnel.registry.loop.time()
        self.tunnel.up(data)


class UpstreamLeg(Leg):
    """The upstream's end."""

    __slots__ = ()
    name = "upstream"

    def data_received(self, data: bytes) -> None:
        """Bytes go down, unless our own close frame went before them."""
        self.tunnel.touched = self.tunnel.registry.loop.time()
        self.tunnel.down(data)


class Tunnel:
    """One upgraded connection.

    Attributes:
        route: Label of its metrics.
        cause: Why it ends, None while it lives: `closed` after a closing handshake, `client` or `upstream` when that
            end left without one, `stalled`, `max_age`, `idle_timeout`, `drain`, `token_expired`, `revoked`.
        began: Loop time.
        touched: Loop time of the last byte, either way.
        max_age_s: Longest life; None: any. As it was when the tunnel began, whatever is set later.
        idle_timeout_s: Longest silence; likewise.
        expires_at: Loop time at which whoever opened it may not call any more; None: never. May be put off.
        gone: Called once both ends are; None: nobody wants to know.
    """

    __slots__ = (
        "_closed_by_us",
        "_deadline",
        "_frame",
        "_frames",
        "began",
        "cause",
        "client",
        "expires_at",
        "gone",
        "idle_timeout_s",
        "max_age_s",
        "registry",
        "route",
        "touched",
        "upstream",
        "upstream_end",
    )

    def __init__(
        self,
        registry: "Tunnels",
        route: str,
        upstream: Upstream,
        client: asyncio.Transport,
        upstream_transport: asyncio.Transport,
    ) -> None:
        self.registry = registry
        self.route = route
        self.upstream = upstream
        self.max_age_s, self.idle_timeout_s = registry.max_age_s, registry.idle_timeout_s
        self.expires_at: float | None = None
        self.gone: Callable[[], None] | None = None
        self.cause: str | None = None
        self.began = self.touched = registry.loop.time()
        self.client = self.make_client_leg(client)
        self.upstream_end = UpstreamLeg(self, upstream_transport)
        self.client.other, self.upstream_end.other = self.upstream_end, self.client
        self._frames = FrameTracker()
        self._frame = b""  # a close frame of ours that waits for the end of a frame
        self._closed_by_us = False
        self._deadline = 0.0

    def make_client_leg(self, transport: asyncio.Transport) -> ClientLeg:
        """Make the client's end."""
        return ClientLeg(self, transport)

    def start(self, head: bytes, early: bytes, rest: bytes) -> None:
        """Take both transports over.

        Args:
            head: The 101 for the client.
            early: What the client sent before it; never read as HTTP.
            rest: What came from the upstream behind it.
        """
        self.client.transport.set_protocol(self.client)
        self.upstream_end.transport.set_protocol(self.upstream_end)
        self.client.write(head)
        self.down(rest)
        self.up(early)
        if not self.upstream_end.full_since:
            self.client.resume()

    def up(self, data: bytes) -> None:
        """Pass bytes to the upstream."""
        self.upstream_end.write(data)

    def down(self, data: bytes) -> None:
        """Pass bytes to the client; after a close frame none may follow (RFC 6455 §5.5.1)."""
        if self._closed_by_us:
            return
        if not self._frame:
            self._frames.advance(data)
            self.client.write(data)
            return
        followed = self._frames.advance(data, to_boundary=True)
        self.client.write(data[:followed])
        self._close_now()

    def close(self, code: int, cause: str) -> None:
        """End from our side: a close frame at the next end of a frame, then `REPLY_S` for the client's answer.

        The client's own close frame goes up, so that the upstream sees an ordinary closing handshake. Does nothing
        when the tunnel is ending already, but that it has no longer than those seconds.

        Args:
            code: 1000 to 4999.
            cause: Label of the metric, and the close frame's phrase.
        """
        ending = self.cause is not None
        self._end(cause, REPLY_S)
        if ending or self._frames.closed:
            return  # another's end, or the upstream's own close frame, went before: only the deadline is ours
        self._frame = close_frame(code, cause.encode("ascii"))
        self._close_now()

    def abort(self) -> None:
        """Cut both ends."""
        self.client.transport.abort()
        self.upstream_end.transport.abort()

    def half_closed(self, leg: Leg) -> None:
        """One peer sends no more; the other may still finish what it says."""
        self.cause = self.cause or self._cause_of(leg)
        self.touched = self.registry.loop.time()
        other = leg.other
        if other.ended or not other.transport.can_write_eof():
            self._end(self.cause, self.upstream.idle_timeout_s)
            leg.transport.close()
            other.transport.close()
        elif not other.transport.is_closing():
            other.transport.write_eof()

    def lost(self, leg: Leg) -> None:
        """One end is gone."""
        self._end(self._cause_of(leg), self.upstream.idle_timeout_s)
        if leg.other.gone:
            self.registry.forget(self)
        else:
            leg.other.transport.close()

    def judge(self, now: float) -> None:
        """Judge the deadlines."""
        quiet = now - self.touched
        if self._deadline:
            if now >= self._deadline:
                self.abort()
        elif self._stalled(now):
            self.cause = self.cause or "stalled"
            self.abort()
        elif self.max_age_s is not None and now - self.began > self.max_age_s:
            self.close(GOING_AWAY, "max_age")
        elif self.expires_at is not None and now >= self.expires_at:
            self.close(UNAUTHORIZED, "token_expired")
        elif self.client.ended or self.upstream_end.ended:
            if quiet > (self.upstream.idle_timeout_s if self._unsent() else HALF_CLOSED_S):
                self.abort()
        elif self.idle_timeout_s is not None and quiet > self.idle_timeout_s:
            self.close(GOING_AWAY, "idle_timeout")

    def _stalled(self, now: float) -> bool:
        since = [leg.full_since for leg in (self.client, self.upstream_end) if leg.full_since]
        return bool(since) and now - min(since) > self.upstream.idle_timeout_s

    def _cause_of(self, leg: Leg) -> str:
        """The end of a leg after the upstream's close frame is an orderly one, whoever began it."""
        return "closed" if self._frames.closed else leg.name

    def _unsent(self) -> bool:
        """Bytes wait for a slow end."""
        return any(leg.transport.get_write_buffer_size() for leg in (self.client, self.upstream_end) if not leg.gone)

    def _end(self, cause: str, at_most_s: float) -> None:
        self.cause = self.cause or cause
        deadline = self.registry.loop.time() + at_most_s
        self._deadline = min(self._deadline or deadline, deadline)

    def _close_now(self) -> None:
        """Send the close frame that waits, if no frame is under way; read on, but pass nothing more down."""
        if self._frames.between:
            self.client.write(self._frame)
            self._frame, self._closed_by_us = b"", True
            self.upstream_end.resume()


AnyTunnel = TypeVar("AnyTunnel", bound=Tunnel)


class Tunnels:
    """Every open tunnel of this process.

    Attributes:
        open: How many are open, by route.
        closes: How many ended, by cause.
    """

    def __init__(self, *, max_age_s: float | None, idle_timeout_s: float | None) -> None:
        self.loop = asyncio.get_running_loop()
        self.open: Counter[str] = Counter()
        self.closes: Counter[str] = Counter()
        self._tunnels: set[Tunnel] = set()
        self._sweep_every_s = _SWEEP_S
        self.limit(max_age_s, idle_timeout_s)
        self._sweeper: asyncio.TimerHandle | None = None
        self._empty: asyncio.Future[None] | None = None

    def limit(self, max_age_s: float | None, idle_timeout_s: float | None) -> None:
        """Limit tunnels that begin from now on; open ones keep the limits they began with."""
        self.max_age_s = max_age_s
        self.idle_timeout_s = idle_timeout_s
        limits = [limit / 4 for limit in (max_age_s, idle_timeout_s) if limit is not None]
        self._sweep_every_s = max(0.02, min([self._sweep_every_s, *limits]))

    def begin(
        self, route: str, upstream: Upstream, client: asyncio.Transport, upstream_transport: asyncio.Transport
    ) -> Tunnel:
        """Register a tunnel between two transports; `Tunnel.start` sets it going."""
        return self.enter(Tunnel(self, route, upstream, client, upstream_transport))

    def enter(self, tunnel: AnyTunnel) -> AnyTunnel:
        """Register a tunnel, of whatever class."""
        route, upstream = tunnel.route, tunnel.upstream
        self._tunnels.add(tunnel)
        self.open[route] += 1
        upstream.tunnels += 1
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(self._sweep_every_s, self._sweep)
        return tunnel

    def forget(self, tunnel: Tunnel) -> None:
        """Both ends of a tunnel are gone."""
        self._tunnels.discard(tunnel)
        self.open[tunnel.route] -= 1
        self.closes[tunnel.cause or "client"] += 1
        tunnel.upstream.tunnels -= 1
        if tunnel.gone is not None:
            tunnel.gone()
        if not self._tunnels and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    async def drain(self, until: float) -> None:
        """Wait for tunnels to end by themselves, then close them with 1012, then cut what does not answer.

        Args:
            until: Loop time up to which they are left alone.
        """
        if not await self._emptied(until):
            for tunnel in tuple(self._tunnels):
                tunnel.close(SERVICE_RESTART, "drain")
            if not await self._emptied(self.loop.time() + REPLY_S):
                for tunnel in tuple(self._tunnels):
                    tunnel.abort()
                await self._emptied(self.loop.time() + REPLY_S)
        if self._sweeper is not None:
            self._sweeper.cancel()

    async def _emptied(self, until: float) -> bool:
        if self._tunnels:
            self._empty = self.loop.create_future()
            timer = self.loop.call_at(until, self._empty.cancel)
            await asyncio.wait((self._empty,))
            timer.cancel()
        return not self._tunnels

    def _sweep(self) -> None:
        now = self.loop.time()
        for tunnel in tuple(self._tunnels):
            tunnel.judge(now)
        self._sweeper = self.loop.call_later(self._sweep_every_s, self._sweep) if self._tunnels else None
