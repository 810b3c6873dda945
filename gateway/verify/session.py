"""The rules of a Clerk session token, in Clerk's order.

Source: clerk/javascript packages/backend/src/jwt/verifyJwt.ts and tokens/request.ts, @clerk/backend 3.25.0. Pure: key
and time come from the caller. Refusals carry Clerk's own reason words. Stricter than Clerk's library: `iss` always
exact, RS256 alone, `sub` not empty, times in a sane range.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import RSAAlgorithm

from config.model import Clerk
from gateway.credentials.jwt_text import UnverifiedJwt
from gateway.credentials.kinds import Carrier, CredentialKind
from gateway.credentials.machine import jwt_kind
from gateway.errors import CredentialRejected
from gateway.verify.claims import VerifiedClaims

_ALGORITHMS = ["RS256"]
_RS256 = RSAAlgorithm(RSAAlgorithm.SHA256)
_KEY_BITS = 2048  # RFC 7518 §3.3
_KEY_ID = re.compile(r"[!-~]{1,256}", re.ASCII)
CATEGORY_MACHINE, CATEGORY_SESSION = "cl_B7d4PD333AAA", "cl_B7d4PD111AAA"
CATEGORY_TEMPLATE, CATEGORY_NONE = "cl_B7d4PD222AAA", "cl_I7d4PD111III"
_CATEGORIES_OF_SESSIONS = frozenset({CATEGORY_SESSION, CATEGORY_NONE})
# Parameters that change what the signed bytes mean. We speak none of them, so a token with one is not ours to read.
_UNSPOKEN = frozenset({"crit", "b64", "zip", "enc"})
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z; a later time is a mistake or an attempt


@dataclass(frozen=True, slots=True)
class SessionRules:
    """What one Clerk instance's session tokens must say.

    Attributes:
        issuers: Exact values of `iss`; empty refuses everything.
        authorized_parties: Exact values of `azp`; empty means no `azp` check.
        missing_azp_allowed: Carriers on which a token without `azp` passes although parties are set. Clerk itself
            mints such cookies on top-level navigations (clerk/javascript issue 9249).
        leeway_s: Tolerated clock skew, seconds.
        instance_id: The only `kid` taken, `ins_…`; None takes any key of the instance's own set.
        name_claims: Claims that may hold the person's name.
        email_claims: Claims that may hold the e-mail address.
    """

    issuers: tuple[str, ...]
    authorized_parties: tuple[str, ...] = ()
    missing_azp_allowed: frozenset[Carrier] = frozenset({Carrier.COOKIE})
    leeway_s: float = 5.0
    instance_id: str | None = None
    name_claims: tuple[str, ...] = field(default=("name",))
    email_claims: tuple[str, ...] = field(default=("email",))

    @classmethod
    def of(cls, clerk: Clerk) -> "SessionRules":
        """Take the rules out of loaded settings."""
        per_carrier = {Carrier.HEADER: clerk.missing_azp.header, Carrier.COOKIE: clerk.missing_azp.cookie}
        return cls(
            issuers=clerk.issuer,
            authorized_parties=clerk.authorized_parties,
            missing_azp_allowed=frozenset(carrier for carrier, word in per_carrier.items() if word == "allow"),
            leeway_s=clerk.leeway,
            instance_id=clerk.instance_id,
            name_claims=clerk.profile_claims.name,
            email_claims=clerk.profile_claims.email,
        )


def check_class(token: UnverifiedJwt) -> None:
    """Refuse what Clerk signs with the same key for other uses: templates, OAuth access tokens, machine tokens.

    A template token has no `sid`, can live for years and outlives the session (Clerk SEC-340). The check reads
    unproven text, which can only make a token be refused.

    Raises:
        CredentialRejected: `token-type-mismatch`.
    """
    if jwt_kind(token) is not CredentialKind.SESSION or not _is_category_of_sessions(token.header):
        raise CredentialRejected("token-type-mismatch")


def _is_category_of_sessions(header: Mapping[str, object]) -> bool:
    category = header.get("cat")
    return "cat" not in header or (isinstance(category, str) and category in _CATEGORIES_OF_SESSIONS)


def key_id(
    token: UnverifiedJwt, rules: SessionRules, *, types: Collection[str] = ("JWT",), by_machine: bool = False
) -> str:
    """Judge the header and say which key must have signed. `jku`, `x5u`, `jwk`, `x5c` are never looked at.

    Args:
        token: To be verified.
        rules: Of the instance.
        types: What `typ` may be; without one a token counts as `JWT`.
        by_machine: Clerk's category of machines may stand in `cat`.

    Raises:
        CredentialRejected: `token-invalid`, `token-invalid-algorithm` or `jwk-kid-mismatch`.
    """
    header = token.header
    if header.get("cat") == CATEGORY_MACHINE and not by_machine:
        raise CredentialRejected("token-invalid")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind not in types or not _UNSPOKEN.isdisjoint(header):
        raise CredentialRejected("token-invalid")
    if header.get("alg") not in _ALGORITHMS:
        raise CredentialRejected("token-invalid-algorithm")
    kid = header.get("kid")
    if not isinstance(kid, str) or _KEY_ID.fullmatch(kid) is None or rules.instance_id not in (None, kid):
        raise CredentialRejected("jwk-kid-mismatch")
    return kid


def check_signature(token: UnverifiedJwt, key: RSAPublicKey) -> None:
    """Check the signature, with the algorithm of our list and never the token's.

    PyJWT checks the signature alone. What it says of a token besides is another reading of bytes that `jwt_text.py`
    took apart more strictly, and `check_claims` judges.

    Raises:
        CredentialRejected: `token-invalid-signature`; also for a key too short to prove anything.
    """
    if key.key_size < _KEY_BITS or not _RS256.verify(token.signed, key, token.signature):
        raise CredentialRejected("token-invalid-signature")


def check_claims(token: UnverifiedJwt, rules: SessionRules, carrier: Carrier, now: float) -> VerifiedClaims:
    """Judge the claims of a token whose signature was checked, in Clerk's order: the first failure names the reason.

    Args:
        token: Signed by a key of the instance.
        rules: Of the instance.
        carrier: Decides what a missing `azp` means.
        now: Unix seconds.

    Raises:
        CredentialRejected: Clerk's reason word of the first rule broken.
    """
    claims = token.payload
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject:
        raise CredentialRejected("token-verification-failed")
    _check_audience(claims)
    _check_authorized_party(claims, rules, carrier)
    issuer = claims.get("iss")
    if not isinstance(issuer, str) or issuer not in rules.issuers:
        raise CredentialRejected("token-invalid-issuer")
    _check_times(claims, now, rules.leeway_s)
    return VerifiedClaims(claims)


def _check_audience(claims: Mapping[str, object]) -> None:
    """`aud` is not compared: session tokens carry none, and there is no setting for one. It must still be an `aud`."""
    audience = claims.get("aud", [])
    texts = audience if isinstance(audience, list) else [audience]
    if not all(isinstance(text, str) for text in texts):
        raise CredentialRejected("token-verification-failed")


def _check_authorized_party(claims: Mapping[str, object], rules: SessionRules, carrier: Carrier) -> None:
    if not rules.authorized_parties:
        return
    if "azp" not in claims:
        allowed = carrier in rules.missing_azp_allowed
    else:
        party = claims["azp"]
        allowed = isinstance(party, str) and party != "" and party in rules.authorized_parties
    if not allowed:
        raise CredentialRejected("token-invalid-authorized-parties")


def _check_times(claims: Mapping[str, object], now: float, leeway_s: float) -> None:
    """`exp` is needed; `nbf` and `iat` may be absent, but not malformed."""
    if _seconds(claims.get("exp")) <= now - leeway_s:
        raise CredentialRejected("token-expired")
    if "nbf" in claims and _seconds(claims["nbf"]) > now + leeway_s:
        raise CredentialRejected("token-not-active-yet")
    if "iat" in claims and _seconds(claims["iat"]) > now + leeway_s:
        raise CredentialRejected("token-iat-in-the-future")


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CredentialRejected("token-verification-failed")
    if not math.isfinite(value) or not 0 <= value <= _LAST_SECOND:
        raise CredentialRejected("token-verification-failed")
    return float(value)
