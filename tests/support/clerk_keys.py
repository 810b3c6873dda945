"""What a Clerk instance signs with: key pairs made once per run, tokens that start valid, key sets."""

import base64
import json
import time
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from jwt.algorithms import RSAAlgorithm

ISSUER = "https://clerk.example.test"
KID = "ins_2testInstance"
SUBJECT = "user_2testSubject"
SESSION = "sess_2testSession"
AUTHORIZED_PARTY = "https://app.example.test"
ABSENT: Any = object()
"""As the value of a claim or header parameter: leave it out."""


@cache
def key_pair(name: str = "main", bits: int = 2048) -> rsa.RSAPrivateKey:
    """The RSA key of this name, the same for the whole run."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def mint_token(
    *,
    key: str = "main",
    kid: Any = KID,
    header: dict[str, Any] | None = None,
    now: float | None = None,
    **claims: Any,
) -> str:
    """A session token as Clerk mints it, valid for a minute; arguments change or, as `ABSENT`, remove claims."""
    issued_at = int(time.time() if now is None else now)
    standard: dict[str, Any] = {
        "iss": ISSUER,
        "sub": SUBJECT,
        "sid": SESSION,
        "azp": AUTHORIZED_PARTY,
        "iat": issued_at,
        "nbf": issued_at - 10,
        "exp": issued_at + 60,
        "v": 2,
    }
    head = {"alg": "RS256", "typ": "JWT", "kid": kid, "cat": "cl_B7d4PD111AAA", **(header or {})}
    return sign(json.dumps(_present(head)), json.dumps(_present(standard | claims)), key=key)


def sign(header: str, payload: str, *, key: str = "main") -> str:
    """Sign any two texts as a JWT with RS256, whatever they say."""
    signed = f"{encode(header.encode())}.{encode(payload.encode())}"
    signature = key_pair(key).sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{encode(signature)}"


def encode(raw: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def jwk(key: str = "main", kid: str = KID, **members: Any) -> dict[str, Any]:
    """The public half of a key as Clerk publishes it; arguments change or remove members."""
    public: dict[str, Any] = RSAAlgorithm.to_jwk(key_pair(key).public_key(), as_dict=True)
    entry = {"kty": public["kty"], "n": public["n"], "e": public["e"], "kid": kid, "use": "sig", "alg": "RS256"}
    return _present(entry | members)


def jwks(*keys: dict[str, Any]) -> bytes:
    """A key set document; of the main key alone when nothing is given."""
    return json.dumps({"keys": list(keys or (jwk(),))}).encode()


def _present(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not ABSENT}
