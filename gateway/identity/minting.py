"""Minting websocket and agent tokens for a caller; `verify/minted.py` takes them back.

Minted tokens live in the memory of this process alone. One of each kind is kept for each session or API token and what
it may do, and handed out again while more than half of its life is left: a page that asks for the current user on every
navigation gets the same token, and one that opens a connection a moment later still gets in.
"""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from secrets import token_urlsafe

from cachebox import LRUCache

from gateway.actors.beliefs import Caller
from gateway.credentials.kinds import CredentialKind
from gateway.errors import VerifierUnavailable
from gateway.verify.minted import AUDIENCE, Ring
from provisioning.errors import RingEmpty
from provisioning.records import Role
from provisioning.token_rules import held

MINT_SCOPE = "tokens:mint"
"""What an API token needs to get tokens minted."""
_MINTING = frozenset({CredentialKind.SESSION, CredentialKind.API_TOKEN})


@dataclass(frozen=True, slots=True)
class Minted:
    """A token of ours.

    Attributes:
        expires_at: Unix seconds, whole.
    """

    token: str = field(repr=False)
    expires_at: int


@dataclass(frozen=True, slots=True)
class _Kept:
    minted: Minted
    fresh_until: float  # wall clock


class Minter:
    """Mints for one set of settings."""

    def __init__(
        self,
        ring: Ring,
        issuer: str,
        *,
        websocket_life_s: float,
        agent_life_s: float,
        entries: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take what tokens are made of.

        Args:
            ring: Signs.
            issuer: `iss`, our public URL.
            websocket_life_s: Longest life of a websocket token.
            agent_life_s: Of an agent token.
            entries: How many tokens are kept.
            clock: Unix seconds.
        """
        self._ring = ring
        self._issuer = issuer
        self._lives_s = {
            CredentialKind.WEBSOCKET_TOKEN: websocket_life_s,
            CredentialKind.AGENT_TOKEN: agent_life_s,
        }
        self._clock = clock
        self._kept: LRUCache[Hashable, _Kept] = LRUCache(entries)

    def current(self, kind: CredentialKind, caller: Caller) -> Minted | None:
        """Give the caller's token of a kind, the one given before while over half of its life is left.

        Returns:
            None for a caller who gets none (`may_mint`).

        Raises:
            VerifierUnavailable: There is nothing to sign with yet.
        """
        if not may_mint(caller):
            return None
        key = (kind, _facts(caller))
        kept: _Kept | None = self._kept.get(key)
        now = self._clock()
        if kept is not None and now < kept.fresh_until:
            return kept.minted
        minted = self.fresh(kind, caller)
        if minted is not None:
            self._kept.insert(key, _Kept(minted, now + (minted.expires_at - now) / 2))
        return minted

    def fresh(
        self, kind: CredentialKind, caller: Caller, *, path: str | None = None, origin: str | None = None
    ) -> Minted | None:
        """Mint a token that nobody was given before.

        Args:
            kind: Websocket or agent token.
            caller: For whom.
            path: The only path it shall open; None: any route that takes it.
            origin: The only `Origin` that shall bring it, lower-cased; None: any.

        Returns:
            None for a caller who gets none (`may_mint`), or whose API token is about to expire.

        Raises:
            VerifierUnavailable: There is nothing to sign with yet.
        """
        if not may_mint(caller):
            return None
        principal, now = caller.actor.principal, int(self._clock())
        expires_at = int(now + self._lives_s[kind])
        if principal.kind is CredentialKind.API_TOKEN:  # a session outlives each of its tokens, an API token is one
            expires_at = int(min(expires_at, principal.expires_at))
        if expires_at <= now:
            return None
        claims: dict[str, object] = {
            "iss": self._issuer,
            "aud": AUDIENCE[kind],
            "iat": now,
            "exp": expires_at,
            "jti": token_urlsafe(16),
            "token_use": str(kind),
            "path": path,
            "origin": origin,
            **_claims_of(kind, caller),
        }
        try:
            token = self._ring.sign({name: value for name, value in claims.items() if value is not None})
        except RingEmpty:
            raise VerifierUnavailable("ring_empty") from None
        return Minted(token, expires_at)


def _claims_of(kind: CredentialKind, caller: Caller) -> dict[str, object]:
    """What a caller's credential proved, and who we know them as; an agent is nobody's administrator."""
    actor, principal = caller.actor, caller.actor.principal
    role = Role.USER if kind is CredentialKind.AGENT_TOKEN else actor.role
    organization = principal.organization
    return {
        "sub": actor.user_id,
        "role": str(role),
        "auth": str(principal.kind),
        "sid": principal.session_id,
        "session_iat": principal.issued_at,  # a person may be signed out up to a moment; this is as old as its session
        "token_id": principal.token_id,
        "scopes": None if principal.scopes is None else list(held(principal.scopes, role)),
        "org": {
            "id": actor.organization_id,
            "role": actor.organization_role,
            "permissions": list(actor.organization_permissions),
        },
        "fea": list(principal.features) or None,
        "pla": list(principal.plans) or None,
        "act": _act(caller),
        "clerk": {
            "iss": principal.issuer,  # empty for an API token, which our own records vouch for
            "sub": principal.subject,
            "org": organization.id if organization is not None else None,
            "slug": organization.slug if organization is not None else None,
        },
    }


def may_mint(caller: Caller) -> bool:
    """Tell whether tokens are minted for a caller.

    For sessions, and for API tokens with the scope `tokens:mint`; never for what was minted itself, and never without
    something to bind the token to: it must be able to end with its parent.
    """
    principal = caller.actor.principal
    if principal.kind not in _MINTING or (principal.session_id is None and principal.token_id is None):
        return False
    return principal.scopes is None or MINT_SCOPE in principal.scopes


def _act(caller: Caller) -> dict[str, str] | None:
    impersonator = caller.actor.principal.impersonator
    if impersonator is None:
        return None
    act = {"sub": impersonator.subject}
    return act | {"sid": impersonator.session_id} if impersonator.session_id is not None else act


def _facts(caller: Caller) -> Hashable:
    """Everything a token states: who has another role a moment later gets another token."""
    actor, principal = caller.actor, caller.actor.principal
    return (
        principal.kind,
        principal.issuer,
        principal.session_id,
        principal.token_id,
        principal.expires_at if principal.kind is CredentialKind.API_TOKEN else None,
        actor.user_id,
        actor.role,
        actor.organization_id,
        actor.organization_role,
        actor.organization_permissions,
        principal.features,
        principal.plans,
        principal.scopes,
        principal.impersonator,
    )
