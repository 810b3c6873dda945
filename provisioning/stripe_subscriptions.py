"""Brings what Stripe says into our rows: one transaction for each event, and the same end whatever their order.

Every transaction locks its delivery, the row of one subscription, and the end of one audit chain at last. A
subscription belongs to the organization it was first seen with; who pays does not change that.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from asyncpg import Record as Row

from provisioning.audit import GATEWAY, Event, Origin, append
from provisioning.database.pool import Connection, Database
from provisioning.deliveries import first_time
from provisioning.records import Subscription
from provisioning.rows import SUBSCRIPTION_COLUMNS, subscription_of
from provisioning.stripe_events import StripeEvent
from provisioning.stripe_facts import Facts, Snapshot, Stamp
from provisioning.stripe_links import note_subscription
from provisioning.subscription_status import plan_in_force, status_at

SOURCE = "stripe"
Outcome = Literal["changed", "unchanged", "duplicate", "not_of_interest", "other_mode", "organization_unknown"]

# An organization that the metadata name and we do not know is another environment's: then the customer, whom several
# may share, says nothing.
_FIND_ORGANIZATION = """
    SELECT coalesce(
        (SELECT organization_id FROM subscriptions WHERE stripe_subscription_id = $1),
        (SELECT id FROM organizations WHERE id = $2),
        (SELECT organization_id FROM subscriptions
         WHERE $2::text IS NULL AND stripe_customer_id = $3 ORDER BY created_at, id LIMIT 1)
    )
"""
_STRIPE = """started_at, snapshot_status, snapshot_at, snapshot_event, paid_at, failed_at"""
_LOCK = f"""
    SELECT {SUBSCRIPTION_COLUMNS}, {_STRIPE} FROM subscriptions WHERE stripe_subscription_id = $1 FOR NO KEY UPDATE
"""  # noqa: S608 - column names of our own, here and below
_UPDATE = f"""
    UPDATE subscriptions SET
        plan = $2, status = $3, precedence = $4, started_at = coalesce($5, started_at), trial_ends_at = $6,
        current_period_end = $7, cancel_at_period_end = $8, cancel_at = $9, canceled_at = $10,
        stripe_customer_id = coalesce($11, stripe_customer_id), livemode = coalesce($12, livemode),
        snapshot_status = $13, snapshot_at = $14, snapshot_event = $15,
        paid_at = $16, failed_at = $17, updated_at = now()
    WHERE id = $1 RETURNING {SUBSCRIPTION_COLUMNS}
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of an event.

    Attributes:
        organization_id: Whose subscription it is about; None: nobody's that we know.
        matters: Whether status or plan are others now, not only dates.
    """

    outcome: Outcome
    organization_id: str | None = None
    matters: bool = False


class StripeSubscriptions:
    """Applies events. Every method raises `DatabaseUnavailable` while PostgreSQL is away."""

    def __init__(self, database: Database, *, live: bool) -> None:
        """Settle which events count.

        Args:
            database: Where.
            live: Whether this environment's key is for live money; what is of the other mode is not taken.
        """
        self._database = database
        self._live = live

    def concerns(self, event: StripeEvent) -> bool:
        """Tell whether an event is about a subscription of this mode; anything else changes nothing."""
        return event.subscription_id is not None and event.livemode in (None, self._live)

    async def apply(self, event: StripeEvent, origin: Origin = GATEWAY) -> Applied:
        """Bring an event in, once. Events whose organization is unknown are not noted: they may be sent again.

        Args:
            event: Proven to be Stripe's.
            origin: How it came, for the audit events.
        """
        if event.subscription_id is None:
            return Applied("not_of_interest")
        if not self.concerns(event):
            return Applied("other_mode")
        async with self._database.transaction() as connection:
            organization_id = await connection.fetchval(
                _FIND_ORGANIZATION, event.subscription_id, event.organization_id, event.customer_id
            )
            if organization_id is None:
                return Applied("organization_unknown")
            if not await first_time(connection, SOURCE, event.stamp.event_id):
                return Applied("duplicate", organization_id)
            before, after = await _bring_in(connection, event, organization_id)
            if after != before:
                await append(connection, _changed(before, after, event, origin))
        if after == before:
            return Applied("unchanged", organization_id)
        return Applied("changed", organization_id, _told(before) != _told(after))


def _told(subscription: Subscription) -> tuple[str, str | None]:
    now = datetime.now(UTC)
    return status_at(subscription, now), plan_in_force(subscription, now)


async def _bring_in(
    connection: Connection, event: StripeEvent, organization_id: str
) -> tuple[Subscription, Subscription]:
    """Merge an event into its row; gives what that said before and says now."""
    assert event.subscription_id is not None  # noqa: S101 - else nothing is applied
    await note_subscription(
        connection, organization_id, event.subscription_id, event.customer_id, livemode=event.livemode
    )
    row = await connection.fetchrow(_LOCK, event.subscription_id)
    assert row is not None  # noqa: S101 - just inserted, or there before; Stripe's rows are never deleted
    before, facts = subscription_of(row), _facts_of(row)
    if event.snapshot is not None:
        facts = facts.with_snapshot(event.snapshot, event.stamp)
    if event.payment is not None:
        facts = facts.with_payment(event.payment, event.stamp.at)
    written = await connection.fetchrow(_UPDATE, *_columns(before, facts, event))
    assert written is not None  # noqa: S101 - its lock is ours
    return before, subscription_of(written)


def _facts_of(row: Row) -> Facts:
    snapshot = snapshot_stamp = None
    if row["snapshot_at"] is not None:
        snapshot_stamp = Stamp(row["snapshot_at"], row["snapshot_event"])
        snapshot = Snapshot(
            row["snapshot_status"],
            row["plan"],
            row["started_at"],
            row["trial_ends_at"],
            row["current_period_end"],
            row["cancel_at_period_end"],
            row["cancel_at"],
            row["canceled_at"],
        )
    return Facts(snapshot, snapshot_stamp, row["paid_at"], row["failed_at"])


def _columns(before: Subscription, facts: Facts, event: StripeEvent) -> tuple[object, ...]:
    snapshot, stamp = facts.snapshot, facts.snapshot_stamp
    return (
        before.id,
        snapshot.plan if snapshot is not None else before.plan,
        facts.status,
        facts.precedence,
        snapshot.started_at if snapshot is not None else None,
        snapshot.trial_ends_at if snapshot is not None else None,
        snapshot.current_period_end if snapshot is not None else None,
        snapshot.cancel_at_period_end if snapshot is not None else False,
        snapshot.cancel_at if snapshot is not None else None,
        snapshot.canceled_at if snapshot is not None else None,
        event.customer_id,
        event.livemode,
        snapshot.status if snapshot is not None else None,
        stamp.at if stamp is not None else None,
        stamp.event_id if stamp is not None else None,
        facts.paid_at,
        facts.failed_at,
    )


def _changed(before: Subscription, after: Subscription, event: StripeEvent, origin: Origin) -> Event:
    facts: dict[str, object] = {
        "plan": after.plan,
        "status": after.status,
        "planBefore": before.plan,
        "statusBefore": before.status,
        "currentPeriodEndsAt": after.current_period_end.isoformat() if after.current_period_end is not None else None,
        "cancelAtPeriodEnd": after.cancel_at_period_end,
        "stripeEventId": event.stamp.event_id,
        "stripeEventType": event.type,
        "stripeSubscriptionId": event.subscription_id,
    }
    return Event("subscription.changed", after.organization_id, origin, (after.id,), facts)
