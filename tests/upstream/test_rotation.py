"""Whose turn it is: rules without a socket, on a clock of the test's own."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.upstream.rotation import DEATHS, FIRST_PAUSE_S, LONGEST_PAUSE_S, SUSPECT_S, Rotation, pause_s

PROBE_S = 2.0


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def rotation(count: int) -> tuple[Rotation, Clock]:
    clock = Clock()
    return Rotation(count, clock, probe_s=PROBE_S), clock


def chosen(turns: Rotation, times: int) -> list[int | None]:
    return [turns.choose() for _ in range(times)]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_all_that_are_well_get_equally_many_turns(count: int) -> None:
    turns, _ = rotation(count)

    assert Counter(chosen(turns, 5 * count)) == dict.fromkeys(range(count), 5)


def test_one_that_rests_is_passed_over_and_the_others_share_evenly() -> None:
    turns, _ = rotation(3)
    turns.dial_failed(1)

    assert Counter(chosen(turns, 10)) == {0: 5, 2: 5}


def test_when_a_rest_is_over_one_request_tries_and_the_next_waits_for_what_becomes_of_it() -> None:
    turns, clock = rotation(2)
    turns.dial_failed(1)
    clock.now += FIRST_PAUSE_S

    assert Counter(chosen(turns, 10)) == {0: 9, 1: 1}


def test_a_trial_nobody_heard_of_again_is_repeated() -> None:
    turns, clock = rotation(2)
    turns.dial_failed(1)
    clock.now += FIRST_PAUSE_S
    chosen(turns, 4)
    clock.now += PROBE_S

    assert Counter(chosen(turns, 10)) == {0: 9, 1: 1}


def test_an_answered_dial_heals() -> None:
    turns, clock = rotation(2)
    turns.dial_failed(1)
    clock.now += FIRST_PAUSE_S
    chosen(turns, 2)

    assert turns.dialled(1)
    assert turns.resting == 0
    assert Counter(chosen(turns, 10)) == {0: 5, 1: 5}


def test_each_failed_trial_makes_the_rest_longer_up_to_a_cap() -> None:
    turns, clock = rotation(2)
    rests = []
    turns.dial_failed(1)
    for _ in range(10):
        rests.append(turns.addresses[1].rests_until - clock.now)
        clock.now = turns.addresses[1].rests_until
        assert 1 in chosen(turns, 2)
        assert turns.dial_failed(1)

    assert rests == [pause_s(number) for number in range(1, 11)]
    assert rests[:3] == [1.0, 2.0, 4.0]
    assert rests[-1] == LONGEST_PAUSE_S


def test_many_requests_that_fail_together_make_one_rest() -> None:
    turns, clock = rotation(2)
    begun = [turns.dial_failed(1) for _ in range(50)]

    assert begun == [True] + [False] * 49
    assert turns.addresses[1].rests_until == clock.now + FIRST_PAUSE_S
    assert turns.addresses[1].failures == 50


def test_while_all_rest_the_one_that_failed_longest_ago_is_tried_at_once() -> None:
    turns, clock = rotation(3)
    for index in (1, 2, 0):
        turns.dial_failed(index)
        clock.now += 0.01

    assert turns.choose() == 1
    assert turns.choose({1}) == 2
    assert turns.choose({1, 2}) == 0
    assert turns.choose({0, 1, 2}) is None


def test_one_alone_never_rests() -> None:
    turns, _ = rotation(1)
    for _ in range(10):
        assert not turns.dial_failed(0)
        assert not turns.died(0)

    assert turns.turn() == 0
    assert turns.choose() == 0


def test_a_few_early_deaths_are_no_reason_and_an_answer_between_them_counts() -> None:
    turns, _ = rotation(2)
    for _ in range(10):
        for _ in range(DEATHS - 1):
            assert not turns.died(1)
        turns.proved(1)

    assert turns.resting == 0


def test_one_that_accepts_and_dies_is_healed_by_an_answer_alone() -> None:
    turns, clock = rotation(2)
    for _ in range(DEATHS):
        turns.died(1)
    clock.now += FIRST_PAUSE_S
    chosen(turns, 2)

    assert not turns.dialled(1)
    assert turns.resting == 1
    assert turns.proved(1)
    assert turns.resting == 0


def test_an_address_to_avoid_is_taken_only_when_no_other_is_fit() -> None:
    turns, _ = rotation(2)

    assert [turns.choose(avoid=1) for _ in range(3)] == [0, 0, 0]
    turns.dial_failed(0)
    assert turns.choose(avoid=1) == 1


def test_after_a_reused_connection_broke_dials_go_elsewhere_for_a_moment() -> None:
    turns, clock = rotation(2)
    turns.suspect(1)

    assert chosen(turns, 4) == [0, 0, 0, 0]
    assert turns.resting == 0
    assert turns.choose({0}) == 1
    clock.now += SUSPECT_S
    assert Counter(chosen(turns, 4)) == {0: 2, 1: 2}


def test_a_turn_is_told_without_being_taken() -> None:
    turns, _ = rotation(2)

    assert [turns.turn(), turns.turn()] == [0, 0]
    turns.taken(0)
    assert turns.turn() == 1


def test_a_trial_is_a_dial_never_a_kept_connection() -> None:
    turns, clock = rotation(2)
    turns.dial_failed(0)
    assert turns.turn() == 1
    clock.now += FIRST_PAUSE_S

    assert turns.turn() is None
    assert turns.choose() == 0


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["choose", "choose", "dial_failed", "died", "dialled", "proved", "wait"]),
        st.integers(0, 4),
        st.floats(0, 40),
    ),
    max_size=60,
)


@settings(max_examples=200)
@given(count=st.integers(2, 5), events=EVENTS)
def test_whatever_happens_nobody_is_refused_untried_and_nobody_fit_is_passed_over(
    count: int, events: list[tuple[str, int, float]]
) -> None:
    turns, clock = rotation(count)
    for event, index, seconds in events:
        index %= count
        if event == "wait":
            clock.now += seconds
        elif event == "choose":
            fit = {health.index for health in turns.addresses if health.rests_until <= clock.now}
            turn = turns.turn()
            first = turns.choose()
            assert first in (fit or range(count))
            assert turn is None or (turn == first and turns.is_well(turn))
        else:
            getattr(turns, event)(index)
        assert all(health.rests_until <= clock.now + LONGEST_PAUSE_S for health in turns.addresses)

    tried: set[int] = set()
    while (last := turns.choose(tried)) is not None:
        assert last not in tried
        tried.add(last)
    assert tried == set(range(count))


@settings(max_examples=200)
@given(count=st.integers(2, 5), events=EVENTS)
def test_whatever_happened_everybody_who_answers_again_is_back_within_the_longest_rest(
    count: int, events: list[tuple[str, int, float]]
) -> None:
    turns, clock = rotation(count)
    for event, index, seconds in events:
        if event == "wait":
            clock.now += seconds
        elif event == "choose":
            turns.choose()
        else:
            getattr(turns, event)(index % count)
    clock.now += LONGEST_PAUSE_S
    for _ in range(2 * count):
        turn = turns.choose()
        assert turn is not None
        turns.dialled(turn)
        turns.proved(turn)

    assert turns.resting == 0
    assert Counter(chosen(turns, 3 * count)) == dict.fromkeys(range(count), 3)
