"""Rates, as settings spell them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.rates import Rate, parse_rate


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/minute", (100, 60)),
        ("5 per second", (5, 1)),
        ("1000/h", (1000, 3600)),
        ("20/10s", (20, 10)),
        ("3/minutes", (3, 60)),
        ("1/250ms", (1, 0.25)),
        ("7 / Day", (7, 86400)),
    ],
)
def test_a_rate_is_read(text: str, rate: tuple[int, float]) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["", "100", "0/minute", "-1/s", "1/fortnight", "1/0s", "1/10ms", "1/32d", "1.5/s", 5, None, "1/s/s"]
)
def test_what_is_no_rate_is_refused_with_what_to_write(text: object) -> None:
    with pytest.raises(ValueError, match=r"^write "):
        parse_rate(text)


def test_whoever_writes_an_unknown_unit_is_shown_a_rate_not_a_duration() -> None:
    with pytest.raises(ValueError, match="such as 100/minute"):
        parse_rate("100/fortnight")


@given(st.text())
def test_any_text_is_a_rate_or_refused(text: str) -> None:
    try:
        rate = parse_rate(text)
    except ValueError:
        return

    assert rate.limit >= 1
    assert parse_rate(rate) == rate


@given(st.integers(1, 10**9 - 1), st.integers(1, 86400))
def test_a_rate_that_was_written_is_read_again(limit: int, window_s: int) -> None:
    assert parse_rate(f"{limit}/{window_s}s") == Rate(limit, window_s)
