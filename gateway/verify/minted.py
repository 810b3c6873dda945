"""Tokens of our own making: websocket and agent tokens. Verification; `identity/minting.py` makes them.

An ES256 JWT of the key ring, short-lived, that states what was so when it was minted: who, in which organization, with
which scopes, behind which session or API token. It is bound to those: what our records say now must still fit
(`check_standing`). An assertion for an upstream is signed by the same ring and names the same person, so a token of
ours says in `token_use` what it is for: whoever receives assertions cannot present them as a credential, whatever the
upstream is called.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway.credentials.jwt_text import parse_jwt
from gateway.credentials.kinds import Carrier, Credential, CredentialKind
from gateway.errors import CredentialRejected, StoreUnavailable, VerifierUnavailable
from gateway.verify.principal import Binding, ClerkOrganization, Impersonator, Principal
from provisioning.errors import DatabaseUnavailable, RingEmpty, SignatureRejected
from provisioning.records import Standing

MINTED = frozenset({CredentialKind.WEBSOCKET_TOKEN, CredentialKind.AGENT_TOKEN})
AUDIENCE = {CredentialKind.WEBSOCKET_TOKEN: "websocket", CredentialKind.AGENT_TOKEN: "agent"}
_CARRIERS = {
    CredentialKind.WEBSOCKET_TOKEN: frozenset({Carrier.QUERY, Carrier.SUBPROTOCOL, Carrier.PACKET}),
    CredentialKind.AGENT_TOKEN: frozenset({Carrier.HEADER}),
}
KEY_UNKNOWN = "minted_key_unknown"
_REASONS = {"expired": "minted_expired", "kid_unknown": KEY_UNKNOWN}
_SKEW_S = 5.0
"""Seconds the clocks of replicas may differ: a token may be that much younger than now."""


class Ring(Protocol):
    """What signs and verifies: the key ring (`provisioning/key_ring.py`)."""

    def sign(self, claims: Mapping[str, object]) -> str:
        """Sign claims as a JWT."""

    def verify(self, token: str, *, audience: str) -> dict[str, object]:
        """Check signature and audience, and give the claims."""

    async def refresh(self) -> None:
        """Look for keys that are new."""


@dataclass(frozen=True, slots=True)
class MintedTokens:
    """Verifies what we minted.

    Attributes:
        issuer: Exact `iss`, our public URL.
        clerk_issuers: Whose subjects count; a token minted under another instance's settings is refused.
        clock: Unix seconds.
    """

    ring: Ring
    issuer: str
    clerk_issuers: Collection[str]
    clock: Callable[[], float]

    def verify(self, credential: Credential) -> Principal:
        """Verify a websocket or agent token; waits for nothing.

        Raises:
            CredentialRejected: `minted_carrier` where its kind is not carried; `minted_invalid` when it is none of
                ours, or another token than its carrier wants; `minted_expired`; KEY_UNKNOWN: `refreshed` may know.
            VerifierUnavailable: There are no keys.
        """
        kind = credential.kind
        if credential.carrier not in _CARRIERS[kind]:
            raise CredentialRejected("minted_carrier")
        if parse_jwt(credential.token).payload.get("iss") != self.issuer:  # a session in a URL, say
            raise CredentialRejected("minted_invalid")
        try:
            claims = self.ring.verify(credential.token, audience=AUDIENCE[kind])
        except RingEmpty:
            raise VerifierUnavailable("ring_empty") from None
        except SignatureRejected as error:
            raise CredentialRejected(_REASONS.get(error.reason, "minted_invalid")) from error
        try:
            return self._principal(claims, credential)
        except (KeyError, TypeError, ValueError):
            raise CredentialRejected("minted_invalid") from None

    async def refreshed(self, credential: Credential) -> Principal:
        """Verify once more, after another look at the keys: another replica may have begun with a new one.

        Raises:
            CredentialRejected: As `verify`.
            VerifierUnavailable: Records cannot be asked now.
        """
        try:
            await self.ring.refresh()
        except DatabaseUnavailable:
            raise StoreUnavailable("database_unavailable") from None
        return self.verify(credential)

    def _principal(self, claims: Mapping[str, object], credential: Credential) -> Principal:
        now = self.clock()
        if claims["iss"] != self.issuer or claims["token_use"] != credential.kind:
            raise CredentialRejected("minted_invalid")
        expires_at = _seconds(claims["exp"])
        if expires_at <= now:
            raise CredentialRejected("minted_expired")
        if _seconds(claims["iat"]) > now + _SKEW_S:
            raise CredentialRejected("minted_invalid")
        clerk, own = _object(claims["clerk"]), _object(claims["org"])
        token_id = _optional(claims.get("token_id"))
        # An API token names no issuer: our own records vouch for it, and are asked for it again.
        if clerk["iss"] not in self.clerk_issuers and not (clerk["iss"] == "" and token_id is not None):
            raise CredentialRejected("minted_invalid")
        act = claims.get("act")
        scopes = claims.get("scopes")
        return Principal(
            kind=credential.kind,
            carrier=credential.carrier,
            issuer=str(clerk["iss"]),
            subject=_text(clerk["sub"]),
            expires_at=expires_at,
            session_id=_optional(claims.get("sid")),
            issued_at=_seconds(claims.get("session_iat", claims["iat"])) if token_id is None else None,
            organization=_organization(clerk, own),
            impersonator=None if act is None else _impersonator(_object(act)),
            features=_texts(claims.get("fea", [])),
            plans=_texts(claims.get("pla", [])),
            scopes=None if scopes is None else _texts(scopes),
            token_id=token_id,
            binding=Binding(
                _text(claims["jti"]),
                _text(claims["sub"]),
                _text(own["id"]),
                _optional(claims.get("path")),
                _optional(claims.get("origin")),
            ),
        )


def check_standing(principal: Principal, standing: Standing) -> None:
    """Hold a minted token against what our records say now.

    A role that changed since refuses it, rather than to guess which permissions are left: a new one is a call away.

    Raises:
        CredentialRejected: `minted_parent_gone`: the records are not those it was minted for; `minted_role_changed`.
    """
    binding, organization = principal.binding, principal.organization
    if binding is None:
        return
    if (standing.user.id, standing.organization.id) != (binding.user_id, binding.organization_id):
        raise CredentialRejected("minted_parent_gone")
    if organization is not None and organization.role != standing.organization_role:
        raise CredentialRejected("minted_role_changed")


def _organization(clerk: Mapping[str, object], own: Mapping[str, object]) -> ClerkOrganization | None:
    if clerk.get("org") is None:
        return None
    role = own["role"]
    if not isinstance(role, str):  # may be empty: no rule matches it
        raise TypeError
    return ClerkOrganization(_text(clerk["org"]), _optional(clerk.get("slug")), role, _texts(own["permissions"]))


def _impersonator(act: Mapping[str, object]) -> Impersonator:
    return Impersonator(_text(act["sub"]), _optional(act.get("sid")))


def _object(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError
    return value


def _optional(value: object) -> str | None:
    return None if value is None else _text(value)


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(_text(item) for item in value)


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)
