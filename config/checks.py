"""Rules over several keys, and what the publishable key and `listen` imply. Pure: no file, no environment.

What is merely not built yet and does no harm is left to `lint.py`.
"""

import base64
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from config.flag_values import find_flag_problems
from config.grammar import BUILT_IN_SCOPES, parse_web_url
from config.limit_checks import find_limit_problems
from config.model import Clerk, Keys, Route, Settings, Stripe, SystemToken, Tokens, Upstream
from config.problems import Finding, Loc
from config.publishable_key import PublishableKey, parse_publishable_key
from config.redis_address import parse_redis_url
from config.values import Address, Network

MASTER_KEY_CHARACTERS = 32
WEBHOOK_SECRET_BYTES = 16
# Ours, from the shipped files and the documentation; compared without case and punctuation.
_EXAMPLE_KEYS = ("changeme", "replaceme", "yourmasterkey", "examplemasterkey")
_IPV4_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_DSN_HOST = re.compile(r"(?:[A-Za-z0-9_.%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")


def find_problems(settings: Settings, *, for_serve: bool = False) -> tuple[Finding, ...]:
    """Find everything that makes settings unusable.

    Args:
        settings: Valid key by key.
        for_serve: Also demand what only serving needs: a master key and a database.
    """
    groups = (
        _listeners(settings),
        _redis(settings),
        _clerk(settings.clerk),
        _secrets(settings, for_serve=for_serve),
        _database(settings, for_serve=for_serve),
        _keys(settings.keys),
        _tokens(settings.tokens),
        _stripe(settings.stripe),
        _proxies(settings.trusted_proxies),
        *(_upstream(name, upstream) for name, upstream in settings.upstreams.items()),
        *(_route(index, route, settings.upstreams) for index, route in enumerate(settings.routes)),
        _scopes(settings),
        _machine_tokens(settings),
        _system_tokens(settings.system_tokens),
        find_flag_problems(settings),
        _receivers(settings),
        find_limit_problems(settings),
    )
    return tuple(found for group in groups for found in group)


def complete(settings: Settings, data_dir: Path) -> Settings:
    """Fill in what other keys imply: Clerk's addresses, `public_url`, `data_dir`.

    Args:
        settings: Without problems.
        data_dir: The platform's folder for data of the user.
    """
    clerk = settings.clerk
    if clerk.publishable_key is not None:
        key = parse_publishable_key(clerk.publishable_key)
        implied: dict[str, object] = {
            "issuer": clerk.issuer or (key.issuer,),
            "jwks_url": clerk.jwks_url or key.jwks_url,
            "sign_in_url": clerk.sign_in_url or sign_in_url_of(key),
        }
        clerk = clerk.model_copy(update=implied)
    update: dict[str, object] = {
        "clerk": clerk,
        # Port 0 is the system's choice, known once it listens.
        "public_url": settings.public_url or (default_public_url(settings) if settings.listen.port else None),
        "data_dir": settings.data_dir or data_dir,
    }
    return settings.model_copy(update=update)


def default_public_url(settings: Settings, listen: Address | None = None) -> str:
    """Write the origin of the listener.

    Args:
        settings: Whether it speaks TLS.
        listen: Where it listens, if not where the settings say.
    """
    return f"{'http' if settings.tls is None else 'https'}://{listen or settings.listen}"


def sign_in_url_of(key: PublishableKey) -> str | None:
    """Find the page of Clerk's Account Portal where people sign in; None for a Frontend API on an unusual host."""
    host = key.frontend_api
    if key.instance_type == "development" and host.endswith(".clerk.accounts.dev"):
        return f"https://{host.removesuffix('.clerk.accounts.dev')}.accounts.dev/sign-in"
    if key.instance_type == "production" and host.startswith("clerk."):
        return f"https://accounts.{host.removeprefix('clerk.')}/sign-in"
    return None


def _listeners(settings: Settings) -> Iterator[Finding]:
    if settings.listen == settings.admin.listen and settings.listen.port:
        yield Finding(("admin", "listen"), "is the same as listen; the admin port is its own, never the public one")
    if settings.workers > 1 and settings.redis.url is None:
        yield Finding(("workers",), "above 1 needs redis.url, through which workers share what they believe")


def _redis(settings: Settings) -> Iterator[Finding]:
    if settings.redis.url is None:
        if settings.redis.ca_file is not None:
            yield Finding(("redis", "ca_file"), "is for rediss://: set redis.url too, or leave it away")
        return
    try:
        address = parse_redis_url(settings.redis.url.get_secret_value())
    except ValueError as error:
        yield Finding(("redis", "url"), str(error))
        return
    if settings.redis.ca_file is not None and not address.tls:
        yield Finding(("redis", "ca_file"), "is for TLS: write rediss:// in redis.url, or leave it away")


def _clerk(clerk: Clerk) -> Iterator[Finding]:
    key = None
    if clerk.publishable_key is not None:
        try:
            key = parse_publishable_key(clerk.publishable_key)
        except ValueError as error:
            yield Finding(("clerk", "publishable_key"), str(error))
    elif not clerk.issuer and clerk.jwks_url is None:
        yield Finding(("clerk",), "give publishable_key, or issuer and jwks_url")
    elif not clerk.issuer:
        yield Finding(("clerk",), "give issuer beside jwks_url (or publishable_key, which implies both)")
    elif clerk.jwks_url is None:
        yield Finding(("clerk",), "give jwks_url beside issuer (or publishable_key, which implies both)")
    for index, secret in enumerate(clerk.webhook_secrets):
        if not is_webhook_secret(secret.get_secret_value()):
            yield Finding(("clerk", "webhook_secrets", index), "is none; copy it from Clerk's dashboard: whsec_…")
    if clerk.allow_insecure_http:
        return
    addresses: list[tuple[str, str]] = [("issuer", issuer) for issuer in clerk.issuer]
    addresses += [("jwks_url", clerk.jwks_url)] if clerk.jwks_url else []
    addresses += [("api_url", clerk.api_url)]
    addresses += [("publishable_key", key.jwks_url)] if key and not clerk.jwks_url else []
    for name, address in addresses:
        if not address.startswith("https://"):
            yield Finding(("clerk", name), "write https://; http is for local issuers, with allow_insecure_http: true")
        elif is_private_host(urlsplit(address).hostname or ""):
            text = "names a private or loopback host; that is for local issuers, with allow_insecure_http: true"
            yield Finding(("clerk", name), text)


def is_webhook_secret(text: str) -> bool:
    """Whether a signing secret of a webhook is base64 of enough bytes that nobody guesses them."""
    digits = text.removeprefix("whsec_").rstrip("=")
    try:
        key = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except ValueError:
        return False
    return len(key) >= WEBHOOK_SECRET_BYTES


def is_private_host(host: str) -> bool:
    """Whether a host is, by its text alone, this machine or a private network.

    Args:
        host: Without brackets and port. A name is not looked up.
    """
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return not ipaddress.ip_address(name).is_global
    except ValueError:
        # Resolvers read 2130706433, 0x7f.1 and 127.1 as addresses; public hosts never end in such a label.
        return re.fullmatch(r"[0-9]+|0x[0-9a-f]*", name.rpartition(".")[2]) is not None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _secrets(settings: Settings, *, for_serve: bool) -> Iterator[Finding]:
    loc = ("secrets", "master_key")
    key = settings.secrets.master_key
    if key is None:
        if for_serve:
            yield Finding(loc, "is missing; set GW_SECRETS__MASTER_KEY to 32 or more random characters")
    elif len(key.get_secret_value()) < MASTER_KEY_CHARACTERS:
        yield Finding(loc, f"is too short; take {MASTER_KEY_CHARACTERS} or more random characters")
    elif is_example_key(key.get_secret_value()):
        yield Finding(loc, "is an example from the documentation; take 32 or more random characters of your own")


def is_example_key(key: str) -> bool:
    """Whether a master key is one of our examples: everybody knows those."""
    letters = re.sub(r"[^a-z]", "", key.lower())
    return letters.startswith(_EXAMPLE_KEYS)


def _database(settings: Settings, *, for_serve: bool) -> Iterator[Finding]:
    for name in ("url", "direct_url"):
        secret: SecretStr | None = getattr(settings.database, name)
        if secret is not None and not is_database_url(secret.get_secret_value()):
            text = "write postgresql://user:password@host:5432/name; / ? # @ and % of a password as %2F %3F %23 %40 %25"
            yield Finding(("database", name), text)
    if for_serve and settings.database.url is None and not settings.database.embedded:
        yield Finding(("database", "url"), "is missing; write postgresql://…, or set database.embedded: true")


def is_database_url(text: str) -> bool:
    """Whether a DSN comes apart as meant. A `/` left bare in a password would make the rest of it a port or a path."""
    scheme, _, rest = text.partition("://")
    hosts = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    return scheme in {"postgresql", "postgres"} and all(_DSN_HOST.fullmatch(host) for host in hosts.split(","))


def _keys(keys: Keys) -> Iterator[Finding]:
    if keys.publish_ahead > keys.rotate_every / 2:
        yield Finding(
            ("keys", "publish_ahead"), "is more than half of keys.rotate_every; publish each key for less time"
        )
    if keys.refresh_every > keys.publish_ahead / 2:
        yield Finding(("keys", "refresh_every"), "is more than half of keys.publish_ahead; keys would be seen too late")


def _tokens(tokens: Tokens) -> Iterator[Finding]:
    longest = tokens.max_life
    # A default that nobody wrote gives way to a shorter `max_life`.
    if longest is not None and "default_life" in tokens.model_fields_set:
        if tokens.default_life is None:
            yield Finding(("tokens", "default_life"), "is never, which tokens.max_life does not allow")
        elif tokens.default_life > longest:
            yield Finding(("tokens", "default_life"), "is longer than tokens.max_life")
    address = tokens.leak_keys_url or "https://"
    if not address.startswith("https://") and not _is_loopback(urlsplit(address).hostname or ""):
        yield Finding(("tokens", "leak_keys_url"), "write https://; whoever answers there decides which tokens end")
    for index, scope in enumerate(tokens.scopes):
        if scope == "*":
            yield Finding(("tokens", "scopes", index), "is what upstreams are told of sessions, which no scope limits")


def _stripe(stripe: Stripe | None) -> Iterator[Finding]:
    if stripe is None:
        return
    for index, secret in enumerate(stripe.webhook_secrets):
        # With an empty one anybody could sign, and with `…` whoever has read our examples.
        digits = secret.get_secret_value().strip().removeprefix("whsec_")
        if not (digits and digits.isascii()):
            text = "is none; copy it from the endpoint's page at Stripe: whsec_…"
            yield Finding(("stripe", "webhook_secrets", index), text)


def _proxies(networks: Iterable[Network]) -> Iterator[Finding]:
    """Refuse to trust everybody: then anybody could choose the client address and origin we tell the upstream (F06)."""
    everybody = "would trust everybody; name the addresses of your own proxies"
    found = tuple(networks)
    for index, network in enumerate(found):
        if network.prefixlen == 0 or (isinstance(network, ipaddress.IPv6Network) and _IPV4_MAPPED.subnet_of(network)):
            yield Finding(("trusted_proxies", index), everybody)
            return
    # Halves that make up the whole are the whole.
    merged: list[Network] = []
    merged += ipaddress.collapse_addresses(network for network in found if isinstance(network, ipaddress.IPv4Network))
    merged += ipaddress.collapse_addresses(network for network in found if isinstance(network, ipaddress.IPv6Network))
    if any(network.prefixlen == 0 for network in merged):
        yield Finding(("trusted_proxies",), everybody)


def _upstream(name: str, upstream: Upstream) -> Iterator[Finding]:
    loc = ("upstreams", name)
    if upstream.addresses and upstream.url is not None:
        yield Finding((*loc, "addresses"), "write either url or addresses, not both")
    elif not upstream.addresses and upstream.url is None:
        yield Finding(loc, "give url, such as http://127.0.0.1:9000")
    schemes = {address.partition(":")[0] for address in urls_of(upstream)}
    if len(schemes) > 1:
        text = "write addresses of one kind: all http://, all https:// or all unix:"
        yield Finding((*loc, "addresses"), text)
    if len(set(upstream.addresses)) < len(upstream.addresses):
        yield Finding((*loc, "addresses"), "write each address once")
    for key in ("ca_file", "server_name"):
        if getattr(upstream, key) is not None and schemes != {"https"}:
            yield Finding((*loc, key), "is for https:// upstreams alone; leave it out")


def urls_of(upstream: Upstream) -> tuple[str, ...]:
    """Give all addresses of an upstream, however they were written."""
    return (*upstream.addresses, *((upstream.url,) if upstream.url is not None else ()))


def _route(index: int, route: Route, upstreams: Mapping[str, Upstream]) -> Iterator[Finding]:
    loc = ("routes", index)
    if route.upstream not in upstreams:
        yield Finding((*loc, "upstream"), f"no upstream has this name; there are: {', '.join(sorted(upstreams))}")
    if route.auth == "none" and (demands := demands_of(route)):
        text = f"auth: none reads no credential, so {', '.join(demands)} could never hold; write auth: required"
        yield Finding((*loc, "auth"), text)
    if route.auth != "none" and not route.accept:
        yield Finding((*loc, "accept"), "is empty, so nobody could pass; name a kind, such as session")
    if route.protocol == "socketio":
        yield from _socketio(loc, route, upstreams.get(route.upstream))


def _socketio(loc: tuple[str | int, ...], route: Route, upstream: Upstream | None) -> Iterator[Finding]:
    """Packets carry the caller's token in and an assertion out, and nothing else."""
    if route.auth == "none":
        yield Finding((*loc, "protocol"), "auth: none reads no credential, so no packet would be checked; leave it out")
    if upstream is not None and not upstream.assertion:
        text = f"protocol: socketio tells callers by assertions; write upstreams.{route.upstream}.assertion: true"
        yield Finding((*loc, "upstream"), text)


def _scopes(settings: Settings) -> Iterator[Finding]:
    """Refuse scopes that nothing declares: a mistyped one would shut every token out, and seem to guard something."""
    declared = BUILT_IN_SCOPES.union(settings.tokens.scopes)
    for index, route in enumerate(settings.routes):
        for place, scope in enumerate(route.scopes):
            if scope not in declared:
                text = "is no built-in scope and not in tokens.scopes, so no token could ever have it; declare it there"
                yield Finding(("routes", index, "scopes", place), text)


MACHINE_WORDS = ("clerk_api_key", "clerk_oauth", "clerk_m2m")


def _machine_tokens(settings: Settings) -> Iterator[Finding]:
    """Whether an opaque machine token is good can only be asked, and Clerk tells nobody without a key."""
    clerk = settings.clerk
    for index, route in enumerate(settings.routes):
        for place, word in enumerate(route.accept if route.auth != "none" else ()):
            own_key = word == "clerk_m2m" and clerk.machine_secret_key is not None
            if word in MACHINE_WORDS and clerk.secret_key is None and not own_key:
                key = "clerk.secret_key" if word != "clerk_m2m" else "clerk.machine_secret_key or clerk.secret_key"
                text = f"{word}: Clerk must be asked whether such a token is good; set {key}"
                yield Finding(("routes", index, "accept", place), text)


def demands_of(route: Route) -> tuple[str, ...]:
    """Name the rules a route has beyond `auth`."""
    rules = ("scopes", "roles", "organization_roles", "permissions", "features", "plans", "reverification")
    return tuple(rule for rule in rules if getattr(route, rule))


def _system_tokens(tokens: tuple[SystemToken, ...]) -> Iterator[Finding]:
    """A system token acts for nobody, so where it may come from is the half of its protection that cannot leak."""
    digests: set[str] = set()
    for index, token in enumerate(tokens):
        loc = ("system_tokens", index)
        if not token.networks:
            yield Finding((*loc, "networks"), "is empty; name the networks it may be used from, such as 10.0.0.0/8")
        if any(token.name == other.name for other in tokens[:index]):
            yield Finding((*loc, "name"), "is another token's already; logs could not tell them apart")
        if not digests.isdisjoint(token.sha256):
            yield Finding((*loc, "sha256"), "is another token's already; nobody could tell whose it is")
        digests.update(token.sha256)


def _receivers(settings: Settings) -> Iterator[Finding]:
    """Refuse to send names and keys in the clear. Errors do not repeat the address: Slack's is a secret."""
    addresses: list[tuple[Loc, str]] = []
    if settings.slack is not None:
        addresses.append((("slack", "webhook_url"), settings.slack.webhook_url.get_secret_value()))
    if settings.posthog is not None:
        addresses.append((("posthog", "host"), settings.posthog.host))
    if settings.stripe is not None:
        addresses.append((("stripe", "api_url"), settings.stripe.api_url))
    for loc, address in addresses:
        try:
            parts = urlsplit(parse_web_url(address))
        except ValueError as error:
            yield Finding(loc, str(error))
            continue
        if parts.scheme != "https" and not _is_loopback(parts.hostname or ""):
            yield Finding(loc, "write https://; http is for loopback addresses alone")
