from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning.database.breaker import Breaker


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_failure_opens_it_for_a_moment_and_then_one_probe_may_try() -> None:
    clock = Clock()
    breaker = Breaker(0.5, clock)
    breaker.failed()
    during = breaker.allows()
    clock.now = 0.6
    probe, other = breaker.allows(), breaker.allows()

    assert (during, probe, other) == (False, True, False)


def test_a_probe_that_succeeds_closes_it() -> None:
    clock = Clock()
    breaker = Breaker(0.5, clock)
    breaker.failed()
    clock.now = 0.6
    breaker.allows()
    breaker.succeeded()

    assert breaker.closed
    assert breaker.allows()


def test_a_probe_that_fails_opens_it_again() -> None:
    clock = Clock()
    breaker = Breaker(0.5, clock)
    breaker.failed()
    clock.now = 0.6
    breaker.allows()
    breaker.failed()

    assert not breaker.allows()
    assert breaker.trips == 1


def test_a_probe_that_was_cancelled_leaves_its_turn_to_the_next() -> None:
    clock = Clock()
    breaker = Breaker(0.5, clock)
    breaker.failed()
    clock.now = 0.6
    breaker.allows()
    breaker.abandoned()

    assert breaker.allows()


def test_one_late_answer_is_no_outage_but_two_in_a_row_are() -> None:
    breaker = Breaker()

    assert not breaker.failed(timed_out=True)
    assert breaker.allows()
    assert breaker.failed(timed_out=True)
    assert not breaker.allows()


def end(breaker: Breaker, how: str) -> None:
    match how:
        case "ok":
            breaker.succeeded()
        case "cancel":
            breaker.abandoned()
        case _:
            breaker.failed(timed_out=how == "late")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["ask", "ok", "fail", "late", "cancel", "tick"])))
def test_while_open_at_most_one_probe_is_out(steps: list[str]) -> None:
    clock = Clock()
    breaker = Breaker(0.5, clock)
    out = 0
    for step in steps:
        if step == "tick":
            clock.now += 0.3
        elif step == "ask":
            was_closed = breaker.closed
            allowed = breaker.allows()

            assert allowed or not was_closed
            out = out + 1 if allowed and not was_closed else out
        else:
            out = 0
            end(breaker, step)

        assert out <= 1
