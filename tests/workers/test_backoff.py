"""How long a dead worker stays away."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.workers.backoff import CAP_S, FIRST_S, STEADY_S, Backoff


def longest(low: float, high: float) -> float:
    return high


def test_the_first_death_is_made_good_at_once_and_later_ones_ever_later() -> None:
    backoff = Backoff(longest)

    assert [backoff.next_s(1.0) for _ in range(9)] == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, CAP_S, CAP_S, CAP_S]


def test_a_death_after_a_long_life_counts_as_the_first() -> None:
    backoff = Backoff(longest)
    for _ in range(4):
        backoff.next_s(1.0)

    assert [backoff.next_s(STEADY_S), backoff.next_s(1.0)] == [0.0, 1.0]


@given(st.lists(st.floats(0, STEADY_S, exclude_max=True), min_size=2, max_size=200))
def test_a_crash_loop_never_spins_and_never_waits_longer_than_the_cap(lives: list[float]) -> None:
    backoff = Backoff()

    rests = [backoff.next_s(lived) for lived in lives]

    assert rests[0] == 0.0
    assert all(FIRST_S <= rest <= CAP_S for rest in rests[1:])
