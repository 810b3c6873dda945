"""The kinds of credential, and where they are carried."""

from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256


class CredentialKind(StrEnum):
    """Kinds a route can accept; the words of the `accept` setting, of `X-Actor-Auth` and of metric labels."""

    SESSION = "session"
    API_TOKEN = "api_token"
    WEBSOCKET_TOKEN = "websocket_token"
    AGENT_TOKEN = "agent_token"
    SYSTEM_TOKEN = "system_token"
    CLERK_API_KEY = "clerk_api_key"
    CLERK_OAUTH = "clerk_oauth"
    CLERK_M2M = "clerk_m2m"

    __hash__ = str.__hash__  # Enum's own is a Python function, and keys are made of these on the hot path


class Carrier(StrEnum):
    """Where a credential was found. It decides the `azp` rule and the cross-site rule."""

    HEADER = "header"
    COOKIE = "cookie"
    QUERY = "query"
    SUBPROTOCOL = "subprotocol"
    PACKET = "packet"

    __hash__ = str.__hash__


@dataclass(frozen=True, slots=True)
class Credential:
    """One presented credential, unproven.

    Attributes:
        kind: What its shape says it is.
        carrier: Where it was found.
        token: The token text; secret, so never shown.
        refusal: Why it must count as bad without a look at its signature (Clerk's cookie rules, for example
            `client-uat-but-no-session-token`), a reason word; None when verification decides.
    """

    kind: CredentialKind
    carrier: Carrier
    token: str = field(repr=False)
    refusal: str | None = None

    @property
    def digest(self) -> bytes:
        """Key under which caches know it: a hash, because no raw secret is a cache key."""
        return digest_of(self.carrier, self.token.encode())


def digest_of(carrier: Carrier, token: bytes) -> bytes:
    """Hash a token with its carrier (the `azp` rule differs between carriers); its kind follows from its text.

    A token from a header is hashed as it is: `edge/recent_heads.py` does so too.
    """
    return sha256(_PREFIXES[carrier] + token).digest()


_PREFIXES = {  # no token holds a NUL
    Carrier.HEADER: b"",
    Carrier.COOKIE: b"cookie\0",
    Carrier.QUERY: b"query\0",
    Carrier.SUBPROTOCOL: b"subprotocol\0",
    Carrier.PACKET: b"packet\0",
}
