"""What holds whatever goes wrong in whatever order: each effect is there once by its key, none is lost."""

import asyncio
from contextlib import AsyncExitStack

import aiohttp
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from provisioning.database.pool import Database
from provisioning.outbox.effects import Effect
from provisioning.outbox.posthog import Posthog
from provisioning.outbox.slack import Slack
from provisioning.outbox.stripe import Stripe
from provisioning.outbox.stripe_ids import SubscriptionRows
from tests.provisioning.outbox.test_stripe import organization_with_trial, trial
from tests.support.outboxes import delivering, posthog_effect, rows, slack_effect, until_delivered, write
from tests.support.receivers import PRICE, PROJECT_KEY, STRIPE_KEY, Failure, FakePosthog, FakeSlack, FakeStripe
from tests.support.tokens import execute

DEADLINE_S = 0.4
PATIENT = {
    "max_examples": 10,
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    "phases": (Phase.explicit, Phase.generate),  # an example takes a second: shrinking one would take many minutes
}
FAILURES: st.SearchStrategy[list[Failure | None]] = st.lists(
    st.sampled_from(["failed", "refused", "close", "lost", "hang", "redirect", None]), max_size=6
)
EFFECTS: list[Effect] = [
    trial(),
    slack_effect(0),
    slack_effect(1),
    *(posthog_effect(number, user=f"usr_{number % 2}") for number in range(4)),
]


async def hurry(database: Database) -> None:
    """Let nobody wait for a backoff, for as long as this runs."""
    while True:
        await execute(
            database, "UPDATE outbox SET next_attempt_at = now() WHERE state = 'pending' AND taken_by IS NULL"
        )
        await asyncio.sleep(0.05)


@given(slack=FAILURES, posthog=FAILURES, stripe=FAILURES, stops=st.integers(min_value=0, max_value=2))
@settings(**PATIENT)  # type: ignore[arg-type]  # a dictionary of several types
async def test_each_effect_is_at_its_receiver_once_by_its_key(
    database: Database,
    slack: list[Failure | None],
    posthog: list[Failure | None],
    stripe: list[Failure | None],
    stops: int,
) -> None:
    fakes = (
        FakeSlack(failures=[*slack]),
        FakePosthog(failures=[*posthog]),
        FakeStripe(failures=[*stripe]),
    )
    await execute(database, "TRUNCATE organizations, subscriptions, outbox CASCADE")
    await organization_with_trial(database)
    slack_fake, posthog_fake, stripe_fake = fakes
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
        for fake in fakes:
            await stack.enter_async_context(fake.running())
        ids = SubscriptionRows(database)
        receivers = (
            Slack(session, slack_fake.webhook_url, deadline_s=DEADLINE_S),
            Posthog(session, posthog_fake.url, PROJECT_KEY, deadline_s=DEADLINE_S, most=2),
            Stripe(session, STRIPE_KEY, PRICE, ids, api_url=stripe_fake.url, deadline_s=DEADLINE_S),
        )
        await write(database, *EFFECTS)
        for _ in range(stops):  # workers that are stopped in the middle of something
            async with delivering(database, *receivers) as outbox:
                await outbox.close(0.0)
        hurrying = asyncio.create_task(hurry(database))
        stack.callback(hurrying.cancel)
        async with delivering(database, *receivers), delivering(database, *receivers):
            await until_delivered(database, len(EFFECTS))
    sent = [event["event"] for event in posthog_fake.events]

    assert set(slack_fake.keys) == {"user_created:usr_0", "user_created:usr_1"}
    assert len(slack_fake.posted) <= 2 + slack.count("lost") + 2 * stops
    assert len(sent) == 4
    assert (len(stripe_fake.customers), len(stripe_fake.subscriptions)) == (1, 1)
    assert all(row["payload"] == {} for row in await rows(database))
