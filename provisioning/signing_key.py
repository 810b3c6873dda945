"""A key of the ring, and when which key does what. Pure.

Nothing but `signs_from` decides: the youngest key whose time has come signs, younger ones are only published, and older
ones verify until the last token they signed has died.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

_COORDINATE_BYTES = 32


class KeyState(StrEnum):
    """What a key does at a moment."""

    PUBLISHED = "published"
    ACTIVE = "active"
    RETIRING = "retiring"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class RotationRules:
    """When keys follow each other; all in seconds.

    Attributes:
        rotate_every: How long a key signs.
        publish_ahead: How long before that it is published; below `rotate_every`.
        keep_for: How long after it a key still verifies: the longest life of what it signs, and some more.
    """

    rotate_every: float
    publish_ahead: float
    keep_for: float


class Placed(Protocol):
    """Whatever has a place in the ring."""

    @property
    def kid(self) -> str:
        """Its name."""

    @property
    def signs_from(self) -> float:
        """When its time comes, in Unix seconds."""


P = TypeVar("P", bound=Placed)


@dataclass(frozen=True, slots=True)
class RingKey:
    """One key, ready for use.

    Attributes:
        kid: Its thumbprint (RFC 7638), so that no two keys ever share one.
        signs_from: Unix seconds.
        created_at: Unix seconds.
        jwk: What the world may know (RFC 7517).
    """

    kid: str
    signs_from: float
    created_at: float
    private_key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)
    public_key: ec.EllipticCurvePublicKey = field(repr=False, compare=False)
    jwk: dict[str, str] = field(repr=False, compare=False)

    @classmethod
    def of(cls, private_key: ec.EllipticCurvePrivateKey, signs_from: float, created_at: float) -> "RingKey":
        """Give a P-256 key its name and place."""
        public_key = private_key.public_key()
        numbers = public_key.public_numbers()
        point = {"crv": "P-256", "kty": "EC", "x": _coordinate(numbers.x), "y": _coordinate(numbers.y)}
        kid = _base64url(hashlib.sha256(json.dumps(point, separators=(",", ":"), sort_keys=True).encode()).digest())
        jwk = {**point, "kid": kid, "alg": "ES256", "use": "sig"}
        return cls(kid, signs_from, created_at, private_key, public_key, jwk)


def new_key(signs_from: float, created_at: float) -> RingKey:
    """Make a key; the randomness is OpenSSL's."""
    return RingKey.of(ec.generate_private_key(ec.SECP256R1()), signs_from, created_at)


def private_bytes(key: RingKey) -> bytes:
    """Write the private key down (PKCS #8, DER): for sealing alone."""
    return key.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def read_key(der: bytes, kid: str, signs_from: float, created_at: float) -> RingKey:
    """Read what `private_bytes` wrote.

    Raises:
        ValueError: Not a P-256 key, or not the one of this name.
    """
    private_key = load_der_private_key(der, password=None)
    if not isinstance(private_key, ec.EllipticCurvePrivateKey) or private_key.curve.name != "secp256r1":
        raise ValueError("not a P-256 key")
    key = RingKey.of(private_key, signs_from, created_at)
    if key.kid != kid:
        raise ValueError("another key than its name says")
    return key


def in_order(keys: Sequence[P]) -> list[P]:
    """Sort by the time of signing, the same on every replica."""
    return sorted(keys, key=lambda key: (key.signs_from, key.kid))


def signer(ordered: Sequence[P], now: float) -> P | None:
    """Choose the key that signs; None without keys.

    The oldest signs when no key's time has come: this clock was set back, and an odd `iat` is better than no token.
    """
    for key in reversed(ordered):
        if key.signs_from <= now:
            return key
    return ordered[0] if ordered else None


def over_at(ordered: Sequence[P], key: P, rules: RotationRules) -> float | None:
    """Tell when a key is over, in Unix seconds; None while it has no successor."""
    index = ordered.index(key) + 1
    return ordered[index].signs_from + rules.keep_for if index < len(ordered) else None


def state_of(ordered: Sequence[P], key: P, rules: RotationRules, now: float) -> KeyState:
    """Tell what a key does now."""
    if key == signer(ordered, now):
        return KeyState.ACTIVE
    if key.signs_from > now:
        return KeyState.PUBLISHED
    ends = over_at(ordered, key, rules)
    return KeyState.OVER if ends is not None and ends <= now else KeyState.RETIRING


def next_signs_from(ordered: Sequence[P], rules: RotationRules, now: float) -> float | None:
    """Tell from when a key that is due to be made would sign; None while none is due."""
    if not ordered:
        return now
    ends = ordered[-1].signs_from + rules.rotate_every
    return max(ends, now + rules.publish_ahead) if now >= ends - rules.publish_ahead else None


def _coordinate(number: int) -> str:
    return _base64url(number.to_bytes(_COORDINATE_BYTES, "big"))


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
