"""The whole way of a request, in plain values: start reading here.

    arrive    judge what came: fields, host, target, framing                                      pure
    direct    find the own endpoint or the route                                                  pure
    known     find what was presented and answer from the near cache; None on any miss, never waits
    resolve   the same with waiting: verify, find or create the person
    depart    build the head the upstream receives                                                pure

Both lanes share all of it. Everything refused is raised (`errors.py`); `problems.py` says how HTTP tells it.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from gateway.actors.callers import Caller, Callers
from gateway.answer import Answer
from gateway.api.endpoints import Endpoint, Endpoints
from gateway.credentials.cookies import without_clerk
from gateway.credentials.find import authorization_is_ours, find_credentials, may_pass
from gateway.credentials.kinds import Carrier, Credential, digest_of
from gateway.credentials.session_cookie import NO_SESSION_TOKEN, CookieRules
from gateway.edge import slots
from gateway.edge.arrival import Arrived, Incoming, arrive, trace_lines
from gateway.edge.fields import JudgedFields
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
from gateway.identity.header_set import ANONYMOUS_BLOCK
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
    """What the pipeline walks through; built once by `app.py`.

    Attributes:
        hosts: Host names served; empty serves any.
        issuers: Exact `iss` of the sessions taken here.
        own_origins: Origins a cookie credential may come from (`policy/cross_site.py`).
        clock: Unix seconds.
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
    tunnels: Tunnels
    metrics: Metrics
    clock: Callable[[], float]


@dataclass(slots=True)  # not frozen: one per request on the hot path
class Way:
    """A judged request and where it leads.

    Attributes:
        rule: The route, or the rule of the own endpoint: who may pass.
        endpoint: None for a proxied request.
        preflight: The answer, when the gateway answers this preflight itself.
        asks_only: A preflight for the upstream to answer: passes as nobody, whatever the rule.
        credentials: What was presented of our kinds, the one that counts first; empty for anonymous.
    """

    arrived: Arrived
    rule: CompiledRoute
    endpoint: Endpoint | None = None
    preflight: Answer | None = None
    asks_only: bool = False
    credentials: tuple[Credential, ...] = field(default=(), repr=False)


@dataclass(slots=True)  # not frozen: one per request on the hot path
class Passage:
    """Policy let the request pass; `caller` is None for an anonymous one."""

    caller: Caller | None


@dataclass(slots=True)  # not frozen: one per request on the hot path
class Departure:
    """What to send where; `cors` are field lines for the answer, in case the upstream sends none of its own, and
    `handshake` is what a 101 is held against, None for a plain request."""

    upstream: Upstream
    request: OutgoingRequest
    cors: bytes
    handshake: Handshake | None


_ANONYMOUS = Passage(None)


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
        requested = arrived.fields.lifted[slots.REQUESTED_METHOD] if arrived.incoming.method == "OPTIONS" else None
        if requested is not None:
            return self._direct_preflight(arrived, requested)
        return self._direct(arrived)

    def known(self, way: Way) -> Passage | None:
        """Let the request pass from memory alone; None when somebody must be asked.

        Raises:
            CredentialMissing: Nothing of our kinds, where something is demanded.
            CredentialMalformed: A credential field that cannot be read.
            CredentialConflict: Two good credentials of different people.
            PolicyDenied: Known, and may not.
        """
        callers, rule = self.rooms.callers, way.rule
        # Counted here, because a request comes by once; a lane may judge a head and then hand it to the other.
        self.rooms.metrics.claims_dropped += way.arrived.fields.claims
        if way.asks_only or rule.auth is _NO_AUTH:
            return self._pass(way, None)
        token = _lone_bearer(way.arrived.fields)
        if token is not None:
            caller = callers.known(digest_of(_HEADER, token))
            if caller is not None and caller.actor.principal.kind in rule.accepts:
                return self._pass(way, caller)
        way.credentials = self._presented(way)
        if not way.credentials:
            return self._pass(way, None)
        if any(found.refusal is not None for found in way.credentials):
            return None
        caller = callers.known(way.credentials[0].digest)
        if caller is None:
            return None
        for lesser in way.credentials[1:]:
            other = callers.known_principal(lesser.digest)
            if other is None:
                return None
            _check_same_person(caller.actor.principal, other)
        return self._pass(way, caller)

    async def resolve(self, way: Way) -> Passage:
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
        return self._pass(way, caller)

    def depart(self, way: Way, passage: Passage) -> Departure:
        """Build what the upstream receives; the only identity in it is ours.

        Raises:
            HandshakeMalformed: It asks for a websocket, but not as RFC 6455 has it.
            WebsocketVersionUnsupported: In another version.
        """
        arrived, rule = way.arrived, way.rule
        incoming = arrived.incoming
        handshake = judge_handshake(arrived) if arrived.upgrade is not None else None
        lines = arrived.fields.lines
        lifted = arrived.fields.lifted
        if lifted[slots.API_KEY] is not None or lifted[slots.COOKIE] is not None or rule.authorization_may_pass:
            _keep_credentials(lines, way, self.rooms.issuers)
        if arrived.chunked:
            lines.append(b"Transfer-Encoding: chunked")
        elif arrived.content_length is not None:
            lines.append(b"Content-Length: %d" % arrived.content_length)
        if handshake is not None:
            lines += (b"Connection: Upgrade", b"Upgrade: websocket")
        lines.insert(0, b"Host: " + arrived.host.raw)
        # One join: it copies each byte once, which formatting with `%` does not.
        head = b"".join(
            (
                incoming.method.encode("ascii"),
                b" ",
                arrived.target.raw if rule.strip_prefix is None else _target_for(arrived.target.raw, rule.strip_prefix),
                b" HTTP/1.1\r\n",
                b"\r\n".join(lines),
                b"\r\n",
                passage.caller.identity if passage.caller is not None else ANONYMOUS_BLOCK,
                b"X-Request-Id: ",
                incoming.request_id.encode("ascii"),
                b"\r\n",
                arrived.view.lines,
                trace_lines(arrived.fields),
                b"\r\n",
            )
        )
        has_body = arrived.has_body
        request = OutgoingRequest(
            head, incoming.method == "HEAD", not has_body and incoming.method in _REPLAYABLE, has_body
        )
        cors = self._cors_lines(way) if lifted[slots.ORIGIN] is not None else b""
        return Departure(self.rooms.upstreams[rule.upstream], request, cors, handshake)

    def _direct(self, arrived: Arrived) -> Way:
        """Own endpoints first, then the first route that matches; nothing else is open."""
        rooms, method, target = self.rooms, arrived.incoming.method, arrived.target
        endpoint = rooms.endpoints.find(method, target.path)
        if endpoint is not None:
            return Way(arrived, endpoint.rule, endpoint)
        if "%" in target.path and target.decoded_path in rooms.endpoints:
            raise TargetInvalid("path_ambiguous")
        route = rooms.routes.find(method, arrived.host.name, target)
        if route is None:
            raise RouteUnknown
        return Way(arrived, route)

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
            fields.lifted[slots.AUTHORIZATION],
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

    def _pass(self, way: Way, caller: Caller | None) -> Passage:
        """Judge policy; every request comes through here, cached or not."""
        metrics, rule = self.rooms.metrics, way.rule
        if caller is None:
            if not way.asks_only:
                self._check_anonymous(rule)
            metrics.decided("none", "anonymous", "ok")
            return _ANONYMOUS
        kind = caller.actor.principal.kind
        try:
            if way.credentials and way.credentials[0].carrier is Carrier.COOKIE and not rule.cross_site_allowed:
                self._check_origin(way.arrived)
            if not rule.demands_nothing or caller.actor.principal.pending:
                decide(caller.actor, rule)
        except GatewayError as error:
            metrics.decided(kind, "denied", error.reason)
            raise
        metrics.decided(kind, "allowed", "ok")
        return Passage(caller)

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
            arrived.upgrade is not None,
            fields.lifted[slots.ORIGIN],
            fields.lifted[slots.SEC_FETCH_SITE],
            self.rooms.own_origins,
        )

    def _cors_lines(self, way: Way) -> bytes:
        if way.rule.cors_upstream:
            return b""
        fields = self.rooms.cors.fields(way.arrived.fields.lifted[slots.ORIGIN])
        return b"".join(b"%b: %b\r\n" % field for field in fields) if fields is not None else b""


def _lone_bearer(fields: JudgedFields) -> bytes | None:
    """The token of the ordinary API request: one `Bearer` and nothing else that could be a credential of ours."""
    lifted = fields.lifted
    authorization, cookie = lifted[slots.AUTHORIZATION], lifted[slots.COOKIE]
    if authorization is None or authorization[:7] != b"Bearer " or lifted[slots.API_KEY] is not None:
        return None
    if cookie is not None and any(b"__" in value for value in fields.all(slots.COOKIE)):
        return None
    return authorization[7:]


def _check_same_person(one: Principal, two: Principal) -> None:
    if (one.issuer, one.subject) != (two.issuer, two.subject):
        raise CredentialConflict


def _keep_credentials(lines: list[bytes], way: Way, issuers: Collection[str]) -> None:
    """Let pass what is the application's; credentials of our kinds stay here unless the route forwards them."""
    fields, rule = way.arrived.fields, way.rule
    authorization = fields.lifted[slots.AUTHORIZATION]
    if authorization is not None and (
        rule.forward_credentials
        or (rule.auth is Auth.OPTIONAL and not authorization_is_ours(authorization))
        or (rule.auth is Auth.NONE and may_pass(authorization, issuers))
    ):
        lines.append(b"Authorization: " + authorization)
    api_key = fields.lifted[slots.API_KEY]
    if api_key is not None and (rule.forward_credentials or may_pass(api_key, issuers)):
        lines.append(b"X-API-Key: " + api_key)
    cookies = fields.all(slots.COOKIE)
    if cookies:
        cookie = b"; ".join(cookies) if rule.forward_credentials else without_clerk(cookies)
        if cookie:
            lines.append(b"Cookie: " + cookie)


def _target_for(raw: bytes, strip_prefix: str) -> bytes:
    """The target as received, without the route's prefix; never empty, always starting with a slash."""
    prefix = strip_prefix.rstrip("/").encode("ascii")
    if not raw.startswith(prefix):
        return raw
    rest = raw[len(prefix) :]
    if rest.startswith(b"/"):
        return rest
    return b"/" + rest if not rest or rest.startswith(b"?") else raw
