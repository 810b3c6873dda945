"""What a subscription is at a moment: every word of Stripe's, and no revival by time alone."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.records import Subscription
from provisioning.subscription_status import (
    IN_FORCE,
    PERIOD_GRACE,
    SubscriptionStatus,
    cancels_with_period,
    days_remaining,
    next_change,
    plan_in_force,
    plan_name,
    status_at,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)
WORDS = ("trialing", "active", "past_due", "canceled", "unpaid", "paused", "incomplete", "incomplete_expired")
TRIAL = {"status": "trialing", "trial_ends_at": NOW + 3 * DAY, "current_period_end": NOW + 3 * DAY}
PAID = {"status": "active", "current_period_end": NOW + 10 * DAY}


def subscription(**facts: Any) -> Subscription:
    given: dict[str, Any] = {"id": "sub_1", "organization_id": "org_1", "source": "stripe", "plan": "pro"}
    return Subscription(**(given | {"status": None} | facts))


moments = st.integers(0, 730 * 86_400).map(lambda seconds: NOW + timedelta(seconds=seconds) - 365 * DAY)
subscriptions = st.none() | st.builds(
    subscription,
    status=st.none() | st.sampled_from(WORDS) | st.text(max_size=8),
    trial_ends_at=st.none() | moments,
    current_period_end=st.none() | moments,
    cancel_at_period_end=st.booleans(),
    cancel_at=st.none() | moments,
    canceled_at=st.none() | moments,
)


@pytest.mark.parametrize(
    "facts,expected",
    [
        (TRIAL, "trialing"),
        (TRIAL | {"trial_ends_at": NOW}, "expired"),
        (TRIAL | {"trial_ends_at": None}, "expired"),
        (TRIAL | {"cancel_at_period_end": True}, "trialing"),
        (TRIAL | {"trial_ends_at": NOW, "current_period_end": NOW, "cancel_at_period_end": True}, "canceled"),
        (PAID, "active"),
        (PAID | {"status": "past_due"}, "past_due"),
        (PAID | {"current_period_end": None}, "active"),
        (PAID | {"current_period_end": NOW - PERIOD_GRACE + DAY}, "active"),
        (PAID | {"current_period_end": NOW - PERIOD_GRACE}, "expired"),
        (PAID | {"status": "past_due", "current_period_end": NOW - PERIOD_GRACE}, "expired"),
        (PAID | {"cancel_at_period_end": True}, "active"),
        (PAID | {"cancel_at_period_end": True, "current_period_end": NOW}, "canceled"),
        (PAID | {"cancel_at": NOW + DAY}, "active"),
        (PAID | {"cancel_at": NOW}, "canceled"),
        (PAID | {"status": "canceled"}, "canceled"),
        (TRIAL | {"status": "canceled", "canceled_at": NOW + 3 * DAY}, "expired"),
        (TRIAL | {"status": "canceled", "canceled_at": NOW + 2 * DAY}, "canceled"),
        (TRIAL | {"status": "canceled", "canceled_at": NOW + 3 * DAY, "cancel_at_period_end": True}, "canceled"),
        (TRIAL | PAID | {"status": "canceled", "canceled_at": NOW + 5 * DAY}, "canceled"),
        (PAID | {"status": "unpaid"}, "expired"),
        (PAID | {"status": "paused"}, "expired"),
        (PAID | {"status": "incomplete"}, "none"),
        (PAID | {"status": "incomplete_expired"}, "none"),
        (PAID | {"status": None}, "none"),
        (PAID | {"status": "a word of next year"}, "none"),
    ],
)
def test_status_follows_from_facts_and_clock(facts: dict[str, Any], expected: str) -> None:
    assert status_at(subscription(**facts), NOW) == expected


def test_who_has_no_subscription_has_status_none() -> None:
    assert status_at(None, NOW) == "none"
    assert plan_in_force(None, NOW) is None
    assert days_remaining(None, NOW) is None
    assert next_change(None, NOW) is None


@pytest.mark.parametrize(
    "facts,days",
    [
        (TRIAL, 3),
        (TRIAL | {"trial_ends_at": NOW + 3 * DAY - timedelta(microseconds=1)}, 3),
        (TRIAL | {"trial_ends_at": NOW + 2 * DAY + timedelta(microseconds=1)}, 3),
        (TRIAL | {"trial_ends_at": NOW + timedelta(seconds=1)}, 1),
        (TRIAL | {"trial_ends_at": NOW}, 0),
        (TRIAL | {"cancel_at": NOW + DAY}, 1),
        (PAID, 10),
        (PAID | {"current_period_end": NOW - DAY}, 0),
        (PAID | {"current_period_end": None}, None),
        (PAID | {"cancel_at": NOW + 2 * DAY}, 2),
        (PAID | {"status": "canceled"}, 0),
        (PAID | {"status": "unpaid"}, 0),
        (PAID | {"status": "incomplete"}, None),
    ],
)
def test_days_remaining_count_the_one_that_has_begun(facts: dict[str, Any], days: int | None) -> None:
    assert days_remaining(subscription(**facts), NOW) == days


@pytest.mark.parametrize(
    "facts,expected",
    [
        (PAID, False),
        (PAID | {"cancel_at_period_end": True}, True),
        (PAID | {"cancel_at": NOW + 10 * DAY}, True),
        (PAID | {"cancel_at": NOW + 11 * DAY}, False),
        ({"status": "active", "cancel_at": NOW}, False),
    ],
)
def test_the_end_of_a_period_may_be_chosen_in_either_of_two_ways(facts: dict[str, Any], expected: bool) -> None:
    assert cancels_with_period(subscription(**facts)) is expected


@pytest.mark.parametrize(
    "plan,name", [("pro", "Pro"), ("team-plus", "Team Plus"), ("EU_basic", "EU Basic"), ("price_1Ab", "price_1Ab")]
)
def test_plans_are_made_readable(plan: str, name: str) -> None:
    assert plan_name(plan) == name


@given(subscriptions, moments)
def test_every_subscription_has_a_status_at_every_moment(one: Subscription | None, now: datetime) -> None:
    status = status_at(one, now)

    assert status in SubscriptionStatus
    assert (plan_in_force(one, now) is not None) == (status in IN_FORCE)
    assert (days_remaining(one, now) or 0) >= 0


@given(subscriptions, moments, moments)
def test_time_alone_changes_a_status_at_the_moment_that_was_told_and_never_back(
    one: Subscription | None, first: datetime, second: datetime
) -> None:
    earlier, later = sorted((first, second))
    change = next_change(one, earlier)

    if change is None or later < change:
        assert status_at(one, later) == status_at(one, earlier)
    else:
        assert status_at(one, later) not in IN_FORCE
        assert next_change(one, later) is None


@given(subscriptions, moments, moments)
def test_days_only_get_fewer(one: Subscription | None, first: datetime, second: datetime) -> None:
    earlier, later = sorted((first, second))
    before, after = days_remaining(one, earlier), days_remaining(one, later)

    assert before is None or after is None or after <= before


@given(st.text())
def test_every_plan_has_a_readable_name(plan: str) -> None:
    assert plan_name(plan) or not plan
