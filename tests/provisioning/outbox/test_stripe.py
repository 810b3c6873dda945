"""One customer and one trial per organization, whatever is lost on the way."""

import time

import aiohttp
import pytest

from provisioning.database.pool import Database
from provisioning.erasure import erase
from provisioning.outbox.effects import Effect
from provisioning.outbox.stripe import Stripe
from provisioning.outbox.stripe_ids import Made, SubscriptionRows
from provisioning.subscriptions import Trials
from tests.support.outboxes import delivering, until, until_delivered, write
from tests.support.receivers import PRICE, STRIPE_KEY, Failure, FakeStripe
from tests.support.tokens import execute

ENDS_AT = int(time.time()) + 14 * 86400


async def organization_with_trial(database: Database) -> None:
    await execute(database, "INSERT INTO organizations (id, clerk_id, name) VALUES ('org_1', 'org_1', 'Acme & Sons')")
    async with database.transaction() as connection:
        await Trials(14, "pro").start(connection, "org_1")


@pytest.fixture
async def records(database: Database) -> SubscriptionRows:
    await organization_with_trial(database)
    return SubscriptionRows(database)


def trial(ends_at: int | None = ENDS_AT) -> Effect:
    payload = {
        "organizationId": "org_1",
        "organizationName": "Acme & Sons",
        "userId": "usr_1",
        "email": "a+b@example.com",
        "trialEndsAt": ends_at,
    }
    return Effect("stripe", "trial", "trial:org_1", payload)


def stripe_to(
    fake: FakeStripe,
    session: aiohttp.ClientSession,
    records: SubscriptionRows,
    *,
    price: str = PRICE,
    deadline_s: float = 5.0,
) -> Stripe:
    return Stripe(session, STRIPE_KEY, price, records, api_url=f"{fake.url}/", deadline_s=deadline_s)


async def test_a_trial_makes_a_customer_and_a_subscription_and_both_are_remembered(
    database: Database, session: aiohttp.ClientSession, stripe_fake: FakeStripe, records: SubscriptionRows
) -> None:
    await write(database, trial())
    async with delivering(database, stripe_to(stripe_fake, session, records)):
        await until_delivered(database, 1)
    (customer,), (subscription,) = stripe_fake.customers, stripe_fake.subscriptions

    assert (customer["name"], customer["email"]) == ("Acme & Sons", "a+b@example.com")
    assert customer["metadata"] == subscription["metadata"] == {"organization_id": "org_1", "user_id": "usr_1"}
    assert (subscription["customer"], subscription["trial_end"]) == (customer["id"], str(ENDS_AT))
    assert subscription["trial_settings[end_behavior][missing_payment_method]"] == "cancel"
    assert await records.of("org_1") == Made(customer["id"], subscription["id"])


@pytest.mark.parametrize("before", [[], [None], [None, "lost"]])
@pytest.mark.parametrize("failure", ["failed", "rate_limited", "refused", "rejected", "close", "lost", "hang"])
async def test_each_is_made_once_whichever_request_fails_and_however(
    database: Database,
    session: aiohttp.ClientSession,
    stripe_fake: FakeStripe,
    records: SubscriptionRows,
    failure: Failure,
    before: list[Failure | None],
) -> None:
    """The requests are: make the customer, make a subscription; after a failure of that, first list those there are."""
    stripe_fake.failures = [*before, failure]
    await write(database, trial())
    async with delivering(database, stripe_to(stripe_fake, session, records, deadline_s=0.6)):
        await until_delivered(database, 1)

    assert len(stripe_fake.asked) > 2
    assert (len(stripe_fake.customers), len(stripe_fake.subscriptions)) == (1, 1)
    assert await records.of("org_1") == Made("cus_0", "sub_0")


async def test_a_customer_whose_answer_was_lost_days_ago_is_found_by_its_metadata(
    database: Database, session: aiohttp.ClientSession, stripe_fake: FakeStripe, records: SubscriptionRows
) -> None:
    stripe_fake.failing = "lost"
    await write(database, trial())
    async with delivering(database, stripe_to(stripe_fake, session, records)) as outbox:
        await until(lambda: outbox.tally.deliveries["stripe", "failed"] > 0)
    stripe_fake.forget_keys()
    stripe_fake.failing = None
    await execute(database, "UPDATE outbox SET created_at = now() - interval '25 hours', next_attempt_at = now()")
    async with delivering(database, stripe_to(stripe_fake, session, records)):
        await until_delivered(database, 1)

    assert (len(stripe_fake.customers), len(stripe_fake.subscriptions)) == (1, 1)


async def test_a_customer_whose_answer_was_lost_before_their_person_was_deleted_is_found_by_its_metadata(
    database: Database, session: aiohttp.ClientSession, stripe_fake: FakeStripe, records: SubscriptionRows
) -> None:
    stripe_fake.failing = "lost"
    await execute(database, "INSERT INTO users (id, clerk_id) VALUES ('usr_1', 'user_1')")
    await write(database, trial())
    async with delivering(database, stripe_to(stripe_fake, session, records)) as outbox:
        await until(lambda: outbox.tally.deliveries["stripe", "failed"] > 0)
    async with database.transaction() as connection:
        await erase(connection, "usr_1")
    stripe_fake.index()
    stripe_fake.failing = None
    await execute(database, "UPDATE outbox SET next_attempt_at = now()")
    async with delivering(database, stripe_to(stripe_fake, session, records)):
        await until_delivered(database, 1)

    assert (len(stripe_fake.customers), len(stripe_fake.subscriptions)) == (1, 1)


async def test_a_subscription_whose_answer_was_lost_days_ago_is_found_at_its_customer(
    database: Database, session: aiohttp.ClientSession, stripe_fake: FakeStripe, records: SubscriptionRows
) -> None:
    stripe_fake.failures = [None, "lost"]
    await write(database, trial())
    async with delivering(database, stripe_to(stripe_fake, session, records)) as outbox:
        await until(lambda: outbox.tally.deliveries["stripe", "failed"] > 0)
        stripe_fake.forget_keys()
        await until_delivered(database, 1)

    assert len(stripe_fake.posted("subscriptions")) == len(stripe_fake.subscriptions) == 1
    assert (await records.of("org_1")).subscription == "sub_0"


async def test_a_price_that_is_put_right_in_the_settings_works_at_the_next_attempt(
    database: Database, session: aiohttp.ClientSession, stripe_fake: FakeStripe, records: SubscriptionRows
) -> None:
    await write(database, trial())
    async with delivering(database, stripe_to(stripe_fake, session, records, price="price_typo")) as outbox:
        await until(lambda: outbox.tally.deliveries["stripe", "failed"] > 0)
    async with delivering(database, stripe_to(stripe_fake, session, records)):
        await until_delivered(database, 1)
    asked = stripe_fake.posted("subscriptions")

    assert len({each.key for each in asked}) == 2
    assert len(stripe_fake.customers) == 1


async def test_the_same_request_carries_the_same_key_at_every_attempt(
    database: Database, session: aiohttp.ClientSession, stripe_fake: FakeStripe, records: SubscriptionRows
) -> None:
    stripe_fake.failures = ["failed", "close", "lost"]
    await write(database, trial())
    async with delivering(database, stripe_to(stripe_fake, session, records)):
        await until_delivered(database, 1)
    asked = stripe_fake.posted("customers")

    assert len(asked) == 4
    assert len({(each.key, each.body) for each in asked}) == 1
    assert len(stripe_fake.customers) == 1


@pytest.mark.parametrize("ends_at", [1_700_000_000, None])
async def test_a_trial_that_is_over_before_stripe_is_back_makes_no_subscription(
    database: Database,
    session: aiohttp.ClientSession,
    stripe_fake: FakeStripe,
    records: SubscriptionRows,
    ends_at: int | None,
) -> None:
    await write(database, trial(ends_at))
    async with delivering(database, stripe_to(stripe_fake, session, records)):
        await until_delivered(database, 1)

    assert (len(stripe_fake.customers), stripe_fake.posted("subscriptions")) == (1, [])
    assert await records.of("org_1") == Made("cus_0", None)


async def test_what_a_webhook_noted_first_stays(
    database: Database, session: aiohttp.ClientSession, stripe_fake: FakeStripe, records: SubscriptionRows
) -> None:
    await records.note_customer("org_1", "cus_known")
    await records.note_subscription("org_1", "sub_known", "cus_known")
    await write(database, trial())
    async with delivering(database, stripe_to(stripe_fake, session, records)):
        await until_delivered(database, 1)
    await records.note_customer("org_1", "cus_other")
    await records.note_subscription("org_1", "sub_other", "cus_other")

    assert stripe_fake.asked == []
    assert await records.of("org_1") == Made("cus_known", "sub_known")
