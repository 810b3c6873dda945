"""Clerk's machine tokens by their shape: API keys, OAuth access tokens, tokens of machines. Pure; nothing is proven.

Opaque ones are told by their prefix, JWTs by what they say of themselves (clerk/javascript packages/backend/src/tokens/
machine.ts). A session never has one of these shapes, so that a route which takes sessions alone refuses all of them
before anybody is asked.
"""

from collections.abc import Collection

from gateway.credentials.jwt_text import UnverifiedJwt
from gateway.credentials.kinds import CredentialKind

OPAQUE = {
    b"ak_": CredentialKind.CLERK_API_KEY,
    b"oat_": CredentialKind.CLERK_OAUTH,
    b"mt_": CredentialKind.CLERK_M2M,
}
MACHINE = frozenset(OPAQUE.values())
OAUTH_TYPES = frozenset({"at+jwt", "application/at+jwt"})
"""`typ` of an OAuth access token (RFC 9068 §2.1), as Clerk compares it: to the letter."""
MACHINE_SUBJECT = "mch_"


def opaque_kind(token: bytes) -> CredentialKind | None:
    """Say by its prefix which opaque token this claims to be; None: none."""
    for prefix, kind in OPAQUE.items():
        if token.startswith(prefix):
            return kind
    return None


def jwt_kind(token: UnverifiedJwt) -> CredentialKind:
    """Say which of Clerk's JWTs this claims to be; a machine's subject counts before the type, as in Clerk's library.

    Returns:
        SESSION for whatever is no machine token; verification refuses it if it is no session either.
    """
    subject, kind = token.payload.get("sub"), token.header.get("typ")
    if isinstance(subject, str) and subject.startswith(MACHINE_SUBJECT):
        return CredentialKind.CLERK_M2M
    if isinstance(kind, str) and kind in OAUTH_TYPES:
        return CredentialKind.CLERK_OAUTH
    return CredentialKind.SESSION


def prefixes_of(kinds: Collection[CredentialKind]) -> tuple[bytes, ...]:
    """Give the prefixes of the opaque tokens among these kinds."""
    return tuple(prefix for prefix, kind in OPAQUE.items() if kind in kinds)
