"""The route table: which rule a request falls under. No rule, no entry: what nothing matches is not found."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from config.model import Level, Route
from gateway.credentials.kinds import CredentialKind
from gateway.edge.host import parse_host
from gateway.edge.target import Target, decode_except_slash
from gateway.errors import HostInvalid, TargetInvalid
from gateway.policy.patterns import Pattern, compile_pattern
from provisioning.records import Role

_REMEMBERED = 4096
"""Paths whose row is remembered: those of an ordinary API, and no more than an attacker may fill."""


class Auth(StrEnum):
    """Whether a route reads credentials, and whether it goes without."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True, eq=False)
class CompiledRoute:
    """One row of the table, ready to judge with. Rows are told apart by identity.

    Attributes:
        index: Place in the settings, from 0.
        name: The pattern's text, the metric label.
        pattern: What the path must match.
        methods: None for any; HEAD is among them wherever GET is.
        hosts: Host names as `edge/host.py` gives them; None for any.
        roles: Any one of them will do; empty for no demand, as in the following.
        organization_roles: Any one of them, without `org:`.
        permissions: All of them, `org:feature:permission`.
        features: All of them, as Clerk's `has()` asks.
        plans: Any one of them, as Clerk's `has()` asks.
        scopes: All of them, in the settings' order.
        strip_prefix: Leading path that does not go up; None for none.
        takes_websocket_tokens: A handshake may carry one where browsers can: `?token=` and the subprotocol pair.
        socketio: Clients of Socket.IO show their token in a packet (`gateway/socketio/`), not with the handshake.
        authorization_may_pass: An Authorization field can go up: a credential of ours because the route forwards it, or
            the application's own scheme because the route is not `required`.
        track: Name of the event that a use of the route is; None: none.
        rate_limits: Names of the limits it falls under.
        demands_nothing: No rule to judge beyond who calls: any accepted, active credential passes.
    """

    index: int
    name: str
    pattern: Pattern
    methods: frozenset[str] | None
    hosts: frozenset[str] | None
    auth: Auth
    accepts: frozenset[CredentialKind]
    roles: frozenset[Role]
    organization_roles: frozenset[str]
    permissions: frozenset[str]
    features: tuple[str, ...]
    plans: tuple[str, ...]
    reverification: Level | None
    scopes: tuple[str, ...]
    upstream: str
    strip_prefix: str | None
    forward_credentials: bool
    allow_pending: bool
    cross_site_allowed: bool
    cors_upstream: bool
    encoded_slash_allowed: bool
    encoded_percent_allowed: bool
    demands_nothing: bool
    authorization_may_pass: bool
    takes_websocket_tokens: bool
    socketio: bool
    track: str | None
    rate_limits: tuple[str, ...]

    def takes(self, method: str, host: str) -> bool:
        """Whether method and host are among those of the row."""
        return (self.methods is None or method in self.methods) and (self.hosts is None or host in self.hosts)


@dataclass(frozen=True, slots=True, eq=False)
class RouteTable:
    """All rows, and the shortcuts to those a path can match; the first row that matches decides.

    Attributes:
        routes: The rows in the settings' order.
        exact: For each path that a row spells out: every row that matches it, wildcard rows among them.
        below: For each first segment that a wildcard row spells out: every wildcard row that can match below it.
        anywhere: The wildcard rows that can match below any other first segment.
    """

    routes: tuple[CompiledRoute, ...]
    exact: dict[str, tuple[CompiledRoute, ...]]
    below: dict[str, tuple[CompiledRoute, ...]]
    anywhere: tuple[CompiledRoute, ...]
    _found: dict[tuple[str, str, str], CompiledRoute] = field(default_factory=dict, repr=False)

    @classmethod
    def compile(cls, routes: Sequence[Route]) -> "RouteTable":
        """Compile the rows of the settings.

        Raises:
            ValueError: A path or a host that cannot be read; says what to write instead.
        """
        rows = tuple(_compile_route(index, route) for index, route in enumerate(routes))
        wild = tuple(row for row in rows if not row.pattern.is_exact)
        firsts = {row.pattern.first_segment for row in wild} - {None}
        return cls(
            routes=rows,
            exact={
                path: tuple(row for row in rows if row.pattern.matches(path))
                for path in (row.pattern.text for row in rows if row.pattern.is_exact)
            },
            below={
                first: tuple(row for row in wild if row.pattern.first_segment in (None, first))
                for first in firsts
                if first is not None
            },
            anywhere=tuple(row for row in wild if row.pattern.first_segment is None),
        )

    def match(self, method: str, host: str, path: str) -> CompiledRoute | None:
        """The first row for method, host and path; None: not found.

        A preflight is matched with the method it asks for; the caller sees to that.

        Args:
            method: As sent; methods are case-sensitive.
            host: `Host.name`.
            path: `Target.path`, as it will be forwarded.
        """
        spelled = self.exact.get(path)
        if spelled is not None:
            for row in spelled:
                if row.takes(method, host):
                    return row
            return None
        end = path.find("/", 1)
        for row in self.below.get(path[1:] if end < 0 else path[1:end], self.anywhere):
            if row.pattern.matches(path) and row.takes(method, host):
                return row
        return None

    def find(self, method: str, host: str, target: Target) -> CompiledRoute | None:
        """The row for a target, escapes judged as well; None: not found.

        An upstream that decodes `/%61dmin` serves `/admin`, so a path with escapes must fall under one row both as
        it stands and decoded once. `%2f` on a row that opens it stays as it is in this comparison: opening it says
        that the upstream reads `%2f` as data.

        Raises:
            TargetInvalid: An escape the row does not open, or a path that decodes into another row's.
        """
        path = target.path
        key = (method, host, path)
        row = self._found.get(key)
        if row is not None:
            return row
        row = self.match(method, host, path)
        if "%" not in path:
            if row is not None:
                if len(self._found) >= _REMEMBERED:
                    self._found.clear()
                self._found[key] = row
            return row
        if target.has_encoded_slash and not (row is not None and row.encoded_slash_allowed):
            raise TargetInvalid("path_slash_encoded")
        if target.has_encoded_percent and not (row is not None and row.encoded_percent_allowed):
            raise TargetInvalid("path_percent_encoded")
        if self.match(method, host, decode_except_slash(path)) is not row:
            raise TargetInvalid("path_ambiguous")
        return row


def _compile_route(index: int, route: Route) -> CompiledRoute:
    demands = (
        route.roles,
        route.organization_roles,
        route.permissions,
        route.features,
        route.plans,
        route.reverification,
        route.scopes,
    )
    return CompiledRoute(
        index=index,
        name=route.path,
        pattern=compile_pattern(route.path),
        methods=_compile_methods(route.methods),
        hosts=_compile_hosts(route.hosts),
        auth=Auth(route.auth),
        accepts=frozenset(CredentialKind(word) for word in route.accept),
        roles=frozenset(Role(word) for word in route.roles),
        organization_roles=frozenset(role.removeprefix("org:") for role in route.organization_roles),
        permissions=frozenset(f"org:{permission.removeprefix('org:')}" for permission in route.permissions),
        features=route.features,
        plans=route.plans,
        reverification=route.reverification,
        scopes=route.scopes,
        upstream=route.upstream,
        strip_prefix=route.strip_prefix or None,
        forward_credentials=route.forward_credentials,
        allow_pending=route.allow_pending,
        cross_site_allowed=route.cross_site == "allow",
        cors_upstream=route.cors == "upstream",
        encoded_slash_allowed="slash" in route.allow_encoded,
        encoded_percent_allowed="percent" in route.allow_encoded,
        demands_nothing=not any(demands),
        authorization_may_pass=route.forward_credentials or route.auth != "required",
        takes_websocket_tokens=route.auth != "none" and "websocket_token" in route.accept,
        socketio=route.auth != "none" and route.protocol == "socketio",
        track=route.track,
        rate_limits=route.rate_limit,
    )


def _compile_methods(methods: Iterable[str]) -> frozenset[str] | None:
    """Whoever may GET may ask with HEAD: upstreams answer both from one handler."""
    named = frozenset(methods)
    return (named | {"HEAD"} if "GET" in named else named) or None


def _compile_hosts(hosts: Iterable[str]) -> frozenset[str] | None:
    try:
        return frozenset(parse_host(host.encode()).name for host in hosts) or None
    except HostInvalid:
        raise ValueError("write a host name alone, such as app.example.com") from None
