"""What Stripe calls an organization's customer and subscription, kept with its row in `subscriptions`."""

from dataclasses import dataclass
from typing import Protocol

from provisioning.database.pool import Database
from provisioning.stripe_links import known_at_stripe, note_customer, note_subscription


@dataclass(frozen=True, slots=True)
class Made:
    """What was made at Stripe.

    Attributes:
        customer: `cus_…`; None: not known.
        subscription: `sub_…`, Stripe's; None: not known.
    """

    customer: str | None = None
    subscription: str | None = None


class StripeIds(Protocol):
    """Remembers them."""

    async def of(self, organization_id: str) -> Made:
        """Read what was made for an organization."""
        ...

    async def note_customer(self, organization_id: str, customer: str) -> None:
        """Write the customer down."""
        ...

    async def note_subscription(self, organization_id: str, subscription: str, customer: str) -> None:
        """Write the subscription down, and whose it is."""
        ...


class SubscriptionRows:
    """Remembers them in `subscriptions`. Every method raises `DatabaseUnavailable` while PostgreSQL is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, organization_id: str) -> Made:
        """Read what was made for an organization; nothing, when it has no row."""
        async with self._database.connection() as connection:
            return Made(*await known_at_stripe(connection, organization_id))

    async def note_customer(self, organization_id: str, customer: str) -> None:
        """Write the customer down."""
        async with self._database.connection() as connection:
            await note_customer(connection, organization_id, customer)

    async def note_subscription(self, organization_id: str, subscription: str, customer: str) -> None:
        """Write the subscription down, and whose it is."""
        async with self._database.connection() as connection:
            await note_subscription(connection, organization_id, subscription, customer)
