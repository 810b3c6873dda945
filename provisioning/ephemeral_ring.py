"""A key ring of one key, in memory alone: what it signed is good as long as the process lives.

It stands where the ring in PostgreSQL belongs (one for all replicas), with the same two calls.
"""

from collections.abc import Mapping

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from provisioning.errors import ProvisioningError


class SignatureRejected(ProvisioningError):
    """A token is none of this ring's, or is over. Reasons: `invalid`, `expired`."""

    default_reason = "invalid"


class EphemeralRing:
    """Signs and verifies with ES256."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    def sign(self, claims: Mapping[str, object]) -> str:
        """Sign claims as a JWT."""
        return jwt.encode(dict(claims), self._key, algorithm="ES256", headers={"kid": "ephemeral"})

    def verify(self, token: str, *, audience: str) -> dict[str, object]:
        """Check signature, audience and times, and give the claims.

        Raises:
            SignatureRejected: None of ours, or over.
        """
        try:
            claims: dict[str, object] = jwt.decode(
                token,
                self._key.public_key(),
                algorithms=["ES256"],
                audience=audience,
                leeway=5,
                options={"require": ["iss", "aud", "exp", "iat"]},
            )
        except jwt.ExpiredSignatureError:
            raise SignatureRejected("expired") from None
        except jwt.PyJWTError:
            raise SignatureRejected from None
        return claims
