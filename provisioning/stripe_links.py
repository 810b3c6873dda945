"""Which customer and which subscriptions at Stripe are whose: rows that hold no facts yet, or a trial's.

Whoever makes something at Stripe notes it here, so that events which name no organization are understood, and nothing
is made twice. Webhooks may have been first; what is noted already stays.
"""

from provisioning.database.pool import Connection
from provisioning.ids import new_id
from provisioning.stripe_facts import Facts

_KNOWN = """
    SELECT (SELECT stripe_customer_id FROM subscriptions
            WHERE organization_id = $1 AND stripe_customer_id IS NOT NULL ORDER BY created_at, id LIMIT 1) AS customer,
           (SELECT stripe_subscription_id FROM subscriptions
            WHERE organization_id = $1 AND stripe_subscription_id IS NOT NULL
            ORDER BY created_at, id LIMIT 1) AS subscription
"""
_NOTE_CUSTOMER = """
    UPDATE subscriptions SET stripe_customer_id = $2, updated_at = now()
    WHERE organization_id = $1 AND source = 'trial' AND stripe_customer_id IS NULL
"""
_INSERT = """
    INSERT INTO subscriptions (id, organization_id, source, plan, precedence, started_at,
                               stripe_customer_id, stripe_subscription_id, livemode)
    VALUES ($1, $2, 'stripe', '', $3, to_timestamp(0), $4, $5, $6) ON CONFLICT (stripe_subscription_id) DO NOTHING
"""


async def known_at_stripe(connection: Connection, organization_id: str) -> tuple[str | None, str | None]:
    """Read the ids of an organization's customer (`cus_…`) and of its oldest subscription (`sub_…`, Stripe's)."""
    row = await connection.fetchrow(_KNOWN, organization_id)
    assert row is not None  # noqa: S101 - a query without FROM has one row
    return row["customer"], row["subscription"]


async def note_customer(connection: Connection, organization_id: str, customer_id: str) -> None:
    """Note the customer that was made for an organization with a trial."""
    await connection.execute(_NOTE_CUSTOMER, organization_id, customer_id)


async def note_subscription(
    connection: Connection,
    organization_id: str,
    subscription_id: str,
    customer_id: str | None = None,
    *,
    livemode: bool | None = None,
) -> None:
    """Note a subscription; it counts for nothing until an event tells what it is."""
    none_yet = Facts().precedence
    await connection.execute(_INSERT, new_id("sub"), organization_id, none_yet, customer_id, subscription_id, livemode)
