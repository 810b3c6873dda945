"""Subscriptions of organizations: the one that counts, and trials, of which each organization gets one, once for ever.

Rows hold facts; `subscription_status.py` tells what follows from them at a moment. What Stripe says arrives through
`stripe_subscriptions.py`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from provisioning.audit import GATEWAY, Event, Origin
from provisioning.database.pool import Connection, Database
from provisioning.ids import new_id
from provisioning.records import Subscription
from provisioning.rows import CURRENT_SUBSCRIPTION, SUBSCRIPTION_COLUMNS, subscription_of

TRIAL_PRECEDENCE = 3
"""Behind every subscription at Stripe that ever began: once there is one, Stripe decides."""

_CURRENT = f"""
    SELECT {SUBSCRIPTION_COLUMNS} FROM subscriptions WHERE organization_id = $1 {CURRENT_SUBSCRIPTION}
"""  # noqa: S608 - column names of our own, here and below
# Nothing for who has a subscription already, of whatever kind. Two at once: the index lets one of them through.
_START_TRIAL = f"""
    INSERT INTO subscriptions (id, organization_id, source, plan, status, precedence, started_at,
                               trial_ends_at, current_period_end)
    SELECT $1, $2, 'trial', $3, 'trialing', {TRIAL_PRECEDENCE}, $4, $5, $5
    WHERE NOT EXISTS (SELECT FROM subscriptions WHERE organization_id = $2)
    ON CONFLICT (organization_id) WHERE source = 'trial' DO NOTHING
    RETURNING {SUBSCRIPTION_COLUMNS}
"""  # noqa: S608


async def current_subscription(connection: Connection, organization_id: str) -> Subscription | None:
    """Read the subscription that counts for an organization; None: it never had any."""
    row = await connection.fetchrow(_CURRENT, organization_id)
    return subscription_of(row) if row else None


@dataclass(frozen=True, slots=True)
class Trials:
    """Starts trials.

    Attributes:
        days: How long one lasts, 1 or more.
        plan: What it lets an organization try.
    """

    days: int
    plan: str

    async def start(self, connection: Connection, organization_id: str) -> Subscription | None:
        """Start the trial of an organization that never had a subscription, inside the caller's transaction.

        Whoever makes organizations calls this, and may call it again.

        Returns:
            None when there was one already: the audit is told of a trial (`started`) by who made it alone.
        """
        now = datetime.now(UTC)
        ends_at = now + timedelta(days=self.days)
        row = await connection.fetchrow(_START_TRIAL, new_id("sub"), organization_id, self.plan, now, ends_at)
        return subscription_of(row) if row else None


def started(trial: Subscription, user_id: str | None = None, origin: Origin = GATEWAY) -> Event:
    """Put into words that a trial began.

    Args:
        trial: As made.
        user_id: At whose first sight, `usr_…`; None: at nobody's.
        origin: Where they were seen.
    """
    assert trial.trial_ends_at is not None  # noqa: S101 - a constraint of the table
    facts = {"plan": trial.plan, "trialEndsAt": trial.trial_ends_at.isoformat()}
    targets = (trial.id,) if user_id is None else (trial.id, user_id)
    return Event("subscription.trial_started", trial.organization_id, origin, targets, facts)


class Subscriptions:
    """What can be asked of subscriptions. Raises `DatabaseUnavailable` while PostgreSQL is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def current(self, organization_id: str) -> Subscription | None:
        """Read the subscription that counts for an organization, `org_…`; None: it never had any."""
        async with self._database.connection() as connection:
            return await current_subscription(connection, organization_id)
