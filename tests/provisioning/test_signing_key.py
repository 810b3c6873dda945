"""Which key does what, when: promises that hold for every course of time."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from provisioning.signing_key import (
    KeyState,
    RotationRules,
    in_order,
    new_key,
    next_signs_from,
    over_at,
    private_bytes,
    read_key,
    signer,
    state_of,
)

RULES = RotationRules(rotate_every=100, publish_ahead=10, keep_for=30)
LIFE = 20.0
"""Of what is signed; the rest of `keep_for` is for replicas that look rarely."""


@dataclass(frozen=True)
class Key:
    kid: str
    signs_from: float


def turned(keys: Sequence[Key], now: float) -> list[Key]:
    """Do what a replica does when it looks."""
    ordered = in_order(keys)
    kept = [key for key in ordered if (ends := over_at(ordered, key, RULES)) is None or ends > now]
    signs_from = next_signs_from(ordered, RULES, now)
    return in_order([*kept, Key(str(now), signs_from)]) if signs_from is not None else kept


pauses = st.lists(st.floats(0.01, 300, allow_nan=False), min_size=1, max_size=40)


@given(pauses)
def test_exactly_one_key_signs_and_what_it_signed_verifies_as_long_as_it_lives(waits: list[float]) -> None:
    now, keys = 1000.0, turned([], 1000.0)
    signed: list[tuple[float, Key]] = []
    for wait in waits:
        now += wait
        keys = turned(keys, now)
        active = [key for key in keys if state_of(keys, key, RULES, now) is KeyState.ACTIVE]
        assert active == [signer(keys, now)]
        signed.append((now, active[0]))
        assert all(key in keys for at, key in signed if now < at + LIFE)


@given(pauses)
def test_every_key_but_the_first_is_published_before_it_signs(waits: list[float]) -> None:
    now, keys = 1000.0, turned([], 1000.0)
    seen = set(keys)
    for wait in waits:
        now += wait
        keys = turned(keys, now)
        assert all(key.signs_from >= now + RULES.publish_ahead for key in set(keys) - seen)
        seen |= set(keys)


@given(pauses)
def test_the_ring_stays_small(waits: list[float]) -> None:
    now, keys = 1000.0, turned([], 1000.0)
    for wait in waits:
        now += wait
        keys = turned(turned(keys, now), now)
        assert len(keys) <= 3


def test_a_key_is_read_as_it_was_written() -> None:
    key = new_key(2.0, 1.0)

    assert read_key(private_bytes(key), key.kid, 2.0, 1.0) == key


def test_a_key_is_named_by_its_thumbprint() -> None:
    """The other key would be taken for this one; RFC 7638 makes the name follow from the key."""
    one, two = new_key(0, 0), new_key(0, 0)

    assert len({one.kid, two.kid}) == 2
    with pytest.raises(ValueError, match="another key"):
        read_key(private_bytes(one), two.kid, 0, 0)


@pytest.mark.parametrize(
    "other", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)], ids=["p384", "rsa"]
)
def test_no_other_sort_of_key_is_read(other: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    der = other.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    with pytest.raises(ValueError, match="P-256"):
        read_key(der, "kid", 0, 0)


def test_a_clock_before_every_key_still_signs() -> None:
    keys = in_order([Key("b", 20), Key("a", 10)])

    assert signer(keys, 5) == Key("a", 10)
    assert signer([], 5) is None
