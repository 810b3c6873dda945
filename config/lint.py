"""What is valid and yet probably not meant: warnings of `gateway check`, never a reason to refuse. Pure."""

import ipaddress
from collections.abc import Iterator

from config.checks import demands_of
from config.flag_values import find_flag_oddities
from config.grammar import BUILT_IN_SCOPES, parse_origin
from config.limit_checks import lint_limits
from config.model import Route, Settings
from config.problems import Finding

_NOT_BUILT = "is accepted, but does nothing in this release"
_LONG_LEEWAY_S = 60.0


def lint(settings: Settings) -> tuple[Finding, ...]:
    """Find what an operator may want to look at again.

    Args:
        settings: Without problems, as the operator wrote them: `model_fields_set` says what was written.
    """
    groups = (
        _surroundings(settings),
        _clerk(settings),
        _waiting(settings),
        _stripe(settings),
        _routes(settings.routes),
        _scopes(settings),
        _bootstrap(settings),
        _socketio(settings),
        _tracked(settings),
        _machine_tokens(settings),
        find_flag_oddities(settings),
        lint_limits(settings),
    )
    return tuple(found for group in groups for found in group)


def _surroundings(settings: Settings) -> Iterator[Finding]:
    key = settings.secrets.master_key
    if key is None:
        yield Finding(("secrets", "master_key"), "is not set; serve needs it, best as GW_SECRETS__MASTER_KEY")
    elif len(set(key.get_secret_value())) == 1:
        yield Finding(("secrets", "master_key"), "is one character repeated; take random ones")
    if settings.database.url is None and not settings.database.embedded:
        yield Finding(("database", "url"), "is not set; serve needs it, or database.embedded: true")
    if settings.public_url is None and not _is_loopback(settings.listen.host):
        yield Finding(("public_url",), "is not set; browsers' own requests would count as coming from another site")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _clerk(settings: Settings) -> Iterator[Finding]:
    clerk = settings.clerk
    if not clerk.authorized_parties:
        text = "is not set, so tokens are taken whatever application they were made for (no azp check)"
        yield Finding(("clerk", "authorized_parties"), text)
    for index, party in enumerate(clerk.authorized_parties):
        try:
            parse_origin(party)
        except ValueError:
            text = "is not an origin such as https://app.example.com, so it never equals what Clerk writes into azp"
            yield Finding(("clerk", "authorized_parties", index), text)
    if clerk.allow_insecure_http:
        yield Finding(("clerk", "allow_insecure_http"), "is for local issuers only: over http anybody can be anybody")
    if clerk.leeway > _LONG_LEEWAY_S:
        yield Finding(("clerk", "leeway"), "is over a minute, as long as a session token lives")


def _stripe(settings: Settings) -> Iterator[Finding]:
    if settings.stripe is not None and not settings.stripe.webhook_secrets:
        yield Finding(("stripe", "webhook_secrets"), "is empty, so nothing that Stripe says of subscriptions is heard")


def _waiting(settings: Settings) -> Iterator[Finding]:
    """What is read and waits for a later release; what protects is refused instead (`checks.py`)."""
    if settings.decisions is not None:
        yield Finding(("decisions",), _NOT_BUILT)
    for index, route in enumerate(settings.routes):
        if "shadow" in route.model_fields_set:
            yield Finding(("routes", index, "shadow"), _NOT_BUILT)


def _routes(routes: tuple[Route, ...]) -> Iterator[Finding]:
    for index, route in enumerate(routes):
        loc = ("routes", index)
        if route.auth == "none" and route.path == "/**":
            yield Finding((*loc, "auth"), "lets everybody through to everything below")
        if not _below(route.path, route.strip_prefix):
            yield Finding((*loc, "strip_prefix"), "is not how the path begins, so it is not always there to strip")
        for earlier, other in enumerate(routes[:index]):
            if _covers(other, route):
                yield Finding((*loc, "path"), f"never matches: routes[{earlier}] ({other.path}) takes all of it before")
                break
        weaker = _weaker_fallback(route, index, routes)
        if weaker is not None:
            text = f"other methods fall through to routes[{weaker}] ({routes[weaker].path}), which demands less"
            yield Finding((*loc, "methods"), text)


def _socketio(settings: Settings) -> Iterator[Finding]:
    for index, route in enumerate(settings.routes):
        if route.protocol != "socketio":
            continue
        loc, upstream = ("routes", index), settings.upstreams.get(route.upstream)
        if "websocket_token" not in route.accept:
            yield Finding((*loc, "accept"), "has no websocket_token: no client can connect with a token in its packet")
        if settings.workers > 1 or (upstream is not None and len(upstream.addresses) > 1):
            text = "takes no polling, whose requests must reach one place; clients need transports: [websocket]"
            yield Finding((*loc, "protocol"), text)


def _machine_tokens(settings: Settings) -> Iterator[Finding]:
    """Whoever may have a token for something else of the same Clerk instance may show it here."""
    clerk = settings.clerk
    taken = {word for route in settings.routes if route.auth != "none" for word in route.accept}
    if "clerk_oauth" in taken and not clerk.oauth_clients:
        text = "is not set, so access tokens are taken whichever OAuth application a person gave them to"
        yield Finding(("clerk", "oauth_clients"), text)
    if "clerk_m2m" in taken and clerk.machine_id is None:
        text = "is not set, so tokens of machines are taken whichever machine they were made for"
        yield Finding(("clerk", "machine_id"), text)


def _scopes(settings: Settings) -> Iterator[Finding]:
    for index, scope in enumerate(settings.tokens.scopes):
        if scope in BUILT_IN_SCOPES:
            yield Finding(("tokens", "scopes", index), "is built in; named here, the first token of every user gets it")


def _tracked(settings: Settings) -> Iterator[Finding]:
    for index, route in enumerate(settings.routes):
        if route.track is None:
            continue
        if settings.posthog is None:
            yield Finding(("routes", index, "track"), "is told nobody: posthog is not set")
        elif route.auth == "none" or route.protocol == "socketio":
            text = "counts nothing here: a use is counted for whoever called, and this row knows nobody by then"
            yield Finding(("routes", index, "track"), text)


def _bootstrap(settings: Settings) -> Iterator[Finding]:
    emails, loc = settings.bootstrap.admin_emails, ("bootstrap", "admin_emails")
    if emails and settings.clerk.secret_key is None:
        text = "promotes nobody without clerk.secret_key: only Clerk's Backend API tells which addresses are verified"
        yield Finding(loc, text)
    for index, email in enumerate(emails):
        if "@" not in email:
            yield Finding((*loc, index), "is not an e-mail address, so it is nobody's")


def _below(path: str, prefix: str | None) -> bool:
    return not prefix or path == prefix or path.startswith(f"{prefix}/")


def _covers(first: Route, second: Route) -> bool:
    """Whether every request the second route matches is matched by the first."""
    methods, others = _methods(first), _methods(second)
    return (
        _covers_hosts(first, second)
        and covers_path(first.path, second.path)
        and (methods is None or (others is not None and others <= methods))
    )


def _covers_hosts(first: Route, second: Route) -> bool:
    return not first.hosts or (bool(second.hosts) and set(second.hosts) <= set(first.hosts))


def covers_path(first: str, second: str) -> bool:
    """Whether every path the second pattern matches is matched by the first; False when in doubt."""
    ours, theirs = first.split("/")[1:], second.split("/")[1:]
    for index, segment in enumerate(ours):
        if segment == "**":
            return True
        if index >= len(theirs) or theirs[index] == "**":
            return False
        if segment != theirs[index] and (segment != "*" or theirs[index] == ""):
            return False
    return len(ours) == len(theirs)


def _methods(route: Route) -> frozenset[str] | None:
    """Give the methods a route takes, None for all. HEAD counts as GET."""
    if not route.methods:
        return None
    return frozenset(route.methods) | ({"HEAD"} if "GET" in route.methods else set())


def _weaker_fallback(route: Route, index: int, routes: tuple[Route, ...]) -> int | None:
    """Find the later route that takes this one's other methods and demands less."""
    methods = _methods(route)
    if methods is None or route.auth == "none":
        return None
    for later in range(index + 1, len(routes)):
        other = routes[later]
        others = _methods(other)
        if not covers_path(other.path, route.path) or not _covers_hosts(other, route):
            continue
        if others is None or others - methods:
            return later if _is_weaker(other, route) else None
    return None


def _is_weaker(other: Route, route: Route) -> bool:
    strength = {"none": 0, "optional": 1, "required": 2}
    return strength[other.auth] < strength[route.auth] or not set(demands_of(route)) <= set(demands_of(other))
