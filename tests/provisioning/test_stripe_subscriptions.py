"""Stripe's events in PostgreSQL: whose they are, once each, in any order, by several at the same time."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provisioning.database.pool import Database
from provisioning.first_sight import FirstSight
from provisioning.profile import Profile
from provisioning.records import Standing, Subject, Subscription
from provisioning.stripe_events import StripeEvent
from provisioning.stripe_facts import Snapshot, Stamp
from provisioning.stripe_links import known_at_stripe, note_customer, note_subscription
from provisioning.stripe_subscriptions import Applied, StripeSubscriptions
from provisioning.subscriptions import Subscriptions, Trials
from tests.support.tokens import count, events, execute, person

NOW = datetime(2026, 11, 23, tzinfo=UTC)
MONTH = timedelta(days=30)


def event(number: int, status: str | None = None, *, at: int = 0, **keys: Any) -> StripeEvent:
    """An event about a subscription, with a snapshot of it when a status is given."""
    snapshot = keys.pop("snapshot", None)
    if status is not None:
        snapshot = Snapshot(
            status, keys.pop("plan", "team"), keys.pop("started_at", NOW), current_period_end=NOW + MONTH
        )
    stamp = Stamp(NOW + timedelta(seconds=at), f"evt_{number}")
    given: dict[str, Any] = {"livemode": False, "subscription_id": "sub_stripe1", "customer_id": "cus_1"}
    return StripeEvent("customer.subscription.updated", stamp, snapshot=snapshot, **(given | keys))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        yield opened


@pytest.fixture
async def acme(database: Database) -> Standing:
    return await person(database, Subject("user_alice", "org_acme", "acme"))


@pytest.fixture
def stripe(database: Database) -> StripeSubscriptions:
    return StripeSubscriptions(database, live=False)


async def current(database: Database, standing: Standing) -> Subscription | None:
    return await Subscriptions(database).current(standing.organization.id)


async def test_event_brings_the_facts_of_a_subscription(
    stripe: StripeSubscriptions, database: Database, acme: Standing
) -> None:
    snapshot = Snapshot("trialing", "team", NOW, NOW + MONTH, NOW + MONTH, True, NOW + MONTH, NOW)
    applied = await stripe.apply(event(1, snapshot=snapshot, organization_id=acme.organization.id))
    found = await current(database, acme)

    assert applied == Applied("changed", acme.organization.id, matters=True)
    assert found is not None
    assert found == Subscription(
        found.id, acme.organization.id, "stripe", "team", "trialing", NOW + MONTH, NOW + MONTH, True, NOW + MONTH, NOW
    )


async def test_organization_is_found_by_metadata_then_by_what_was_stored(
    stripe: StripeSubscriptions, database: Database, acme: Standing
) -> None:
    await stripe.apply(event(1, "active", organization_id=acme.organization.id))

    same = await stripe.apply(event(2, "past_due", at=1, customer_id=None))
    by_customer = await stripe.apply(event(3, "active", subscription_id="sub_stripe2", at=1))
    stranger = await stripe.apply(event(4, "active", subscription_id="sub_stripe3", customer_id="cus_2"))

    assert [same.outcome, by_customer.outcome, stranger.outcome] == ["changed", "changed", "organization_unknown"]
    assert by_customer.organization_id == acme.organization.id
    assert await count(database, "subscriptions") == 2


async def test_subscription_stays_with_the_organization_it_was_first_seen_with(
    stripe: StripeSubscriptions, database: Database, acme: Standing
) -> None:
    other = await person(database, Subject("user_bob"))
    await stripe.apply(event(1, "active", organization_id=acme.organization.id))

    await stripe.apply(event(2, "active", at=1, plan="pro", organization_id=other.organization.id))

    assert await current(database, other) is None
    found = await current(database, acme)
    assert found is not None
    assert found.plan == "pro"


@pytest.mark.parametrize(
    "keys",
    [
        {"organization_id": "org_of_another_environment"},
        {"organization_id": "org_of_another_environment", "customer_id": "cus_1", "subscription_id": "sub_new"},
        {"customer_id": None},
    ],
)
async def test_what_is_of_another_environment_changes_nothing(
    stripe: StripeSubscriptions, database: Database, acme: Standing, keys: dict[str, Any]
) -> None:
    if "subscription_id" in keys:
        await stripe.apply(event(1, "active", organization_id=acme.organization.id))
    before = await current(database, acme)

    applied = await stripe.apply(event(2, "canceled", at=1, **keys))

    assert applied == Applied("organization_unknown")
    assert await current(database, acme) == before
    assert await count(database, "webhook_deliveries WHERE delivery_id = 'evt_2'") == 0


@pytest.mark.parametrize("live", [True, False])
async def test_events_of_the_other_mode_change_nothing(database: Database, acme: Standing, live: bool) -> None:
    stripe = StripeSubscriptions(database, live=live)
    of_acme: dict[str, Any] = {"organization_id": acme.organization.id}

    other = await stripe.apply(event(1, "active", livemode=not live, **of_acme))
    found = await current(database, acme)
    ours = await stripe.apply(event(2, "active", livemode=live, **of_acme))

    assert other == Applied("other_mode")
    assert found is None
    assert ours.outcome == "changed"


async def test_event_that_is_sent_again_is_known(
    stripe: StripeSubscriptions, database: Database, acme: Standing
) -> None:
    once = event(1, "active", organization_id=acme.organization.id)

    outcomes = [(await stripe.apply(once)).outcome for _ in range(3)]

    assert outcomes == ["changed", "duplicate", "duplicate"]
    assert len(await events(database, acme.organization.id)) == 2  # with the one of first sight


async def test_older_event_changes_nothing_and_is_not_told_of(
    stripe: StripeSubscriptions, database: Database, acme: Standing
) -> None:
    of_acme: dict[str, Any] = {"organization_id": acme.organization.id}
    await stripe.apply(event(1, "canceled", at=5, **of_acme))
    before = await current(database, acme)

    late = await stripe.apply(event(2, "active", at=1, **of_acme))

    assert late == Applied("unchanged", acme.organization.id)
    assert await current(database, acme) == before
    assert [one["action"] for one in await events(database, acme.organization.id)][1:] == ["subscription.changed"]


async def test_a_renewal_matters_to_nobody_s_rights(
    stripe: StripeSubscriptions, database: Database, acme: Standing
) -> None:
    of_acme: dict[str, Any] = {"organization_id": acme.organization.id}
    now = datetime.now(UTC)
    periods = [Snapshot("active", "team", NOW, None, now + number * MONTH) for number in (1, 2)]

    applied = [
        await stripe.apply(event(place, at=place, snapshot=period, **of_acme)) for place, period in enumerate(periods)
    ]
    lapsed = await stripe.apply(event(7, at=7, snapshot=replace(periods[0], current_period_end=NOW - MONTH), **of_acme))

    assert [(one.outcome, one.matters) for one in (*applied, lapsed)] == [
        ("changed", True),
        ("changed", False),
        ("changed", True),
    ]
    assert len(await events(database, acme.organization.id)) == 4


async def test_effect_is_on_record_with_what_it_was_before(
    stripe: StripeSubscriptions, database: Database, acme: Standing
) -> None:
    of_acme: dict[str, Any] = {"organization_id": acme.organization.id}
    await stripe.apply(event(1, "trialing", **of_acme))
    await stripe.apply(event(2, at=9, payment="failed", **of_acme))
    await stripe.apply(event(3, "past_due", at=3, plan="pro", **of_acme))

    told = [one["metadata"] for one in (await events(database, acme.organization.id))[1:]]

    words = [(one["statusBefore"], one["status"], one["planBefore"], one["plan"]) for one in told]
    assert words == [(None, "trialing", "", "team"), ("trialing", "past_due", "team", "pro")]
    assert [one["stripeEventId"] for one in told] == ["evt_1", "evt_3"]


async def test_failure_takes_delivery_and_effect_back_together(
    stripe: StripeSubscriptions, database: Database, acme: Standing
) -> None:
    once = event(1, "active", organization_id=acme.organization.id)
    await execute(database, "ALTER TABLE audit_events ADD CONSTRAINT few CHECK (action = 'user.created')")
    with pytest.raises(asyncpg.CheckViolationError):
        await stripe.apply(once)
    left = [await count(database, table) for table in ("webhook_deliveries", "subscriptions")]
    await execute(database, "ALTER TABLE audit_events DROP CONSTRAINT few")

    again = await stripe.apply(once)

    assert left == [0, 0]
    assert again.outcome == "changed"


async def test_one_that_lives_counts_before_one_that_ended_and_any_of_stripe_before_our_trial(
    stripe: StripeSubscriptions, database: Database
) -> None:
    sight = FirstSight(database, trials=Trials(14, "trial plan"))
    acme = (await sight.provision(Subject("user_alice", "org_acme"), Profile("Alice"))).standing
    of_acme: dict[str, Any] = {"organization_id": acme.organization.id}
    seen: list[str | None] = []

    async def note(applied: StripeEvent) -> None:
        await stripe.apply(applied)
        found = await current(database, acme)
        seen.append(found.plan if found is not None else None)

    await note(event(1, "incomplete", plan="first", subscription_id="sub_a", **of_acme))
    await note(event(2, "active", at=1, plan="first", subscription_id="sub_a", **of_acme))
    await note(event(3, "active", plan="later", subscription_id="sub_b", started_at=NOW + MONTH, **of_acme))
    await note(event(4, "canceled", at=1, plan="later", subscription_id="sub_b", started_at=NOW + MONTH, **of_acme))
    await note(event(5, "canceled", at=2, plan="first", subscription_id="sub_a", **of_acme))

    assert seen == ["trial plan", "first", "later", "first", "later"]
    assert await count(database, "subscriptions WHERE source = 'trial'") == 1


async def test_named_subscription_without_facts_counts_for_nothing_and_keeps_its_owner(
    stripe: StripeSubscriptions, database: Database, acme: Standing
) -> None:
    await stripe.apply(event(1, organization_id=acme.organization.id))
    named = await current(database, acme)
    await stripe.apply(event(2, "active", at=1))
    known = await current(database, acme)

    assert named is not None
    assert (named.status, named.plan) == (None, "")
    assert known is not None
    assert (known.id, known.status) == (named.id, "active")


async def test_what_was_made_at_stripe_for_a_trial_is_noted_once_and_counts_when_stripe_says_so(
    stripe: StripeSubscriptions, database: Database
) -> None:
    sight = FirstSight(database, trials=Trials(14, "trial plan"))
    acme = (await sight.provision(Subject("user_alice", "org_acme"), Profile("Alice"))).standing
    organization_id = acme.organization.id
    async with database.connection() as connection:
        before = await known_at_stripe(connection, organization_id)
        for customer, made in (("cus_7", "sub_made"), ("cus_8", "sub_made")):
            await note_customer(connection, organization_id, customer)
            await note_subscription(connection, organization_id, made, "cus_7")
        after = await known_at_stripe(connection, organization_id)
    noted = await current(database, acme)

    told = await stripe.apply(event(1, "trialing", subscription_id="sub_made", customer_id="cus_7"))
    other = await stripe.apply(event(2, "active", subscription_id="sub_bought", customer_id="cus_7"))

    assert (before, after) == ((None, None), ("cus_7", "sub_made"))
    assert noted == acme.subscription
    assert (told.organization_id, other.organization_id) == (organization_id, organization_id)
    assert await count(database, "subscriptions") == 3


async def test_event_that_comes_before_what_was_made_is_noted_changes_nothing_about_that(
    stripe: StripeSubscriptions, database: Database, acme: Standing
) -> None:
    await stripe.apply(event(1, "trialing", subscription_id="sub_made", organization_id=acme.organization.id))
    before = await current(database, acme)
    async with database.connection() as connection:
        await note_subscription(connection, acme.organization.id, "sub_made", "cus_1")

        assert await known_at_stripe(connection, acme.organization.id) == ("cus_1", "sub_made")
    assert await current(database, acme) == before


async def test_many_events_at_once_are_each_applied_once(
    stripe: StripeSubscriptions, database: Database, acme: Standing
) -> None:
    of_acme: dict[str, Any] = {"organization_id": acme.organization.id}
    words = ("incomplete", "trialing", "active", "past_due", "unpaid")
    sent = [event(number, words[number % 5], at=number, **of_acme) for number in range(40)]

    applied = await asyncio.gather(*(stripe.apply(one) for one in (*sent, *sent)))
    found = await current(database, acme)

    assert sum(one.outcome == "duplicate" for one in applied) == 40
    assert found is not None
    assert found.status == words[39 % 5]
    assert await count(database, "subscriptions") == 1
    assert await count(database, "webhook_deliveries") == 40
    await events(database, acme.organization.id)  # sees that the chain is whole


def seen_of(
    history: Sequence[tuple[str | None, str | None, int]], organization_id: str, name: str
) -> list[StripeEvent]:
    """Events about one subscription: (status, payment, second)."""
    return [
        replace(
            event(0, status, at=at, payment=payment, subscription_id=name, organization_id=organization_id),
            stamp=Stamp(NOW + timedelta(seconds=at), f"evt_{name}_{place}"),
        )
        for place, (status, payment, at) in enumerate(history)
    ]


steps = st.tuples(
    st.sampled_from(["incomplete", "trialing", "active", "past_due", "unpaid", "canceled"]),
    st.none(),
    st.integers(0, 3),
) | st.tuples(st.none(), st.sampled_from(["paid", "failed"]), st.integers(0, 3))


@given(st.lists(steps, min_size=1, max_size=6), st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_order_of_events_with_repetitions_ends_in_the_same_row(
    stripe: StripeSubscriptions,
    database: Database,
    acme: Standing,
    history: list[tuple[str | None, str | None, int]],
    data: st.DataObject,
) -> None:
    ends = []
    places = range(len(history))
    again = data.draw(st.lists(st.sampled_from(places), max_size=3))
    for order in (list(places), data.draw(st.permutations([*places, *again]))):
        name = f"sub_{await count(database, 'subscriptions')}"
        sent = seen_of(history, acme.organization.id, name)
        for place in order:
            await stripe.apply(sent[place])
        async with database.connection() as connection:
            row = await connection.fetchrow(
                """SELECT plan, status, precedence, started_at, current_period_end, snapshot_status, snapshot_at,
                          paid_at, failed_at, right(snapshot_event, 1) AS event
                   FROM subscriptions WHERE stripe_subscription_id = $1""",
                name,
            )
        assert row is not None
        ends.append(dict(row))

    assert ends[0] == ends[1]
