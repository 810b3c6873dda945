"""Which session cookie counts, and when Clerk would not sign in with it although its token may be good.

Clerk's rules (clerk/javascript packages/backend/src/tokens/authenticateContext.ts `usesSuffixedCookies`, request.ts,
3.25.0), without handshakes: where Clerk would send a browser round, this gateway counts it as signed out, with the same
reason. All of it reads unproven tokens: it selects and refuses; the signature decides.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from cachebox import LRUCache

from config.publishable_key import PublishableKey
from gateway.credentials.cookies import find_cookies
from gateway.credentials.jwt_text import MAX_TOKEN_CHARS, parse_jwt
from gateway.credentials.kinds import Carrier, Credential, CredentialKind
from gateway.errors import CredentialRejected

_SCHEME = re.compile(r"https?://", re.IGNORECASE)
_LEADING_INTEGER = re.compile(r"\s*([+-]?[0-9]{1,20})", re.ASCII)
_NO_SESSION_TOKEN = "client-uat-but-no-session-token"
_NO_DEV_BROWSER = "dev-browser-missing"
_ISSUER_CHARS = 256
_NAMES = (b"__session", b"__client_uat", b"__clerk_db_jwt")


@dataclass(frozen=True, slots=True)
class CookieRules:
    """What the publishable key says of an instance's cookies.

    Attributes:
        suffix: Of the instance's own cookies; None reads un-suffixed names alone.
        frontend_api: Host that `iss` of an un-suffixed cookie must name to be this instance's.
        development: A test instance: its browsers also carry `__clerk_db_jwt`.
        names: Every cookie name that is read.
    """

    suffix: str | None = None
    frontend_api: str | None = None
    development: bool = False
    names: frozenset[bytes] = field(init=False)

    def __post_init__(self) -> None:
        suffixed = frozenset(_suffixed(name, self.suffix) for name in _NAMES) if self.suffix else frozenset()
        object.__setattr__(self, "names", frozenset(_NAMES) | suffixed)

    @classmethod
    def of(cls, key: PublishableKey | None) -> "CookieRules":
        """Take the rules out of the key; without one, un-suffixed names and the rules of production."""
        if key is None:
            return cls()
        return cls(key.cookie_suffix, key.frontend_api, key.instance_type == "development")


@dataclass(frozen=True, slots=True)
class _Cookies:
    """One set of an instance's cookies, suffixed or not; empty text when not sent.

    Attributes:
        claims: What the session token says, without any proof; empty when it cannot be read.
    """

    session: str = field(repr=False)
    client_uat: str
    dev_browser: str = field(repr=False)
    claims: Mapping[str, object] = field(repr=False)


def find_session_cookie(values: Sequence[bytes], rules: CookieRules, now: float) -> Credential | None:
    """Find the session cookie of this instance.

    Args:
        values: All Cookie field values, in order.
        rules: Of the instance.
        now: Unix seconds.

    Returns:
        None when nobody claims to be signed in (Clerk's `session-token-and-uat-missing`). Otherwise a credential, with
        `refusal` set when it must not sign anybody in.
    """
    if not any(b"__" in value for value in values):
        return None
    jar = find_cookies(values, rules.names)
    if not jar:
        return None
    chosen = _chosen(jar, rules, now)
    client_uat = _leading_integer(chosen.client_uat)
    if not chosen.session and client_uat == 0:
        return None
    if len(chosen.session) > MAX_TOKEN_CHARS:
        return Credential(CredentialKind.SESSION, Carrier.COOKIE, "", "token-too-long")
    refusal = _refusal(chosen, client_uat, rules)
    return Credential(CredentialKind.SESSION, Carrier.COOKIE, chosen.session, refusal)


def is_sign_alone(credential: Credential) -> bool:
    """Tell whether there is no session token, but only `__client_uat`, which says that somebody is signed in."""
    return not credential.token and credential.refusal in (_NO_SESSION_TOKEN, _NO_DEV_BROWSER)


def _refusal(cookies: _Cookies, client_uat: int, rules: CookieRules) -> str | None:
    """Say why the cookies sign nobody in, before any signature; None when the token decides."""
    if rules.development and not cookies.dev_browser:
        return _NO_DEV_BROWSER
    if client_uat == 0:
        return "session-token-but-no-client-uat"
    if not cookies.session:
        return _NO_SESSION_TOKEN
    issued_at = cookies.claims.get("iat")
    if isinstance(issued_at, int | float) and issued_at < client_uat:
        return "session-token-iat-before-client-uat"
    return None


def _chosen(jar: Mapping[bytes, str], rules: CookieRules, now: float) -> _Cookies:
    """Choose between the suffixed and the un-suffixed set, both of which a browser may carry."""
    plain = _read(jar, None)
    if rules.suffix is None:
        return plain
    suffixed = _read(jar, rules.suffix)
    return suffixed if _uses_suffixed(plain, suffixed, rules, now) else plain


def _read(jar: Mapping[bytes, str], suffix: str | None) -> _Cookies:
    session, client_uat, dev_browser = (jar.get(_suffixed(name, suffix) if suffix else name, "") for name in _NAMES)
    return _Cookies(session, client_uat, dev_browser, _unverified(session))


def _uses_suffixed(plain: _Cookies, suffixed: _Cookies, rules: CookieRules, now: float) -> bool:
    """Clerk's `usesSuffixedCookies`, in its order; the first hit decides."""
    issuer = plain.claims.get("iss")
    if plain.session and not issuer:
        return False
    if plain.session and (not isinstance(issuer, str) or _SCHEME.sub("", issuer) != rules.frontend_api):
        return True
    if not suffixed.client_uat and not suffixed.session:
        return False
    plain_in, suffixed_in = plain.client_uat != "0", suffixed.client_uat != "0"
    if plain_in and suffixed_in and _number(plain.claims.get("iat")) > _number(suffixed.claims.get("iat")):
        return False
    if plain_in and not suffixed_in:
        return False
    expired = _number(suffixed.claims.get("exp"), float("inf")) <= int(now)
    if rules.development and suffixed_in and not plain_in and expired:
        return False
    return bool(suffixed.client_uat) or not suffixed.session


# A browser sends the same cookies for a minute, and reading two tokens costs more than all the rest of a known request.
_read_before: LRUCache[bytes, Mapping[str, object]] = LRUCache(4096)


def _unverified(token: str) -> Mapping[str, object]:
    """The claims that select a cookie, remembered by the token's hash; empty when there is nothing to read."""
    if not token:
        return {}
    digest = sha256(token.encode()).digest()
    claims: Mapping[str, object] | None = _read_before.get(digest)
    if claims is None:
        try:
            payload = parse_jwt(token).payload
        except CredentialRejected:
            payload = {}
        claims = {name: payload[name] for name in ("iss", "iat", "exp") if _is_small(payload.get(name))}
        _read_before.insert(digest, claims)
    return claims


def _is_small(value: object) -> bool:
    """True for what is worth remembering: an unproven token must not choose how much memory it takes."""
    return isinstance(value, int | float) or (isinstance(value, str) and len(value) <= _ISSUER_CHARS)


def _number(value: object, otherwise: float = 0.0) -> float:
    return value if isinstance(value, int | float) else otherwise


def _leading_integer(text: str) -> int:
    """Read as JavaScript's `parseInt` does, 0 for anything else."""
    match = _LEADING_INTEGER.match(text)
    return int(match[1]) if match else 0


def _suffixed(name: bytes, suffix: str) -> bytes:
    return name + b"_" + suffix.encode()
