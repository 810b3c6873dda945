"""Events of one subscription in any order, and twice: the same end."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.stripe_facts import Facts, PaymentWord, Snapshot, Stamp

NOW = datetime(2026, 11, 23, tzinfo=UTC)
WORDS = ("trialing", "active", "past_due", "canceled", "unpaid", "paused", "incomplete", "incomplete_expired", "new")
Step = tuple[Snapshot | PaymentWord, Stamp]


def at(seconds: int, event: str = "evt_1") -> Stamp:
    return Stamp(NOW + timedelta(seconds=seconds), event)


def snapshot(status: str, **facts: Any) -> Snapshot:
    return Snapshot(status, "pro", NOW, **facts)


def after(*steps: Step) -> Facts:
    facts = Facts()
    for what, stamp in steps:
        facts = facts.with_snapshot(what, stamp) if isinstance(what, Snapshot) else facts.with_payment(what, stamp.at)
    return facts


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """Some events of a few seconds, each with an id of its own."""
    snapshots = st.builds(
        Snapshot,
        st.sampled_from(WORDS),
        st.sampled_from(["pro", "team"]),
        st.just(NOW),
        current_period_end=st.none() | st.sampled_from([NOW, NOW + timedelta(days=30)]),
    )
    payments: list[PaymentWord] = ["paid", "failed"]
    whats = draw(st.lists(snapshots | st.sampled_from(payments), max_size=8))
    return [(what, at(draw(st.integers(0, 4)), f"evt_{place}")) for place, what in enumerate(whats)]


@given(histories(), st.data())
def test_every_order_and_every_repetition_leads_to_the_same_end(history: list[Step], data: st.DataObject) -> None:
    again = data.draw(st.lists(st.sampled_from(history))) if history else []
    shuffled = data.draw(st.permutations(history + again))

    assert after(*shuffled) == after(*history)


@given(histories())
def test_what_is_canceled_stays_so(history: list[Step]) -> None:
    facts = after((snapshot("canceled"), at(0, "evt_end")), *history)

    assert facts.status in ("canceled", "incomplete_expired")
    assert facts.precedence in (2, 4)


@pytest.mark.parametrize(
    "steps,status",
    [
        ([], None),
        ([("paid", at(9))], None),
        ([(snapshot("trialing"), at(1)), (snapshot("active"), at(2))], "active"),
        ([(snapshot("active"), at(2)), (snapshot("trialing"), at(1))], "active"),
        # Within one second the further step counts, whichever came first.
        ([(snapshot("active"), at(1, "evt_a")), (snapshot("incomplete"), at(1, "evt_b"))], "active"),
        ([(snapshot("incomplete"), at(1)), ("paid", at(2))], "active"),
        ([(snapshot("past_due"), at(1)), ("paid", at(2))], "active"),
        ([(snapshot("unpaid"), at(1)), ("paid", at(2))], "active"),
        ([(snapshot("active"), at(1)), ("failed", at(2))], "past_due"),
        ([(snapshot("trialing"), at(1)), ("failed", at(2))], "trialing"),
        ([(snapshot("canceled"), at(1)), ("paid", at(2))], "canceled"),
        ([(snapshot("paused"), at(1)), ("paid", at(2))], "paused"),
        # A snapshot knows of every payment before it, and of those in its own second.
        ([(snapshot("active"), at(2)), ("failed", at(1))], "active"),
        ([(snapshot("active"), at(2)), ("failed", at(2))], "active"),
        ([(snapshot("past_due"), at(1)), ("failed", at(2, "evt_a")), ("paid", at(2, "evt_b"))], "active"),
        ([(snapshot("past_due"), at(1)), ("paid", at(2, "evt_a")), ("failed", at(2, "evt_b"))], "active"),
        ([(snapshot("active"), at(1)), ("paid", at(2)), ("failed", at(3))], "past_due"),
        ([(snapshot("active"), at(1)), ("paid", at(3)), ("failed", at(2))], "active"),
        ([(snapshot("incomplete"), at(1)), ("paid", at(2)), ("failed", at(3))], "past_due"),
        ([(snapshot("incomplete"), at(1)), ("failed", at(3))], "incomplete"),
    ],
)
def test_payments_move_a_snapshot_on_that_is_older_than_they_are(steps: list[Step], status: str | None) -> None:
    assert after(*steps).status == status


@pytest.mark.parametrize(
    "status,precedence",
    [
        ("trialing", 1),
        ("active", 1),
        ("past_due", 1),
        ("canceled", 2),
        ("unpaid", 2),
        ("paused", 2),
        ("incomplete", 4),
        ("incomplete_expired", 4),
    ],
)
def test_what_lives_counts_before_what_is_over_and_that_before_a_trial_of_ours(status: str, precedence: int) -> None:
    assert after((snapshot(status), at(1))).precedence == precedence
    assert Facts().precedence == 4
