"""Requests of Engine.IO in the aiohttp lane: websockets whose packets are judged, and polling.

A polling client posts packets and is told others in the answers to its GETs. A GET waits here until a namespace is
admitted, so that a refusal can be answered at once; later refusals are the answer to the client's next GET.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from gateway.answer import NO_STORE, Answer
from gateway.edge.arrival import Arrived, new_request_id
from gateway.errors import (
    ContentTypeUnsupported,
    EngineRequestRefused,
    EngineSessionUnknown,
    GatewayError,
    VerifierUnavailable,
)
from gateway.listen.relay import Relay
from gateway.listen.written import Wake
from gateway.pipeline import Pipeline
from gateway.socketio.admission import admit, check_origin
from gateway.socketio.packets import CONNECT_CAP, SEPARATOR, Kind, PacketRefused, opened_session, read_packet
from gateway.socketio.requests import EngineRequest, going_up
from gateway.socketio.session import Session
from gateway.socketio.sessions import Sessions
from gateway.socketio.tunnel import PROTOCOL, UNAVAILABLE, SocketTunnel
from gateway.upstream.answer import AnswerHead, AnswerSink
from gateway.upstream.tunnel import Tunnel
from gateway.way import Departure, Way

PAYLOAD_CAP = 1024 * 1024
"""Bytes of one POST: what servers of Engine.IO take unless they are told otherwise, and a little more."""
PACKETS_CAP = 10_000
"""Packets of one POST, which are read in one go: about ten milliseconds of the loop's time."""
_OPENING_CAP = 4096
_TEXT = (b"Content-Type", b"text/plain; charset=UTF-8")
_BINARY_MARK = b"b"


class Escort(Protocol):
    """What goes with an exchange of Socket.IO."""

    def sink(self, relay: Relay) -> AnswerSink:
        """Where its answer goes."""

    def begins(self, cut: Callable[[GatewayError], None]) -> None:
        """It is under way, and may be cut."""

    def ends(self) -> None:
        """It is over."""

    def tunnel(self, client: asyncio.Transport, upstream: asyncio.Transport) -> Tunnel:
        """Make the tunnel of a websocket."""


class Lane(Protocol):
    """What this one needs of the lane it is part of."""

    @property
    def pipeline(self) -> Pipeline:
        """In force now."""

    async def read_body(self, request: web.BaseRequest, way: Way, cap: int) -> bytes:
        """Read a body whole."""

    def answered(self, request: web.BaseRequest, way: Way, answer: Answer) -> tuple[int, bool]:
        """Write an answer of our own."""

    async def forward(
        self, request: web.BaseRequest, way: Way, departure: Departure, escort: Escort
    ) -> tuple[int, bool]:
        """Send a request up, and its answer down."""


class SocketIoLane:
    """Takes requests of Engine.IO along."""

    def __init__(self, lane: Lane, connect_within_s: Callable[[], float]) -> None:
        """Begin without a session.

        Args:
            lane: Reads, writes and forwards.
            connect_within_s: The longest a client may stay without a namespace, for connections from now on.
        """
        self._lane = lane
        self._connect_within_s = connect_within_s
        self.sessions = Sessions()

    async def answer(self, request: web.BaseRequest, way: Way, engine: EngineRequest) -> tuple[int, bool]:
        """Answer one request.

        Returns:
            The status, and whether the client's connection lives on.

        Raises:
            GatewayError: It is refused, or cannot be carried out now.
        """
        arrived, rooms = way.arrived, self._lane.pipeline.rooms
        rooms.metrics.claims_dropped += arrived.head.fields.claims
        check_origin(rooms, arrived, way.rule)
        if not engine.websocket and way.rule.upstream not in rooms.polled:
            raise EngineRequestRefused("polling_off")
        session = None
        if engine.sid is not None:
            session = self.sessions.find(engine.sid, way.rule.upstream, arrived.target.path)
        if engine.websocket:
            return await self._websocket(request, way, session)
        if session is None:
            return await self._open(request, way)
        with session.request(arrived.incoming.method):
            if arrived.incoming.method == "POST":
                return await self._post(request, way, session)
            return await self._poll(request, way, session)

    async def _websocket(self, request: web.BaseRequest, way: Way, session: Session | None) -> tuple[int, bool]:
        departure = self._departure(way, None)
        if departure.handshake is None:
            raise EngineRequestRefused("transport")
        if session is None:
            session = self._session(way, departure.handshake.connection_id, probing=False)
        elif session.closes is not None:
            raise EngineRequestRefused("websocket_doubled")
        with session.request("websocket"):  # two handshakes at once would be two websockets, of which one is ended
            return await self._lane.forward(request, way, departure, _Passage(self, way.arrived, session, departure))

    async def _open(self, request: web.BaseRequest, way: Way) -> tuple[int, bool]:
        if self.sessions.full:
            raise VerifierUnavailable("socketio_sessions_full", retry_after_s=10)
        session = self._session(way, new_request_id(), probing=True)
        departure = self._departure(way, None)
        return await self._lane.forward(
            request, way, departure, _Opening(self.sessions, session, self._lane.pipeline.rooms.tunnels.max_age_s)
        )

    async def _poll(self, request: web.BaseRequest, way: Way, session: Session) -> tuple[int, bool]:
        wake = Wake()
        session.listeners.add(wake.set)
        try:
            while session.ended is None and not session.answers and not session.talks and session.closes is None:
                await wake.wait()
        finally:
            session.listeners.discard(wake.set)
        if session.answers and session.probing and session.ended is None:
            return self._lane.answered(
                request, way, Answer(200, (_TEXT, NO_STORE), SEPARATOR.join(session.take_answers()))
            )
        if session.ended is not None or not session.probing:
            raise EngineSessionUnknown
        return await self._lane.forward(request, way, self._departure(way, None), _Polling(session))

    async def _post(self, request: web.BaseRequest, way: Way, session: Session) -> tuple[int, bool]:
        if any(name.lower() == b"content-encoding" for name, _ in way.arrived.incoming.fields):
            raise ContentTypeUnsupported  # some servers would decode what nobody judged
        payload = await self._lane.read_body(request, way, PAYLOAD_CAP if session.admitted else CONNECT_CAP)
        try:
            passing = await self._judge(way.arrived, session, payload)
        except PacketRefused as error:
            session.leave(PROTOCOL)
            raise EngineRequestRefused(error.reason) from error
        except VerifierUnavailable:
            session.leave(UNAVAILABLE)  # whoever posts again in vain connects anew
            raise
        if session.ended is not None:
            raise EngineSessionUnknown
        if not passing:
            return self._lane.answered(request, way, Answer(200, (_TEXT, NO_STORE), b"ok"))
        departure = self._departure(way, len(passing))
        departure.head += passing
        return await self._lane.forward(request, way, departure, _Polling(session))

    async def _judge(self, arrived: Arrived, session: Session, payload: bytes) -> bytes:
        """Judge each packet of a payload; gives what may pass.

        Raises:
            PacketRefused: One that no client sends.
            VerifierUnavailable: Nobody can tell now.
        """
        passing = []
        parts = payload.split(SEPARATOR, PACKETS_CAP)
        if len(parts) > PACKETS_CAP:
            raise PacketRefused("packets_too_many")
        for part in parts:
            text: bytes | None = part
            if part[:1] == _BINARY_MARK:
                session.weigh_binary()
            else:
                packet = read_packet(part, whole=True)
                if packet is None or packet.kind is Kind.UPGRADE:
                    raise PacketRefused("packet_malformed")
                session.weigh(packet)
                if packet.kind is Kind.CONNECT:
                    text = await admit(self._lane.pipeline, arrived, session, part)
            if text is not None:
                passing.append(text)
        return SEPARATOR.join(passing)

    def _session(self, way: Way, name: str, *, probing: bool) -> Session:
        return Session(
            name,
            way.rule.name,
            way.rule.upstream,
            way.arrived.target.path,
            self.sessions.loop.time,
            connect_within_s=self._connect_within_s(),
            probing=probing,
        )

    def _departure(self, way: Way, length: int | None) -> Departure:
        departure = self._lane.pipeline.depart(Way(going_up(way.arrived, length=length), way.rule))
        departure.body_follows = False
        return departure

    def tunnel(
        self, session: Session, arrived: Arrived, departure: Departure, client: asyncio.Transport, up: asyncio.Transport
    ) -> Tunnel:
        """Make the tunnel of a websocket whose upstream switched."""

        def judged(session: Session, text: bytes) -> Awaitable[bytes | None]:
            return admit(self._lane.pipeline, arrived, session, text)

        tunnels = self._lane.pipeline.rooms.tunnels
        return tunnels.enter(SocketTunnel(tunnels, departure.upstream, client, up, session, judged))


class _Polling:
    """A polling request: over as soon as its session is."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._cut: Callable[[GatewayError], None] | None = None

    def sink(self, relay: Relay) -> AnswerSink:
        return relay

    def begins(self, cut: Callable[[GatewayError], None]) -> None:
        self._cut = cut
        self._session.listeners.add(self._changed)

    def ends(self) -> None:
        self._session.listeners.discard(self._changed)

    def tunnel(self, client: asyncio.Transport, upstream: asyncio.Transport) -> Tunnel:
        raise NotImplementedError  # no upstream switches that was not asked to

    def _changed(self) -> None:
        if self._session.ended is not None and self._cut is not None:
            self._cut(EngineSessionUnknown())


class _Opening(_Polling):
    """The GET that opens a session: its answer names it."""

    def __init__(self, sessions: Sessions, session: Session, max_age_s: float | None) -> None:
        super().__init__(session)
        self._sessions = sessions
        self._max_age_s = max_age_s

    def sink(self, relay: Relay) -> AnswerSink:
        return OpeningSink(relay, self._opened)

    def _opened(self, answer: bytes) -> None:
        opened = opened_session(answer)
        if opened is not None:
            self._sessions.enter(opened[0], self._session, opened[1], self._max_age_s)


class _Passage(_Polling):
    """A websocket's handshake."""

    def __init__(self, lane: SocketIoLane, arrived: Arrived, session: Session, departure: Departure) -> None:
        super().__init__(session)
        self._lane = lane
        self._arrived = arrived
        self._departure = departure

    def tunnel(self, client: asyncio.Transport, upstream: asyncio.Transport) -> Tunnel:
        return self._lane.tunnel(self._session, self._arrived, self._departure, client, upstream)


class OpeningSink:
    """Passes an answer on, and tells its beginning once it is there."""

    def __init__(self, relay: Relay, opened: Callable[[bytes], None]) -> None:
        """Take the way on.

        Args:
            relay: Where the answer goes.
            opened: Told the body of a 200, its first 4 KiB, before the client has all of it.
        """
        self._relay = relay
        self._opened = opened
        self._status = 0
        self._begun = b""

    def whole(self, head: AnswerHead, body: bytes) -> None:
        """An answer that came at once."""
        if head.status == 200:
            self._opened(body[:_OPENING_CAP])
        self._relay.whole(head, body)

    def head(self, head: AnswerHead) -> None:
        """The head."""
        self._status = head.status
        self._relay.head(head)

    def body(self, data: bytes) -> None:
        """A piece of the body."""
        self._begun += data[: _OPENING_CAP - len(self._begun)]
        self._relay.body(data)

    def end(self) -> None:
        """The body is complete."""
        if self._status == 200:
            self._opened(self._begun)
        self._relay.end()

    def flush(self) -> None:
        """As the relay."""
        self._relay.flush()

    def done(self) -> None:
        """As the relay."""
        self._relay.done()

    def failed(self, error: GatewayError) -> None:
        """As the relay."""
        self._relay.failed(error)
