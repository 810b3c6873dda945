"""Find and classify what the client presented, by shape alone; nothing here is proven.

Precedence: Bearer, then X-API-Key, then a websocket token (`websocket.py`), then cookie: what a program chose to send
comes before what a browser attaches by itself. Duplicate fields are the caller's to refuse; several Cookie fields are
one list.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.credentials.jwt_text import MAX_TOKEN_CHARS, UnverifiedJwt, parse_jwt
from gateway.credentials.kinds import Carrier, Credential, CredentialKind
from gateway.credentials.machine import jwt_kind, opaque_kind
from gateway.credentials.session_cookie import CookieRules, find_session_cookie
from gateway.errors import CredentialMalformed, CredentialRejected

_BLANKS = b" \t"
# The scheme ends where the characters of a scheme end (RFC 9110 §5.6.2), so `bearer:x` is ours as well: whatever an
# upstream might take for Bearer must be judged here and must not pass as somebody else's scheme.
_BEARER = re.compile(rb"bearer(?![!#$%&'*+.^_`|~0-9A-Za-z-])", re.IGNORECASE)
# token68 of RFC 9110 §11.2, but `=` anywhere: padding inside a token is for the decoder to refuse.
_TOKEN68 = re.compile(rb"[A-Za-z0-9._~+/=-]+")
# Whatever else stands in a value, tokens are made of these: another reader may cut it where we would not.
_WORD = re.compile(rb"[A-Za-z0-9._-]+")
_API_TOKEN, _SYSTEM_TOKEN = b"agt_", b"ags_"
AUDIENCES = {"websocket": CredentialKind.WEBSOCKET_TOKEN, "agent": CredentialKind.AGENT_TOKEN}
"""Kinds of token the gateway mints, by their `aud`."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What tokens of ours are known by where none is read, beside `agt_…` and `ags_…`.

    Attributes:
        issuers: Exact `iss` of our sessions and of what the gateway mints.
        prefixes: Of Clerk's opaque machine tokens, if some route takes them; else they are the application's.
    """

    issuers: frozenset[str]
    prefixes: tuple[bytes, ...] = ()


def find_credentials(
    authorization: bytes | None,
    api_key: bytes | None,
    cookies: Sequence[bytes],
    rules: CookieRules,
    now: float,
    own_issuer: str = "",
    websocket: Sequence[Credential] = (),
) -> tuple[Credential, ...]:
    """Find every credential of ours, the one that counts first.

    Args:
        authorization: The only Authorization field value.
        api_key: The only X-API-Key field value.
        cookies: All Cookie field values, in order.
        rules: Of the Clerk instance.
        now: Unix seconds.
        own_issuer: `iss` of the tokens the gateway mints; empty: it mints none.
        websocket: What `websocket.py` found, on a handshake that may carry it.

    Returns:
        Credentials in order of precedence; empty when nothing of ours was presented. A token over 16 KiB
        (`MAX_TOKEN_CHARS`) comes without its text, refused as `token-too-long`.

    Raises:
        CredentialMalformed: An Authorization or X-API-Key value of ours breaks its grammar (RFC 6750 §2.1).
    """
    found = []
    if authorization is not None and authorization_is_ours(authorization):
        found.append(_classified(_bearer_token(authorization.strip(_BLANKS)), own_issuer))
    if api_key is not None and api_key_is_ours(api_key):
        found.append(_classified(api_key.strip(_BLANKS), own_issuer))
    found += websocket
    if cookies:
        cookie = find_session_cookie(cookies, rules, now)
        if cookie is not None:
            found.append(cookie)
    return tuple(found)


def authorization_is_ours(value: bytes) -> bool:
    """Tell whether an Authorization value is a credential of ours, good or bad: it must not go up by itself.

    Ours are Bearer in any spelling, and a single word, which Clerk reads as the token itself.
    """
    value = value.strip(_BLANKS)
    return _BEARER.match(value) is not None or (value != b"" and b" " not in value and b"\t" not in value)


def api_key_is_ours(value: bytes) -> bool:
    """Tell whether an X-API-Key value is a token of ours; other values belong to the application."""
    return value.strip(_BLANKS).startswith(_API_TOKEN)


def may_pass(value: bytes, marks: Marks) -> bool:
    """Tell whether a field value a route does not read may go up: no token of ours is in it, whoever signed it.

    Ours are `agt_…`, `ags_…`, what bears a mark, and JWTs that cannot be read. What another issuer signed belongs to
    the application.

    Args:
        value: Of Authorization, with its scheme if it has one, or of X-API-Key.
        marks: Of tokens that are taken here.
    """
    words: list[bytes] = _WORD.findall(value)
    return not any(_is_ours(word, marks) for word in words)


def _is_ours(token: bytes, marks: Marks) -> bool:
    if token.startswith((_API_TOKEN, _SYSTEM_TOKEN, *marks.prefixes)):
        return True
    if not _looks_like_jwt(token):
        return False
    try:
        return parse_jwt(token.decode("latin-1")).payload.get("iss") in marks.issuers
    except CredentialRejected:
        return True


def _bearer_token(value: bytes) -> bytes:
    """Take the token out of `Bearer token` or `token`.

    Exactly one space: readers disagree on what more of them, or a second word, mean.

    Raises:
        CredentialMalformed: `Bearer` without a token or followed by anything but one space.
    """
    scheme = _BEARER.match(value)
    if scheme is None:
        return value
    if value[scheme.end() : scheme.end() + 1] != b" ":
        raise CredentialMalformed("authorization-malformed")
    return value[scheme.end() + 1 :]


def _classified(token: bytes, own_issuer: str) -> Credential:
    """Say by its shape what a token is; a shape we do not know is a session that verification refuses.

    Raises:
        CredentialMalformed: Characters no token has.
    """
    if token.startswith(_API_TOKEN):
        kind = CredentialKind.API_TOKEN
    elif token.startswith(_SYSTEM_TOKEN):
        kind = CredentialKind.SYSTEM_TOKEN
    else:
        kind = opaque_kind(token) or _jwt_kind(token, own_issuer)
    if len(token) > MAX_TOKEN_CHARS:
        return Credential(kind, Carrier.HEADER, "", "token-too-long")
    if _TOKEN68.fullmatch(token) is None:
        raise CredentialMalformed("authorization-malformed")
    return Credential(kind, Carrier.HEADER, token.decode("ascii"))


def _looks_like_jwt(token: bytes) -> bool:
    return token.startswith(b"ey") and token.count(b".") == 2  # base64url of `{"`


def _jwt_kind(token: bytes, own_issuer: str) -> CredentialKind:
    """Say by its own words what a JWT is; what is none, or cannot be read, is a session."""
    if not _looks_like_jwt(token):
        return CredentialKind.SESSION
    try:
        parsed = parse_jwt(token.decode("latin-1"))
    except CredentialRejected:
        return CredentialKind.SESSION
    if own_issuer and parsed.payload.get("iss") == own_issuer:
        return _minted_kind(parsed)
    return jwt_kind(parsed)


def _minted_kind(token: UnverifiedJwt) -> CredentialKind:
    """Say by its `aud` which kind a token of ours claims to be; an assertion for an upstream is no credential.

    A session is what it then counts as, and no session is signed as our tokens are.
    """
    audience = token.payload.get("aud")
    return AUDIENCES.get(audience, CredentialKind.SESSION) if isinstance(audience, str) else CredentialKind.SESSION
