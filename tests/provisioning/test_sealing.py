import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning.errors import SealBroken
from provisioning.sealing import Sealer, derived_key

MASTER_KEY = "a-key-of-these-tests-with-enough-characters"  # not a secret
SEALER = Sealer(MASTER_KEY, "tests")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.text(st.characters(exclude_categories=["Cs"])))
def test_what_was_sealed_opens_in_its_place(secret: bytes, context: str) -> None:
    sealed = SEALER.seal(secret, context)

    assert SEALER.unseal(sealed, context) == secret
    assert len(sealed) == 1 + 12 + len(secret) + 16


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100))
def test_what_was_not_sealed_is_refused_and_nothing_else_is_raised(sealed: bytes) -> None:
    with pytest.raises(SealBroken):
        SEALER.unseal(sealed, "here")
    with pytest.raises(SealBroken):
        SEALER.unseal(b"\x01" + sealed, "here")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 8 * (1 + 12 + 6 + 16) - 1))
def test_any_changed_bit_breaks_the_seal(bit: int) -> None:
    sealed = bytearray(SEALER.seal(b"secret", "here"))
    sealed[bit // 8] ^= 1 << bit % 8

    with pytest.raises(SealBroken):
        SEALER.unseal(bytes(sealed), "here")


@pytest.mark.parametrize(
    ("other", "context"),
    [
        (Sealer(MASTER_KEY, "other tests"), "here"),
        (Sealer(MASTER_KEY + "!", "tests"), "here"),
        (SEALER, "there"),
    ],
)
def test_another_purpose_master_key_or_place_does_not_open_it(other: Sealer, context: str) -> None:
    sealed = SEALER.seal(b"secret", "here")

    with pytest.raises(SealBroken):
        other.unseal(sealed, context)


def test_the_same_secret_is_never_sealed_alike() -> None:
    assert len({SEALER.seal(b"secret", "here") for _ in range(100)}) == 100


def test_keys_of_different_purposes_differ_from_each_other_and_the_master_key() -> None:
    keys = {derived_key(MASTER_KEY, "a"), derived_key(MASTER_KEY, "b"), MASTER_KEY.encode()}

    assert len(keys) == 3
    assert derived_key(MASTER_KEY, "a") == derived_key(MASTER_KEY, "a")
