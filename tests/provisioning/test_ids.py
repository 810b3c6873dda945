import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning.ids import BITS, Prefix, format_id, is_id, new_id, parse_id

PREFIXES: tuple[Prefix, ...] = ("usr", "org", "atk", "sub", "evt")
prefixes = st.sampled_from(PREFIXES)


@settings(max_examples=200, deadline=None)
@given(prefixes, st.integers(0, 2**BITS - 1))
def test_every_id_parses_back(prefix: Prefix, number: int) -> None:
    text = format_id(prefix, number)

    assert parse_id(prefix, text) == number
    assert len(text) == len(prefix) + 1 + 22


@settings(max_examples=200, deadline=None)
@given(prefixes, st.text() | st.from_regex(r"usr_[0-9A-Za-z]{20,24}"))
def test_what_is_no_id_is_refused_and_nothing_else_is_raised(prefix: Prefix, text: str) -> None:
    try:
        number = parse_id(prefix, text)
    except ValueError:
        assert not is_id(prefix, text)
    else:
        assert format_id(prefix, number) == text


def test_new_ids_differ() -> None:
    assert len({new_id("usr") for _ in range(1000)}) == 1000


def test_an_id_of_another_kind_is_refused() -> None:
    assert not is_id("org", new_id("usr"))


def test_a_number_over_128_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="128"):
        format_id("usr", 2**BITS)
    assert not is_id("usr", "usr_" + "z" * 22)


def test_a_trailing_newline_is_not_part_of_an_id() -> None:
    assert not is_id("usr", new_id("usr") + "\n")
