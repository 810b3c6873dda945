"""The whole way of a request, in plain values: start reading here.

    arrive    judge what came: fields, host, target, framing                                      pure
    direct    find the own endpoint or the route                                                  pure
    known     find what was presented and answer from the near cache; None on any miss, never waits
    resolve   the same with waiting: verify, find or create the person
    depart    build the head the upstream receives                                                pure

Both lanes share all of it. Everything refused is raised (`errors.py`); `problems.py` says how HTTP tells it.
"""

from gateway.actors.beliefs import Caller
from gateway.actors.origin import origin_of
from gateway.answer import Answer
from gateway.credentials.find import find_credentials
from gateway.credentials.kinds import Carrier, Credential, CredentialKind, digest_of
from gateway.credentials.session_cookie import is_sign_alone
from gateway.edge import slots
from gateway.edge.arrival import Arrived, Incoming, arrive
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
from gateway.identity.request_head import request_head
from gateway.identity.websocket import judge_departing, websocket_tokens_of, without_minted
from gateway.limits.websockets import check_room
from gateway.policy.cross_site import check_cross_site
from gateway.policy.decision import decide
from gateway.policy.routes import Auth, CompiledRoute
from gateway.policy.websocket_use import check_use
from gateway.rooms import Rooms
from gateway.verify.principal import Principal
from gateway.way import Departure, Way

# Members of an Enum cost eight times a module's constant to read (CPython 3.11).
_HEADER, _NO_AUTH = Carrier.HEADER, Auth.NONE
_WEBSOCKET_TOKEN, _SYSTEM_TOKEN = CredentialKind.WEBSOCKET_TOKEN, CredentialKind.SYSTEM_TOKEN
_REPLAYABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


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
            RateLimited: Too many requests.
        """
        if way.rule.rate_limits and way.quota is None:
            return self._known_within_limits(way)
        callers, rule, head = self.rooms.callers, way.rule, way.arrived.head
        # Counted here, because a request comes by once; a lane may judge a head and then hand it to the other.
        self.rooms.metrics.claims_dropped += head.fields.claims
        if way.asks_only or rule.auth is _NO_AUTH:
            return self._pass(way, None)
        caller = self._recalled(way.arrived)
        if caller is not None and caller.kind in rule.accepts:
            if not rule.demands_nothing or caller.pending:
                return self._pass(way, caller)
            self.rooms.metrics.decided(caller.kind, "allowed", "ok")
            way.caller = caller
            return True
        way.credentials = self._presented(way)
        if not way.credentials:
            return self._pass(way, None)
        first = way.credentials[0]
        if first.kind is _WEBSOCKET_TOKEN or any(found.refusal is not None for found in way.credentials):
            return False
        caller = callers.known(first.digest)
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
            RateLimited: Too many requests, or bad credentials.
        """
        limiter = self.rooms.limiter
        if limiter is not None:
            if way.rule.rate_limits and way.quota is None:
                await limiter.arrive(way)
                if not way.credentials and self.known(way):
                    await limiter.pass_(way)
                    return
            limiter.check_guesses(way)
        await self._ask(way)
        if limiter is not None:
            await limiter.pass_(way)

    def _known_within_limits(self, way: Way) -> bool:
        """Do what `known` does, where limits are asked; False also when Redis must be."""
        limiter = self.rooms.limiter
        if limiter is None or limiter.waits:
            return False
        limiter.arrive_now(way)
        if not self.known(way):
            return False
        limiter.pass_now(way)
        return True

    async def _ask(self, way: Way) -> None:
        refusal: GatewayError
        try:
            caller = await self._proven(way)
        except GatewayError as error:
            refusal = error
        else:
            self._pass(way, caller)
            return
        # Not inside the handler: compiled, whatever is raised while one waits there takes the exception's place twice.
        outcome = "unavailable" if isinstance(refusal, VerifierUnavailable) else "denied"
        self.rooms.metrics.decided(way.credentials[0].kind, outcome, refusal.reason)
        if self.rooms.limiter is not None and isinstance(refusal, CredentialRejected):
            await self.rooms.limiter.failed(way, refusal)
        raise refusal

    async def _proven(self, way: Way) -> Caller:
        """Say who calls, after asking, and that all credentials agree."""
        credentials = way.credentials
        caller = await self._resolve_first(way, credentials[0])
        self.rooms.witness.resolved(caller, way.arrived, self.rooms.clock())
        for lesser in credentials[1:]:
            try:
                other = await self.rooms.callers.prove(lesser)
            except (CredentialRejected, VerifierUnavailable):
                continue  # a lesser one that is stale or invalid is ignored
            _check_same_person(caller.actor.principal, other)
        binding = caller.actor.principal.binding
        by_token = credentials[0].kind is _WEBSOCKET_TOKEN and not way.rule.socketio  # which uses it up itself
        if self.rooms.replays is not None and binding is not None and by_token:
            await self.rooms.replays.use(binding.token, caller.actor.principal.expires_at)
        return caller

    def depart(self, way: Way) -> Departure:
        """Build what the upstream receives; the only identity in it is ours.

        Raises:
            HandshakeMalformed: It asks for a websocket, but not as RFC 6455 has it.
            WebsocketVersionUnsupported: In another version.
            StoreUnavailable: There is no key yet to sign the assertion with.
            WebsocketsExceeded: It would be one websocket too many.
        """
        arrived, rule, rooms, caller = way.arrived, way.rule, self.rooms, way.caller
        head, method, length = arrived.head, arrived.incoming.method, arrived.content_length
        identity, assertion = ANONYMOUS_BLOCK, b""
        if caller is not None:
            identity, assertion = caller.identity, rooms.assertions.line(caller, rule.upstream)
        handshake = None
        if head.upgrade is not None:
            handshake, arrived = judge_departing(arrived, rule, rooms.own_issuer)
            if handshake is not None:
                assertion += handshake.lines
                if caller is not None and rooms.websockets_each is not None:
                    check_room(rooms.live, caller.actor, rooms.websockets_each)
        elif rule.takes_websocket_tokens:
            arrived = without_minted(arrived, rooms.own_issuer)
        upgrades = handshake is not None
        data = request_head(arrived, rule, identity, assertion, length, rooms.marks, upgrades=upgrades)
        has_body = head.chunked or bool(length)
        return Departure(
            data,
            method == "HEAD",
            not has_body and method in _REPLAYABLE,
            has_body,
            rooms.upstreams[rule.upstream],
            self._cors_lines(way) if head.fields.lifted[slots.ORIGIN] is not None else b"",
            handshake,
            way.quota.lines() if way.quota is not None else b"",
        )

    def _recalled(self, arrived: Arrived) -> Caller | None:
        """Recall the caller of the ordinary API request: one `Bearer`, and nothing else that could be ours."""
        fields, seen = arrived.head.fields, arrived.incoming.seen
        if fields.lifted[slots.API_KEY] is not None or arrived.head.upgrade is not None:
            return None
        if fields.lifted[slots.COOKIE] is not None and any(b"__" in value for value in fields.all(slots.COOKIE)):
            return None
        if seen is not None and seen.bearer is not None:
            return self.rooms.callers.recalled(seen)
        authorization = fields.lifted[slots.AUTHORIZATION]
        if authorization is None or authorization[:7] != b"Bearer ":
            return None
        return self.rooms.callers.known(digest_of(_HEADER, authorization[7:]))

    async def _resolve_first(self, way: Way, credential: Credential) -> Caller:
        rooms, arrived = self.rooms, way.arrived
        if credential.kind is _SYSTEM_TOKEN:
            return rooms.system_tokens.resolve(credential, arrived.view.address)
        caller = await rooms.callers.resolve(credential, way.rule, origin_of(None, arrived))
        if credential.kind is _WEBSOCKET_TOKEN:
            check_use(caller.actor.principal, arrived.target.path, arrived.fields.lifted[slots.ORIGIN])
        return caller

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
            self.rooms.own_issuer,
            websocket_tokens_of(way.arrived) if rule.takes_websocket_tokens else (),
        )
        if rule.auth is Auth.OPTIONAL:
            # A sign of a session elsewhere is not a credential: the browser of somebody signed out carries it too.
            found = tuple(credential for credential in found if not is_sign_alone(credential))
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
            self.rooms.witness.refused(caller.actor, way.arrived, rule, error)
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


def _check_same_person(one: Principal, two: Principal) -> None:
    """Compare people; an API token names no issuer, since our records know one person by one subject."""
    if one.subject != two.subject or (one.issuer and two.issuer and one.issuer != two.issuer):
        raise CredentialConflict
