"""What is remembered of people expires at different moments, and never late."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.actors.standings import freshness


@given(st.text(), st.floats(0.001, 86_400))
def test_nobody_is_believed_for_longer_than_the_setting_says_or_for_much_less(person: str, ttl_s: float) -> None:
    assert 0.69 * ttl_s < freshness(person, ttl_s) <= ttl_s
    assert freshness(person, ttl_s) == freshness(person, ttl_s)


def test_people_who_were_met_together_are_not_asked_for_again_together() -> None:
    moments = sorted(freshness(f"user_{number:027d}", 30.0) for number in range(50))

    crowded = max(sum(start <= moment < start + 1.0 for moment in moments) for start in moments)
    assert crowded < 20
