"""The whole way of a request, in plain values: start reading here.

    arrive    judge what came: fields, host, target, framing                                      pure
    direct    find the own endpoint or the route                                                  pure
    known     find what was presented and answer from the near cache; None on any miss, never waits
    resolve   the same with waiting: verify, find or create the person
    depart    build the head the upstream receives                                                pure

Both lanes share all of it. Everything refused is raised (`errors.py`); `problems.py` says how HTTP tells it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.actors.beliefs import Caller
from gateway.actors.callers import Callers
from gateway.answer import Answer
from gateway.api.endpoints import Endpoint, Endpoints
from gateway.credentials.find import find_credentials
from gateway.credentials.kinds import Carrier, Credential, digest_of
from gateway.credentials.session_cookie import NO_SESSION_TOKEN, CookieRules
from gateway.edge import slots
from gateway.edge.arrival import Arrived, Incoming, arrive
from gateway.edge.forwarded import ForwardingTrust
from gateway.edge.handshake import Handshake, judge_handshake
from gateway.errors import (
    CredentialConflict,
    CredentialMissing,
    CredentialRejected,
    GatewayError,
    HostUnknown,
    PolicyDenied,
    RouteUnknown,
    TargetInvalid,
    VerifierUnavailable,
)
from gateway.identity.assertion import Assertions
from gateway.identity.header_set import ANONYMOUS_BLOCK
from gateway.identity.request_head import request_head
from gateway.parts import Lease
from gateway.policy.cors import Cors
from gateway.policy.cross_site import check_cross_site
from gateway.policy.decision import decide
from gateway.policy.routes import Auth, CompiledRoute, RouteTable
from gateway.telemetry.metrics import Metrics
from gateway.upstream.exchange import OutgoingRequest
from gateway.upstream.pool import Upstream
from gateway.upstream.tunnel import Tunnels
from gateway.verify.principal import Principal

# Members of an Enum cost eight times a module's constant to read (CPython 3.11).
_HEADER, _NO_AUTH = Carrier.HEADER, Auth.NONE
_REPLAYABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the pipeline walks through; built by `composition.py`, anew at every reload.

    Attributes:
        hosts: Host names served; empty serves any.
        issuers: Exact `iss` of the sessions taken here.
        own_origins: Origins a cookie credential may come from (`policy/cross_site.py`).
        clock: Unix seconds.
        lease: Entered by whoever waits in here for keys or records, so that they are closed after the last alone.
    """

    hosts: frozenset[str]
    trust: ForwardingTrust
    endpoints: Endpoints
    routes: RouteTable
    cookie_rules: CookieRules
    callers: Callers
    cors: Cors
    issuers: frozenset[str]
    own_origins: frozenset[bytes]
    upstreams: Mapping[str, Upstream]
    assertions: Assertions
    tunnels: Tunnels
    metrics: Metrics
    clock: Callable[[], float]
    lease: Lease


class Way:
    """A judged request and where it leads.

    Attributes:
        rule: The route, or the rule of the own endpoint: who may pass.
        endpoint: None for a proxied request.
        preflight: The answer, when the gateway answers this preflight itself.
        asks_only: A preflight for the upstream to answer: passes as nobody, whatever the rule.
        credentials: What was presented of our kinds, the one that counts first; empty for anonymous.
        caller: Who passed; None for an anonymous request, and before `known` or `resolve` let it pass.
    """

    __slots__ = ("arrived", "asks_only", "caller", "credentials", "endpoint", "preflight", "rule")

    def __init__(
        self,
        arrived: Arrived,
        rule: CompiledRoute,
        endpoint: Endpoint | None = None,
        preflight: Answer | None = None,
        asks_only: bool = False,
    ) -> None:
        self.arrived = arrived
        self.rule = rule
        self.endpoint = endpoint
        self.preflight = preflight
        self.asks_only = asks_only
        self.credentials: tuple[Credential, ...] = ()
        self.caller: Caller | None = None


class Departure(OutgoingRequest):
    """What to send where.

    Attributes:
        upstream: Where.
        cors: Field lines for the answer, in case the upstream sends none of its own.
        handshake: What a 101 is held against; None for a plain request.
    """

    __slots__ = ("cors", "handshake", "upstream")

    def __init__(
        self,
        head: bytes,
        is_head: bool,
        replayable: bool,
        body_follows: bool,
        upstream: Upstream,
        cors: bytes,
        handshake: Handshake | None,
    ) -> None:
        super().__init__(head, is_head, replayable, body_follows)
        self.upstream = upstream
        self.cors = cors
        self.handshake = handshake


class Pipeline:
    """The way through the rooms."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms

    def arrive(self, incoming: Incoming) -> Arrived:
        """Judge the request's head.

        Raises:
            RequestMalformed: And its kin: a part that cannot stand.
            HostUnknown: A host that is not served here.
        """
        arrived = arrive(incoming, self.rooms.trust)
        if self.rooms.hosts and arrived.host.name not in self.rooms.hosts:
            raise HostUnknown
        return arrived

    def direct(self, arrived: Arrived) -> Way:
        """Find where the request leads.

        Raises:
            RouteUnknown: Nowhere.
            TargetInvalid: Somewhere else once decoded.
            MethodRefused: To an own endpoint without this method.
        """
        rooms, method, target = self.rooms, arrived.incoming.method, arrived.target
        requested = arrived.fields.lifted[slots.REQUESTED_METHOD] if method == "OPTIONS" else None
        if requested is not None:
            return self._direct_preflight(arrived, requested)
        # Own endpoints first, then the first route that matches; nothing else is open.
        endpoint = rooms.endpoints.find(method, target.path)
        if endpoint is not None:
            return Way(arrived, endpoint.rule, endpoint)
        if "%" in target.path and target.decoded_path in rooms.endpoints:
            raise TargetInvalid("path_ambiguous")
        route = rooms.routes.find(method, arrived.head.host.name, target)
        if route is None:
            raise RouteUnknown
        return Way(arrived, route)

    def known(self, way: Way) -> bool:
        """Let the request pass from memory alone; False when somebody must be asked.

        Raises:
            CredentialMissing: Nothing of our kinds, where something is demanded.
            CredentialMalformed: A credential field that cannot be read.
            CredentialConflict: Two good credentials of different people.
            PolicyDenied: Known, and may not.
        """
        callers, rule, head = self.rooms.callers, way.rule, way.arrived.head
        # Counted here, because a request comes by once; a lane may judge a head and then hand it to the other.
        self.rooms.metrics.claims_dropped += head.fields.claims
        if way.asks_only or rule.auth is _NO_AUTH:
            return self._pass(way, None)
        digest = _lone_bearer(way.arrived)
        if digest is not None:
            seen = way.arrived.incoming.seen
            caller = callers.known(digest) if seen is None else callers.recalled(seen, digest)
            if caller is not None:
                principal = caller.actor.principal
                if principal.kind in rule.accepts:
                    if not rule.demands_nothing or principal.pending:
                        return self._pass(way, caller)
                    self.rooms.metrics.decided(principal.kind, "allowed", "ok")
                    way.caller = caller
                    return True
        way.credentials = self._presented(way)
        if not way.credentials:
            return self._pass(way, None)
        if any(found.refusal is not None for found in way.credentials):
            return False
        caller = callers.known(way.credentials[0].digest)
        if caller is None:
            return False
        for lesser in way.credentials[1:]:
            other = callers.known_principal(lesser.digest)
            if other is None:
                return False
            _check_same_person(caller.actor.principal, other)
        return self._pass(way, caller)

    async def resolve(self, way: Way) -> None:
        """Let the request pass after asking whoever must be asked, once `known` could not tell.

        Raises:
            CredentialRejected: Checked and bad.
            CredentialConflict: Two good ones of different people.
            VerifierUnavailable: Keys or records cannot be asked now.
            PolicyDenied: Known, and may not; ActorUnknown likewise.
        """
        credentials = way.credentials
        try:
            caller = await self.rooms.callers.resolve(credentials[0], way.rule)
            for lesser in credentials[1:]:
                try:
                    other = await self.rooms.callers.prove(lesser)
                except (CredentialRejected, VerifierUnavailable):
                    continue  # a lesser one that is stale or invalid is ignored
                _check_same_person(caller.actor.principal, other)
        except GatewayError as error:
            outcome = "unavailable" if isinstance(error, VerifierUnavailable) else "denied"
            self.rooms.metrics.decided(credentials[0].kind, outcome, error.reason)
            raise
        self._pass(way, caller)

    def depart(self, way: Way) -> Departure:
        """Build what the upstream receives; the only identity in it is ours.

        Raises:
            HandshakeMalformed: It asks for a websocket, but not as RFC 6455 has it.
            WebsocketVersionUnsupported: In another version.
            StoreUnavailable: There is no key yet to sign the assertion with.
        """
        arrived, rule, caller = way.arrived, way.rule, way.caller
        head, method, length = arrived.head, arrived.incoming.method, arrived.content_length
        handshake = judge_handshake(arrived) if head.upgrade is not None else None
        identity = ANONYMOUS_BLOCK
        if caller is not None:
            identity = caller.identity + self.rooms.assertions.line(caller, rule.upstream)
        data = request_head(arrived, rule, identity, length, self.rooms.issuers, upgrades=handshake is not None)
        has_body = head.chunked or bool(length)
        return Departure(
            data,
            method == "HEAD",
            not has_body and method in _REPLAYABLE,
            has_body,
            self.rooms.upstreams[rule.upstream],
            self._cors_lines(way) if head.fields.lifted[slots.ORIGIN] is not None else b"",
            handshake,
        )

    def _direct_preflight(self, arrived: Arrived, requested: bytes) -> Way:
        """A browser asks before it sends; it brings no credential, and gets none of anybody's identity."""
        rooms, target = self.rooms, arrived.target
        rule = rooms.endpoints.rule_of(target.path)
        if rule is None:
            rule = rooms.routes.find(requested.decode("latin-1"), arrived.host.name, target)
            if rule is None:
                raise RouteUnknown
            if rule.cors_upstream:
                return Way(arrived, rule, asks_only=True)
        return Way(arrived, rule, preflight=self._preflight(arrived, requested))

    def _preflight(self, arrived: Arrived, requested: bytes) -> Answer:
        fields = self.rooms.cors.preflight(
            arrived.fields.lifted[slots.ORIGIN], requested, arrived.fields.all(slots.REQUESTED_HEADERS)
        )
        if fields is None:
            raise PolicyDenied("origin_not_allowed")
        return Answer(204, fields)

    def _presented(self, way: Way) -> tuple[Credential, ...]:
        fields, rule = way.arrived.fields, way.rule
        found = find_credentials(
            way.arrived.authorization,
            fields.lifted[slots.API_KEY],
            fields.all(slots.COOKIE),
            self.rooms.cookie_rules,
            self.rooms.clock(),
        )
        if rule.auth is Auth.OPTIONAL:
            # A sign of a session elsewhere is not a credential: the browser of somebody signed out carries it too.
            found = tuple(credential for credential in found if credential.refusal != NO_SESSION_TOKEN)
        if not found:
            if rule.auth is Auth.REQUIRED:
                self.rooms.metrics.decided("none", "denied", "credential_missing")
                raise CredentialMissing
            return ()
        if found[0].kind not in rule.accepts:
            self.rooms.metrics.decided(found[0].kind, "denied", "kind_not_accepted")
            raise CredentialRejected("kind_not_accepted")
        return tuple(credential for credential in found if credential.kind in rule.accepts)

    def _pass(self, way: Way, caller: Caller | None) -> bool:
        """Judge policy; every request comes through here, cached or not. Gives True."""
        metrics, rule = self.rooms.metrics, way.rule
        if caller is None:
            if not way.asks_only:
                self._check_anonymous(rule)
            metrics.decided("none", "anonymous", "ok")
            return True
        principal = caller.actor.principal
        try:
            if way.credentials and way.credentials[0].carrier is Carrier.COOKIE and not rule.cross_site_allowed:
                self._check_origin(way.arrived)
            if not rule.demands_nothing or principal.pending:
                decide(caller.actor, rule)
        except GatewayError as error:
            metrics.decided(principal.kind, "denied", error.reason)
            raise
        metrics.decided(principal.kind, "allowed", "ok")
        way.caller = caller
        return True

    def _check_anonymous(self, rule: CompiledRoute) -> None:
        try:
            decide(None, rule)
        except CredentialMissing as error:
            self.rooms.metrics.decided("none", "denied", error.reason)
            raise

    def _check_origin(self, arrived: Arrived) -> None:
        fields = arrived.fields
        check_cross_site(
            arrived.incoming.method,
            arrived.head.upgrade is not None,
            fields.lifted[slots.ORIGIN],
            fields.lifted[slots.SEC_FETCH_SITE],
            self.rooms.own_origins,
        )

    def _cors_lines(self, way: Way) -> bytes:
        if way.rule.cors_upstream:
            return b""
        fields = self.rooms.cors.fields(way.arrived.fields.lifted[slots.ORIGIN])
        return b"".join(b"%b: %b\r\n" % field for field in fields) if fields is not None else b""


def _lone_bearer(arrived: Arrived) -> bytes | None:
    """The digest of the ordinary API request's token: one `Bearer`, and nothing else that could be ours."""
    fields, seen = arrived.head.fields, arrived.incoming.seen
    if fields.lifted[slots.API_KEY] is not None:
        return None
    if fields.lifted[slots.COOKIE] is not None and any(b"__" in value for value in fields.all(slots.COOKIE)):
        return None
    if seen is not None and seen.bearer is not None:
        return seen.bearer
    authorization = fields.lifted[slots.AUTHORIZATION]
    if authorization is None or authorization[:7] != b"Bearer ":
        return None
    return digest_of(_HEADER, authorization[7:])


def _check_same_person(one: Principal, two: Principal) -> None:
    if (one.issuer, one.subject) != (two.issuer, two.subject):
        raise CredentialConflict
