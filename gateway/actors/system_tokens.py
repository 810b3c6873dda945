"""System tokens: callers that are no user, known by the SHA-256 of their token and by the network they call from.

The settings hold digests alone, the current one and the one before, so that a token is changed without an outage. Every
digest is compared in constant time, and all of them each time. Nothing of this is cached: a cached verdict would
forget the network.
"""

import hmac
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256

from config.model import SystemToken
from config.values import Network
from gateway.actors.actor import Actor
from gateway.actors.beliefs import Caller
from gateway.credentials.kinds import Carrier, Credential, CredentialKind
from gateway.errors import CredentialRejected
from gateway.identity.header_set import identity_block
from gateway.verify.principal import Principal
from provisioning.records import Organization, Role, Standing, User

_NEVER = float("inf")
_EPOCH = datetime.fromtimestamp(0, UTC)
NOBODY = Standing(User("", "", Role.SYSTEM, _EPOCH, _EPOCH), Organization("", None, "", _EPOCH, _EPOCH), "")
"""Our records of a caller that has none: a system token, or a machine of Clerk's; no own endpoint takes them."""


@dataclass(frozen=True, slots=True)
class _Known:
    digests: tuple[bytes, ...] = field(repr=False)
    networks: tuple[Network, ...]
    caller: Caller


class SystemTokens:
    """Those of the settings."""

    def __init__(self, tokens: Sequence[SystemToken]) -> None:
        self._known = tuple(
            _Known(tuple(map(bytes.fromhex, token.sha256)), token.networks, _caller(token.name)) for token in tokens
        )

    def resolve(self, credential: Credential, address: str) -> Caller:
        """Verify a token.

        Args:
            credential: A system token.
            address: Of the client, as `edge/forwarded.py` sees it; empty on a Unix socket, which is in no network.

        Raises:
            CredentialRejected: `system_token_unknown`, or `system_token_network` from elsewhere; the client is told
                the same, so that a leaked token cannot be tried out.
        """
        presented = sha256(credential.token.encode()).digest()
        found = None
        for known in self._known:
            for digest in known.digests:
                if hmac.compare_digest(digest, presented):
                    found = known
        if found is None or credential.refusal is not None:
            raise CredentialRejected("system_token_unknown")
        if not address or not any(ipaddress.ip_address(address) in network for network in found.networks):
            raise CredentialRejected("system_token_network")
        return found.caller


def _caller(name: str) -> Caller:
    principal = Principal(
        kind=CredentialKind.SYSTEM_TOKEN,
        carrier=Carrier.HEADER,
        issuer="",  # no issuer of people: it is never the same person as anybody
        subject=subject_of(name),
        expires_at=_NEVER,
    )
    actor = Actor("", Role.SYSTEM, "", "", (), principal)
    return Caller(actor, NOBODY, identity_block(actor))


def subject_of(name: str) -> str:
    """Whom a system token of this name speaks for."""
    return f"system:{name}"


def narrowed(before: Sequence[SystemToken], after: Sequence[SystemToken]) -> list[str]:
    """Names of the system tokens that do not all count any more as they did: one of their digests, or networks."""
    now = {token.name: token for token in after}
    return [
        token.name
        for token in before
        if token.name not in now
        or not set(token.sha256) <= set(now[token.name].sha256)
        or not set(token.networks) <= set(now[token.name].networks)
    ]
