from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.outbox.backoff import CAP_S, LONGEST_RETRY_AFTER_S, delay_s, retry_after_s

NOW = datetime(2026, 11, 23, tzinfo=UTC)


@given(st.integers(min_value=1, max_value=10**6))
def test_a_delay_is_above_zero_and_never_over_a_minute(attempts: int) -> None:
    assert 0 < delay_s(attempts) <= CAP_S


@given(st.integers(min_value=1, max_value=1000), st.floats(min_value=0.0, max_value=1.0))
def test_delays_do_not_shrink_from_one_attempt_to_the_next(attempts: int, chance: float) -> None:
    def drawn(low: float, high: float) -> float:
        return low + (high - low) * chance

    assert delay_s(attempts, uniform=drawn) <= delay_s(attempts + 1, uniform=drawn)


def test_first_retry_comes_within_a_second_and_the_next_two_within_seven() -> None:
    slowest = [delay_s(attempts, uniform=lambda _, high: high) for attempts in (1, 2, 3)]

    assert slowest == [1.0, 2.0, 4.0]


@given(st.integers(min_value=1, max_value=1000), st.floats(min_value=0.0, max_value=LONGEST_RETRY_AFTER_S))
def test_nobody_is_asked_again_before_the_time_they_named(attempts: int, asked_for: float) -> None:
    assert delay_s(attempts, asked_for) >= asked_for


def test_what_failed_together_does_not_come_back_together() -> None:
    assert len({delay_s(3) for _ in range(20)}) > 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("999999999999", LONGEST_RETRY_AFTER_S),
        ("Mon, 23 Nov 2026 00:01:00 GMT", 60.0),
        ("Mon, 23 Nov 2026 00:01:00 -0000", 60.0),
        ("Sun, 22 Nov 2026 00:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read_in_both_its_forms(text: str | None, seconds: float | None) -> None:
    assert retry_after_s(text, NOW) == seconds


@given(st.text())
def test_any_retry_after_is_nothing_or_within_an_hour(text: str) -> None:
    seconds = retry_after_s(text, NOW)

    assert seconds is None or 0.0 <= seconds <= LONGEST_RETRY_AFTER_S
