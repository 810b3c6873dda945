"""A JSON Web Key Set (RFC 7517), read into the keys that may sign session tokens. Pure.

Entries we cannot or must not use are skipped, so that one odd entry never takes the good ones down.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import RSAAlgorithm

_MIN_BITS, _MAX_BITS = 2048, 8192  # below: NIST SP 800-131A; above: slow to check, and nobody's key
_MAX_KEYS = 64
_ALGORITHMS = (None, "RS256")
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One public RSA key of an instance.

    Attributes:
        kid: Its name in the set.
        numbers: Modulus and exponent: what makes two keys the same.
        public_key: Ready for use.
    """

    kid: str
    numbers: tuple[int, int]
    public_key: RSAPublicKey = field(compare=False, repr=False)


def parse_jwks(body: bytes) -> Mapping[str, SigningKey]:
    """Read the usable keys of a key set by `kid`.

    Only the first 64 entries are looked at. Two different usable keys under one `kid` are both dropped: whoever can
    add an entry to the set must not get to choose which of them counts.

    Raises:
        ValueError: Not a key set, or none of its keys is usable.
        RecursionError: JSON nested too deep.
    """
    document = json.loads(body.decode())
    entries = document.get("keys") if isinstance(document, dict) else None
    listed = entries[:_MAX_KEYS] if isinstance(entries, list) else []
    usable = {key for entry in listed if (key := _signing_key(entry)) is not None}
    times = Counter(key.kid for key in usable)
    keys = {key.kid: key for key in usable if times[key.kid] == 1}
    if not keys:
        raise ValueError("no usable key")
    return keys


def _signing_key(entry: object) -> SigningKey | None:
    """Read one entry; None unless it is a public RSA key of good size for RS256 signatures."""
    if not isinstance(entry, dict) or not _PRIVATE.isdisjoint(entry):
        return None
    kid, operations = entry.get("kid"), entry.get("key_ops", ["verify"])
    if not isinstance(kid, str) or not isinstance(operations, list) or "verify" not in operations:
        return None
    if entry.get("kty") != "RSA" or entry.get("use", "sig") != "sig" or entry.get("alg") not in _ALGORITHMS:
        return None
    try:
        key = RSAAlgorithm.from_jwk({name: entry.get(name) for name in ("kty", "n", "e")})
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError):  # the last three: members of a wrong type
        return None
    if not isinstance(key, RSAPublicKey) or not _MIN_BITS <= key.key_size <= _MAX_BITS:
        return None
    numbers = key.public_numbers()
    return SigningKey(kid, (numbers.n, numbers.e), key)
