"""The aiohttp lane: own endpoints, and every request another lane does not want.

aiohttp's C parser reads requests and bodies; what it leaves to us is judged by the pipeline. Answers are written as
bytes on the connection's transport, so that both lanes answer alike.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, InvalidURLError, LineTooLong

from config.model import Limits
from gateway.actors.actor import Actor
from gateway.actors.beliefs import Caller
from gateway.answer import Answer
from gateway.api.endpoints import Call, Endpoint
from gateway.edge.arrival import Arrived, Incoming, new_request_id
from gateway.errors import (
    ContentTooLarge,
    CredentialRejected,
    GatewayError,
    HeadTimedOut,
    HeadTooLarge,
    PolicyDenied,
    RequestMalformed,
    TargetInvalid,
    UpstreamError,
)
from gateway.listen.aiohttp_connection import LaneConnection
from gateway.listen.own_body import read_whole
from gateway.listen.refusals import Refusals
from gateway.listen.relay import Relay
from gateway.listen.socketio_lane import Escort, SocketIoLane
from gateway.listen.written import Wake, Written
from gateway.live.registry import GRACE_S, Live, has_expired
from gateway.pipeline import Pipeline
from gateway.socketio.requests import read_engine_request
from gateway.telemetry.metrics import NO_ROUTE
from gateway.upstream.exchange import Exchange
from gateway.upstream.upgrade import Upgrade
from gateway.way import Departure, Way

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NO_VERSION, _VERSION = "Expected HTTP/", " HTTP/1."
"""What the parser says of a target with a blank in it, for it reads the rest as the version; and that one follows."""


class AiohttpLane:
    """Takes aiohttp's requests along the pipeline."""

    def __init__(self, pipeline: Pipeline, refusals: Refusals, limits: Limits, scheme: str) -> None:
        self._pipeline = pipeline
        self._refusals = refusals
        self._limits = limits
        self._scheme = scheme
        self._metrics = pipeline.rooms.metrics
        self._draining = False
        self._relays: dict[Relay, tuple[Exchange, Caller | None]] = {}
        pipeline.rooms.live.watch(self)
        self._kept = Written(keep_alive=True)
        self._closed = Written(keep_alive=False)
        self.socketio = SocketIoLane(self, lambda: self._limits.head_timeout)

    @property
    def pipeline(self) -> Pipeline:
        """In force now."""
        return self._pipeline

    def adopt(self, pipeline: Pipeline, refusals: Refusals, limits: Limits) -> None:
        """Serve every request from now on with these; those under way keep what they began with."""
        self._pipeline, self._refusals, self._limits = pipeline, refusals, limits

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; everything that can go wrong becomes an answer or a cut connection here."""
        started = time.perf_counter()
        incoming = _incoming(request, self._scheme)
        arrived: Arrived | None = None
        way: Way | None = None
        pipeline = self._pipeline
        try:
            self._check_size(incoming)
            arrived = pipeline.arrive(incoming)
            way = pipeline.direct(arrived)
            status, keep_alive = await self._answer(request, way, pipeline)
        except Exception as error:  # noqa: BLE001 - the outer edge: nothing may escape unanswered
            if request.transport is None:
                return self._closed  # the client is gone, whatever went wrong then
            answer = self._refusals.answer(error, incoming, arrived, way)
            status, keep_alive = answer.status, self._write(request, answer, incoming, arrived)
        label = way.rule.name if way is not None else NO_ROUTE
        self._metrics.answered(label, incoming.method, status, time.perf_counter() - started)
        if request.protocol.writing_paused:
            # The next request of this connection waits until the client took this answer: whoever pipelines
            # requests and reads nothing fills no memory.
            with suppress(ConnectionError):  # the client may go without having taken it
                await request.writer.drain()
        return self._kept if keep_alive else self._closed

    def drain(self) -> None:
        """Tell every client from now on, also those whose answer has not begun, that its connection ends."""
        self._draining = True
        for relay in self._relays:
            if not relay.started:
                relay.keep_alive = False

    def end_exchanges(self, fits: Callable[[Actor], bool], after_s: float) -> None:
        """Cut requests of actors that fit which are still under way after some seconds."""
        for relay, (exchange, caller) in self._relays.items():
            if caller is not None and fits(caller.actor):
                asyncio.get_running_loop().call_later(
                    after_s, _cut, exchange, relay, CredentialRejected("caller_ended")
                )

    def end_expired(self) -> None:
        """Cut the streams whose tokens are over."""
        for relay, (exchange, caller) in tuple(self._relays.items()):
            if caller is not None and relay.streams and has_expired(caller.actor.principal):
                _cut(exchange, relay, CredentialRejected("caller_ended"))

    def refuse_unread(self, request: web.BaseRequest, error: BaseException | None) -> web.StreamResponse:
        """Answer bytes that are no request; what the parser said of them stays with us (L01).

        aiohttp asks for this too when a handler failed, which is not the client's fault and must not be called that.
        """
        incoming = Incoming("", b"", (), _peer(request), self._scheme, new_request_id())
        refusal: Exception = RequestMalformed("grammar")
        if not isinstance(error, HttpProcessingError):
            refusal = error if isinstance(error, Exception) else TimeoutError()
        elif isinstance(error, LineTooLong) or "Too many headers" in str(error):
            refusal = HeadTooLarge()
        elif isinstance(error, InvalidURLError) or (_NO_VERSION in str(error) and _VERSION in str(error)):
            refusal = TargetInvalid("target_malformed")
        answer = self._refusals.answer(refusal, incoming, None, None)
        self._write(request, answer, incoming, None)
        self._metrics.answered(NO_ROUTE, "", answer.status, 0.0)
        return self._closed

    def refuse_late(self, transport: asyncio.Transport) -> None:
        """Answer a head that did not arrive in time."""
        incoming = Incoming("", b"", (), "", self._scheme, new_request_id())
        answer = self._refusals.answer(HeadTimedOut(), incoming, None, None)
        transport.write(answer.serialise(date=self._refusals.date(), is_head=False, close=True))
        self._metrics.answered(NO_ROUTE, "", answer.status, 0.0)

    async def _answer(self, request: web.BaseRequest, way: Way, pipeline: Pipeline) -> tuple[int, bool]:
        arrived = way.arrived
        if way.preflight is not None:
            return way.preflight.status, self._write(request, way.preflight, arrived.incoming, arrived)
        if way.rule.socketio and not way.asks_only and (engine := read_engine_request(arrived)) is not None:
            return await self.socketio.answer(request, way, engine)
        since = pipeline.rooms.live.ends
        with pipeline.rooms.lease:
            if not pipeline.known(way):
                await pipeline.resolve(way)
            if way.endpoint is not None:
                answer = await self._own(request, way, way.endpoint)
                return answer.status, self._write(request, answer, arrived.incoming, arrived)
        return await self.forward(request, way, pipeline.depart(way), since=since)

    async def _own(self, request: web.BaseRequest, way: Way, endpoint: Endpoint) -> Answer:
        async def read_body(cap: int) -> bytes:
            return await self.read_body(request, way, cap)

        call = Call(way.arrived, way.caller, read_body, endpoint.parameters(way.arrived.target.path))
        try:
            answer = await endpoint.handler(call)
        except PolicyDenied as error:
            if way.caller is not None:
                self._pipeline.rooms.witness.refused(way.caller.actor, way.arrived, way.rule, error)
            raise
        return self._refusals.with_cors(answer, way.arrived)

    async def read_body(self, request: web.BaseRequest, way: Way, cap: int) -> bytes:
        """Read a body whole.

        Args:
            request: Whose body nobody read.
            way: Its.
            cap: The most bytes.

        Raises:
            ContentTooLarge: It has more; otherwise as `read_whole`.
        """
        if (way.arrived.content_length or 0) > cap:
            raise ContentTooLarge
        self._invite_body(request, way)
        return await read_whole(request.content, cap, self._limits.head_timeout)

    def answered(self, request: web.BaseRequest, way: Way, answer: Answer) -> tuple[int, bool]:
        """Write an answer of our own; gives its status, and whether the connection lives on."""
        answer = self._refusals.with_cors(answer, way.arrived)
        return answer.status, self._write(request, answer, way.arrived.incoming, way.arrived)

    async def forward(
        self,
        request: web.BaseRequest,
        way: Way,
        departure: Departure,
        escort: Escort | None = None,
        *,
        since: int | None = None,
    ) -> tuple[int, bool]:
        """Send a request up, and its answer down.

        Args:
            request: Its body is read as it is sent, unless an escort sees to it.
            way: Its.
            departure: What goes up.
            escort: What a request of Socket.IO has beyond others.
            since: `Registry.ends` before its credential was checked.

        Returns:
            The status, and whether the client's connection lives on.

        Raises:
            GatewayError: What can still be told.
        """
        transport = request.transport
        if transport is None:
            raise ConnectionResetError
        started = time.perf_counter()
        arrived, content = way.arrived, request.content
        body_at_hand = escort is None and arrived.has_body and content.is_eof() and not arrived.head.chunked
        if body_at_hand:
            departure.head += content.read_nowait()
            departure.body_follows = False
        wake = Wake()
        streams = departure.body_follows
        relay = Relay(
            transport,
            http10=arrived.incoming.http10,
            keep_alive=not streams and self._lives_on(arrived),
            cors=departure.cors,
            changed=wake.set,
            lines=departure.lines,
        )
        live, registry, caller = None, self._pipeline.rooms.live, way.caller
        if departure.handshake is not None and caller is not None:
            # Before the upstream is asked: what is revoked meanwhile must not open.
            live = registry.enter(caller.actor, departure.handshake.connection_id, since)
        exchange = self._exchange(request, way, departure, relay, live, escort)
        # A websocket is in the registry itself.
        self._relays[relay] = exchange, caller if live is None else None
        if live is None and caller is not None and since is not None and registry.missed(caller.actor, since):
            asyncio.get_running_loop().call_later(GRACE_S, _cut, exchange, relay, CredentialRejected("caller_ended"))
        pump: asyncio.Task[None] | None = None
        try:
            exchange.start()
            if escort is not None:
                escort.begins(lambda error: _cut(exchange, relay, error))
            if streams:
                pump = asyncio.create_task(self._pump(request, way, exchange, relay))
            while not relay.finished:
                await wake.wait()
                if relay.congested and not relay.finished:
                    exchange.pause()
                    await request.writer.drain()
                    exchange.resume()
        finally:
            del self._relays[relay]
            exchange.abort()
            if escort is not None:
                escort.ends()
            if live is not None and live.under_way:
                live.leave()
            if pump is not None:
                pump.cancel()
        self._metrics.upstream_durations.observe(departure.upstream.name, time.perf_counter() - started)
        if way.rule.track is not None and relay.error is None:
            self._pipeline.rooms.usage.note(way.rule.track, way.caller, relay.status)
        return relay.status, self._concluded(relay, departure)

    def _exchange(
        self,
        request: web.BaseRequest,
        way: Way,
        departure: Departure,
        relay: Relay,
        live: Live | None,
        escort: Escort | None,
    ) -> Exchange:
        """One exchange; for a websocket handshake one that takes this connection along when the upstream switches."""
        upstream, handshake = departure.upstream, departure.handshake
        if handshake is None:
            return Exchange(upstream, departure, relay if escort is None else escort.sink(relay))

        def switched(upstream_transport: asyncio.Transport, head: bytes, rest: bytes) -> None:
            client, early = cast(LaneConnection, request.protocol).detach()
            if client is None:
                upstream_transport.abort()
                return
            if escort is not None:
                tunnel = escort.tunnel(client, upstream_transport)
            else:
                tunnel = self._pipeline.rooms.tunnels.begin(way.rule.name, upstream, client, upstream_transport)
            tunnel.start(head, early, rest)
            if live is not None:
                live.attach(tunnel)
            relay.switched()

        return Upgrade(upstream, departure, relay, handshake, switched)

    def _concluded(self, relay: Relay, departure: Departure) -> bool:
        """Raise what can still be told, cut what cannot; True when the connection lives on."""
        if isinstance(relay.error, UpstreamError):
            self._metrics.upstream_failed(departure.upstream.name, relay.error.reason)
        if relay.error is not None and not relay.started:
            raise relay.error
        return relay.keep_alive

    async def _pump(self, request: web.BaseRequest, way: Way, exchange: Exchange, relay: Relay) -> None:
        """Send the request's body as it arrives, as fast as the upstream takes it."""
        if not await exchange.connected():
            return
        if not relay.started:  # between the pieces of an answer it would be read as part of it
            self._invite_body(request, way)
        try:
            async for piece in request.content.iter_any():
                framed = b"%x\r\n%b\r\n" % (len(piece), piece) if way.arrived.head.chunked else piece
                if not await exchange.send(framed):
                    return
        except (web.RequestPayloadError, ValueError):
            exchange.abort()
            relay.failed(RequestMalformed("body_grammar"))
            return
        except ConnectionError:
            return  # the client is gone; its handler is being cancelled
        if way.arrived.head.chunked:
            await exchange.send(b"0\r\n\r\n")
        exchange.sent()
        if not relay.started:  # else the client was told already that this connection ends
            relay.keep_alive = self._lives_on(way.arrived)

    def _invite_body(self, request: web.BaseRequest, way: Way) -> None:
        """Say 100 now that the credential passed, to a client that waits for it (RFC 9110 §10.1.1)."""
        arrived = way.arrived
        if not arrived.head.continue_wanted or arrived.incoming.http10 or request.content.is_eof():
            return
        if request.transport is not None:
            request.transport.write(_CONTINUE)

    def _check_size(self, incoming: Incoming) -> None:
        if _head_size(incoming) > self._limits.head_bytes or len(incoming.fields) > self._limits.head_fields:
            raise HeadTooLarge

    def _lives_on(self, arrived: Arrived) -> bool:
        """Tell whether the connection may carry another request.

        What follows a declined upgrade may be of the other protocol: it is not read as HTTP.
        """
        return arrived.keep_alive and arrived.head.upgrade is None and not self._draining

    def _write(self, request: web.BaseRequest, answer: Answer, incoming: Incoming, arrived: Arrived | None) -> bool:
        """Write an answer of our own; True when the connection lives on."""
        transport = request.transport
        if transport is None:
            return False
        keep_alive = False
        if arrived is not None and not answer.close:
            keep_alive = self._lives_on(arrived) and request.content.is_eof()
        transport.write(
            answer.serialise(
                date=self._refusals.date(),
                is_head=incoming.method == "HEAD",
                close=not keep_alive,
                http10=incoming.http10,
            )
        )
        return keep_alive


def _cut(exchange: Exchange, relay: Relay, error: GatewayError) -> None:
    """End an exchange whose caller may not have its answer any more."""
    if not relay.finished:
        exchange.abort()
        relay.failed(error)


def _head_size(incoming: Incoming) -> int:
    """Bytes of the head, to within a few dozen."""
    return len(incoming.target) + 4 * len(incoming.fields) + sum(map(len, chain.from_iterable(incoming.fields)))


def _incoming(request: web.BaseRequest, scheme: str) -> Incoming:
    version = request.version
    return Incoming(
        request.method,
        request.raw_path.encode("utf-8", "surrogateescape"),
        request.raw_headers,
        _peer(request),
        scheme,
        new_request_id(),
        http10=version == (1, 0),
        version_known=version in ((1, 0), (1, 1)),
    )


def _peer(request: web.BaseRequest) -> str:
    peername = request.protocol.peername
    return peername[0] if isinstance(peername, tuple) else ""
