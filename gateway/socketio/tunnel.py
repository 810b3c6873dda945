"""The tunnel of a Socket.IO client: what it says is judged, message by message; what it is told passes as it comes.

While a CONNECT is judged nothing is read from the client, so that packets keep their order and nothing piles up.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import structlog

from gateway.errors import VerifierUnavailable
from gateway.socketio.frames import FrameReader, Held, Verdict, client_close, client_text, server_text
from gateway.socketio.packets import Kind, PacketRefused, read_packet
from gateway.socketio.session import Session
from gateway.upstream.pool import Upstream
from gateway.upstream.tunnel import ClientLeg, Tunnel, Tunnels

POLICY_VIOLATION = 1008
TRY_AGAIN_LATER = 1013
CONNECT_TIMEOUT = "connect_timeout"
PROTOCOL = "protocol"
UNAVAILABLE = "unavailable"
Admit = Callable[[Session, bytes], Awaitable[bytes | None]]
"""Judges a CONNECT packet: `admission.admit`, for this connection."""
PIECES_PER_TURN = 1000
"""Frames, or parts of such, that are read before others have their turn: a flood of tiny ones is 40,000 a read."""
_log = structlog.get_logger()


class GatedLeg(ClientLeg):
    """The client's end, not read while a packet of its is judged."""

    __slots__ = ()

    def resume(self) -> None:
        """Read from the client again, unless a packet is being judged."""
        if not cast(SocketTunnel, self.tunnel).judging:
            super().resume()


class SocketTunnel(Tunnel):
    """A websocket that Engine.IO packets go through."""

    __slots__ = ("_admit", "_admitting", "_deaf", "_reader", "_rest", "_session")

    def __init__(
        self,
        registry: Tunnels,
        upstream: Upstream,
        client: asyncio.Transport,
        upstream_transport: asyncio.Transport,
        session: Session,
        admit: Admit,
    ) -> None:
        """Make it of two transports; `start` sets it going.

        Args:
            registry: Of all tunnels.
            upstream: Where it leads.
            client: The client's transport.
            upstream_transport: The upstream's.
            session: What the client may send.
            admit: Judges a CONNECT.
        """
        self._session = session
        self._admit = admit
        self._admitting: asyncio.Task[None] | None = None
        self._rest: asyncio.Handle | None = None  # reads what this turn was too short for
        self._deaf = False
        self._reader = FrameReader(self._judge)
        super().__init__(registry, session.route, upstream, client, upstream_transport)
        session.closes, self.gone = self.close, self._left
        session.listeners.add(self._answer)
        session.tell()

    @property
    def judging(self) -> bool:
        """A CONNECT is under way, or more is here than was read."""
        return self._admitting is not None or self._rest is not None

    def make_client_leg(self, transport: asyncio.Transport) -> ClientLeg:
        """Make the client's end."""
        return GatedLeg(self, transport)

    def up(self, data: bytes) -> None:
        """Judge what the client says, and pass what may pass."""
        if not self._deaf:
            self._reader.feed(data)
            if self._rest is None:
                self._advance()

    def close(self, code: int, cause: str) -> None:
        """End from our side: nothing of the client's goes up any more, not even while it takes its leave."""
        if not self._deaf:
            self._deaf = True
            if self._reader.between and not self._reader.closed:  # else the upstream is left to the deadline
                self.upstream_end.write(client_close(code))
        super().close(code, cause)

    def judge(self, now: float) -> None:
        """Judge the deadlines, the namespaces' among them."""
        self.expires_at = self._session.expires_at
        if self._session.silent:
            self.close(POLICY_VIOLATION, CONNECT_TIMEOUT)
        super().judge(now)

    def down(self, data: bytes) -> None:
        """Pass bytes to the client, with answers of ours between its messages."""
        while data and self._may_answer:
            followed = self._frames.advance(data, to_boundary=True)
            self.client.write(data[:followed])
            data = data[followed:]
            self._answer()
        super().down(data)

    @property
    def _may_answer(self) -> bool:
        return bool(self._session.answers) and not self._session.probing and not self._deaf and not self._frames.closed

    def _answer(self) -> None:
        if self._may_answer and self._frames.between and not self._frames.unfinished:
            for packet in self._session.take_answers():
                self.client.write(server_text(packet))

    def _judge(self, text: bytes, whole: bool, binary: bool) -> Verdict | None:
        session = self._session
        if binary:
            if session.probing:
                raise PacketRefused("probe_expected")
            session.weigh_binary()
            return Verdict.PASS
        packet = read_packet(text, whole=whole)
        if packet is None:
            return None
        if session.probing and packet.kind not in (Kind.ENGINE, Kind.CLOSE, Kind.UPGRADE):
            raise PacketRefused("probe_expected")
        session.weigh(packet)
        if packet.kind is Kind.UPGRADE and session.probing:
            session.probing = False
            session.tell()
        return Verdict.HOLD if packet.kind is Kind.CONNECT else Verdict.PASS

    def _advance(self) -> None:
        """Read on, up to a CONNECT."""
        passing: list[bytes] = []
        refused: PacketRefused | None = None
        try:
            for _ in range(PIECES_PER_TURN):
                if self._admitting is not None or (taken := self._reader.take()) is None:
                    break
                if isinstance(taken, Held):
                    self._hold(taken.text)
                else:
                    passing.append(taken)
            else:
                self._put_off()
        except PacketRefused as error:
            refused = error
        if passing:
            self.upstream_end.write(b"".join(passing))
        if refused is not None:
            self._refuse(refused)

    def _put_off(self) -> None:
        """Let others have their turn before the rest of what is here is read."""
        if self._admitting is None:
            self._pause()
            self._rest = self.registry.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._rest = None
        if not self._deaf and not self.upstream_end.gone:
            self._advance()
            if not self.upstream_end.full_since:
                self.client.resume()

    def _hold(self, text: bytes) -> None:
        self._pause()
        self._admitting = self.registry.loop.create_task(self._admitted(text))

    def _pause(self) -> None:
        if not self.client.ended and not self.client.transport.is_closing():
            self.client.transport.pause_reading()

    async def _admitted(self, text: bytes) -> None:
        """Judge a CONNECT, and go on."""
        packet: bytes | None = None
        try:
            packet = await self._admit(self._session, text)
        except PacketRefused as error:
            self._refuse(error)
        except VerifierUnavailable as error:
            _log.warning("socket.io connect failed", reason=error.reason, route=self.route)
            self.close(TRY_AGAIN_LATER, UNAVAILABLE)
        except Exception:  # noqa: BLE001 - the outer edge: nobody else would hear of it
            _log.exception("socket.io connect failed", route=self.route)
            self.close(TRY_AGAIN_LATER, UNAVAILABLE)
        self._admitting = None
        if self._deaf or self.upstream_end.gone or self.client.ended:
            return
        if packet is not None:
            self.upstream_end.write(client_text(packet))
        self._advance()
        if not self.upstream_end.full_since:
            self.client.resume()

    def _refuse(self, error: PacketRefused) -> None:
        _log.info("socket.io packet refused", reason=error.reason, route=self.route)
        self.close(POLICY_VIOLATION, PROTOCOL)

    def _left(self) -> None:
        """Both ends are gone; a session whose websocket did not take over goes on with polling."""
        session = self._session
        session.closes = None
        session.listeners.discard(self._answer)
        if self._admitting is not None:
            self._admitting.cancel()
        if self._rest is not None:
            self._rest.cancel()
        if not session.probing:
            session.leave(self.cause or "client")
