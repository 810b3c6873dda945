"""Names that tell nothing and never meet, values that nobody else can write (C03, C05)."""

import string

from hypothesis import given
from hypothesis import strategies as st

from gateway.shared_state.values import SealedValues

KEY, OTHER_KEY = "k" * 32, "o" * 32
VALUES = SealedValues(KEY, b"settings")
# Ids of strangers: delimiters, NUL, any script, a kilobyte.
parts = (
    st.text(max_size=6) | st.text(alphabet=":|\0-sb8" + string.digits, max_size=12) | st.binary(max_size=6) | st.none()
)
long_parts = st.text(min_size=1000, max_size=1100) | st.binary(min_size=1000, max_size=1100)
abouts = st.lists(parts | long_parts, max_size=4)
kinds = st.sampled_from(["standing", "api_token", "standings"])


@given(kinds, abouts, kinds, abouts)
def test_c03_different_things_never_have_one_name(
    kind: str, about: list[str | bytes | None], other_kind: str, other_about: list[str | bytes | None]
) -> None:
    same = (kind, [(type(one), one) for one in about]) == (other_kind, [(type(one), one) for one in other_about])

    assert (VALUES.name(kind, *about) == VALUES.name(other_kind, *other_about)) == same


@given(st.lists(st.text(alphabet="a:|\0", max_size=3), min_size=1, max_size=3))
def test_c03_moving_a_delimiter_gives_another_name(about: list[str]) -> None:
    joined = ["".join(about)]

    assert (VALUES.name("standing", *about) == VALUES.name("standing", *joined)) == (about == joined)


@given(st.binary(max_size=200))
def test_what_was_sealed_opens_under_its_name_alone(value: bytes) -> None:
    name = VALUES.name("standing", "user_1")
    sealed = VALUES.seal(name, value)

    assert VALUES.open(name, sealed) == value
    assert VALUES.open(VALUES.name("standing", "user_2"), sealed) is None
    assert SealedValues(OTHER_KEY, b"settings").open(name, sealed) is None


@given(st.binary(min_size=1, max_size=60), st.data())
def test_c05_whatever_else_stands_there_is_nothing(value: bytes, data: st.DataObject) -> None:
    name = VALUES.name("standing", "user_1")
    sealed = VALUES.seal(name, value)
    at = data.draw(st.integers(0, len(sealed) - 1))
    flipped = sealed[:at] + bytes((sealed[at] ^ data.draw(st.integers(1, 255)),)) + sealed[at + 1 :]

    assert VALUES.open(name, flipped) is None
    assert VALUES.open(name, sealed[:at]) is None
    assert VALUES.open(name, sealed + b"\0") is None
    assert VALUES.open(name, data.draw(st.binary(max_size=100))) is None


def test_another_key_and_other_settings_have_other_names() -> None:
    names = {
        values.name("standing", "user_1")
        for values in (VALUES, SealedValues(OTHER_KEY, b"settings"), SealedValues(KEY, b"others"))
    }

    assert len(names) == 3
    assert not any("user_1" in name for name in names)
