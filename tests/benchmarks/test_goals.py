"""Ratios, and whether they reach what is wanted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.goals import GOALS, Goal, idle_socket, lookups_within_a_request
from benchmarks.results import Results, Spread, ratio
from benchmarks.websockets import Idle, Sockets
from tests.benchmarks.build import a_round, everything, results

RATES = st.floats(min_value=1, max_value=1e6)


def nothing(_: Results) -> Spread | None:
    return None


def test_ratio_is_that_of_medians_between_those_of_single_rounds() -> None:
    found = ratio(
        [a_round(10), a_round(40), a_round(30)], [a_round(10), a_round(10), a_round(20)], lambda row: row.rate
    )

    assert found == Spread(3.0, 1.0, 4.0)


@given(st.lists(RATES, min_size=1), RATES)
def test_ratio_of_multiples_is_the_factor(rates: list[float], factor: float) -> None:
    theirs = [a_round(rate) for rate in rates]
    ours = [a_round(rate * factor) for rate in rates]

    found = ratio(ours, theirs, lambda row: row.rate)

    assert found is not None
    assert (found.median, found.lowest, found.highest) == pytest.approx((factor, factor, factor))


@pytest.mark.parametrize(("ours", "theirs"), [([], [a_round(1)]), ([a_round(1)], []), ([a_round(1)], [a_round(0)])])
def test_what_was_not_measured_has_no_ratio(ours: list[object], theirs: list[object]) -> None:
    assert ratio(ours, theirs, lambda row: row.rate) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(3.9, "**below the floor**"), (4, "floor reached"), (5.9, "floor reached"), (6, "goal reached")],
)
def test_more_than_floor_and_goal_reaches_them(value: float, verdict: str) -> None:
    assert Goal("another", 4, 6, nothing).verdict(value) == verdict


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(12.1, "**below the floor**"), (12, "floor reached"), (8.1, "floor reached"), (8, "goal reached")],
)
def test_less_reaches_them_where_less_is_better(value: float, verdict: str) -> None:
    assert Goal("memory", 12, 8, nothing, less_is_better=True).verdict(value) == verdict


def test_idle_memory_counts_with_eight_thousand_held_alone() -> None:
    few = Results(1, 1, sockets={"actorgate": Sockets((Idle(2_000, 3.0),), ())})

    assert idle_socket(few) is None
    assert idle_socket(everything()) == Spread(6.5, 6.5, 6.5)


def test_slower_lookups_count_as_the_share_of_a_request_they_take() -> None:
    found = lookups_within_a_request(everything())  # a request of 33,333 ns, and 995 ns or 1,005 ns more

    assert found is not None
    assert found.median == pytest.approx(1e9 / 30_000 / (1e9 / 30_000 + 1_000), rel=1e-3)


def test_every_goal_takes_a_run_that_measured_nothing() -> None:
    assert [goal.measured(results()) for goal in GOALS] == [None] * len(GOALS)


def test_goals_are_no_easier_than_floors() -> None:
    assert all(goal.verdict(goal.floor) == "floor reached" for goal in GOALS)
    assert all(goal.verdict(goal.goal) == "goal reached" for goal in GOALS)
