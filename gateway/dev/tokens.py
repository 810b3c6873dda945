"""Session tokens as Clerk mints them (`v: 2`) for the personas of `gateway dev`: pure claims, and the key for them."""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.dev.personas import Membership, Persona, clerk_like_id, find_persona

SESSION_CATEGORY = "cl_B7d4PD111AAA"
"""Clerk's token class of a session, the `cat` of the header (@clerk/backend, tokens/jwtCategories.ts)."""

TOKEN_LIFE_S = 3600
"""Clerk's tokens live 60 s and its front end renews them. Nothing renews a pasted `curl` line: an hour."""


def session_claims(
    persona: Persona, membership: Membership | None, *, issuer: str, origin: str, now: int, token_id: str
) -> dict[str, Any]:
    """Build the claims of a session token.

    Args:
        persona: The subject.
        membership: Of the active organization; None when the persona works alone.
        issuer: Exact `iss`.
        origin: `azp`, the origin the token is minted for.
        now: Unix seconds; `nbf` lies 10 s before, as at Clerk.
        token_id: `jti`.
    """
    claims: dict[str, Any] = {
        "v": 2,
        "iss": issuer,
        "sub": persona.id,
        "sid": persona.session_id,
        "azp": origin,
        "iat": now,
        "nbf": now - 10,
        "exp": now + TOKEN_LIFE_S,
        "jti": token_id,
        "fva": [0, -1],
        "sts": "pending" if persona.pending else "active",
        "fea": _features_claim(persona, membership),
        "pla": f"o:{membership.organization.plan}" if membership else "u:free_user",
    }
    if membership:
        claims["o"] = _organization_claim(membership)
    if persona.impersonated_by:
        impersonator = find_persona(persona.impersonated_by)
        claims["act"] = {"iss": "https://dashboard.clerk.com", "sid": impersonator.session_id, "sub": impersonator.id}
    return claims


def _features_claim(persona: Persona, membership: Membership | None) -> str:
    """Write `fea`. Organization features come first: readers disagree on the masks' alignment in any other order."""
    organization = membership.organization.features if membership else ()
    both = [f"{'uo' if name in persona.user_features else 'o'}:{name}" for name in organization]
    return ",".join(both + [f"u:{name}" for name in persona.user_features if name not in organization])


def _organization_claim(membership: Membership) -> dict[str, Any]:
    """Write `o`: the role without `org:`, the permissions as one decimal mask a feature (Clerk's docs)."""
    names = membership.permission_names
    claim: dict[str, Any] = {
        "id": membership.organization.id,
        "slg": membership.organization.slug,
        "rol": membership.role,
    }
    if names:
        masks = (
            sum(1 << bit for bit, name in enumerate(names) if f"org:{feature}:{name}" in membership.permissions)
            for feature in membership.organization.features
        )
        claim |= {"per": ",".join(names), "fpm": ",".join(map(str, masks))}
    return claim


def _base64url_number(number: int) -> str:
    octets = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The issuer's RSA key. Its `kid` is the instance id, as at Clerk, made of the public key."""

    private: rsa.RSAPrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> "SigningKey":
        """Make a new 2048-bit key: Clerk's size."""
        return cls(rsa.generate_private_key(public_exponent=65537, key_size=2048))

    @classmethod
    def from_pem(cls, pem: bytes) -> "SigningKey":
        """Read what `pem` wrote.

        Raises:
            ValueError: Not an unencrypted RSA key in PEM.
        """
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except TypeError as error:
            raise ValueError("the key is encrypted") from error
        if not isinstance(key, rsa.RSAPrivateKey):
            raise ValueError("not an RSA key")  # noqa: TRY004 (what was read is wrong, not who called)
        return cls(key)

    @property
    def pem(self) -> bytes:
        """PKCS #8, not encrypted: it protects a developer's own machine from nothing."""
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def instance_id(self) -> str:
        """`ins_…`, which is also the `kid`."""
        modulus = self.private.public_key().public_numbers().n
        return clerk_like_id("ins", hashlib.sha256(str(modulus).encode()).hexdigest())

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Show the public key as Clerk's `/.well-known/jwks.json` does."""
        numbers = self.private.public_key().public_numbers()
        key = {"use": "sig", "kty": "RSA", "kid": self.instance_id, "alg": "RS256"}
        return {"keys": [key | {"n": _base64url_number(numbers.n), "e": _base64url_number(numbers.e)}]}

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Sign claims as a session token."""
        headers = {"kid": self.instance_id, "typ": "JWT", "cat": SESSION_CATEGORY}
        return jwt.encode(dict(claims), self.private, algorithm="RS256", headers=headers)


@dataclass(frozen=True, slots=True)
class Mint:
    """Mints tokens for one gateway.

    Attributes:
        issuer: Exact `iss` of every token.
        origin: `azp` of every token unless another origin is given.
    """

    key: SigningKey
    issuer: str
    origin: str

    def token(self, persona: Persona, membership: Membership | None, *, now: int, origin: str | None = None) -> str:
        """Mint a session token that starts at `now` (Unix seconds) and lives `TOKEN_LIFE_S`."""
        return self.key.sign(
            session_claims(
                persona,
                membership,
                issuer=self.issuer,
                origin=origin or self.origin,
                now=now,
                token_id=secrets.token_hex(10),
            )
        )
