"""Assertions and keys without a gateway: what an upstream could be sent."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass, field

import jwt

from provisioning.signing_key import RingKey, new_key

ISSUER = "https://app.example.test"


@dataclass
class Gateway:
    """What publishes keys, and can be away."""

    keys: list[RingKey] = field(default_factory=lambda: [new_key(0, 0)])
    away: bool = False
    now: float = 1000.0
    asked: int = 0

    async def document(self) -> bytes:
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise OSError("away")
        return json.dumps({"keys": [key.jwk for key in self.keys]}).encode()

    def monotonic(self) -> float:
        return self.now

    def assertion(self, *, key: RingKey | None = None, alg: str = "ES256", **changes: object) -> str:
        """A good one; changes lay over claims, None leaves one out."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": "app",
            "sub": "usr_1",
            "iat": now,
            "exp": now + 300,
            "jti": "1",
            "role": "USER",
            "auth": "session",
            "sid": "sess_1",
            "token_id": None,
            "scopes": ["*"],
            "org": {"id": "org_1", "role": "admin", "permissions": ["org:reports:read"]},
            "plan": None,
            "flags": {},
            **changes,
        }
        key = key or self.keys[-1]
        kept = {name: value for name, value in claims.items() if value is not None or name in {"token_id", "plan"}}
        return jwt.encode(kept, key.private_key, algorithm=alg, headers={"kid": key.kid})


def hs256(token: str, secret: bytes, kid: str) -> str:
    """The claims of a token under an HMAC, which libraries refuse to make with a public key for a secret."""
    header = _encoded(json.dumps({"alg": "HS256", "typ": "JWT", "kid": kid}).encode())
    unsigned = f"{header}.{token.split('.')[1]}"
    return f"{unsigned}.{_encoded(hmac.digest(secret, unsigned.encode(), hashlib.sha256))}"


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
