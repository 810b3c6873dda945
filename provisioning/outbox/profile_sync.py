"""Profiles that Clerk's Backend API could not tell when their people came: asked for again, until it does."""

from collections.abc import Sequence

from provisioning.clerk_api import ClerkApi, ClerkUnanswered
from provisioning.database.pool import Database
from provisioning.outbox.announcements import Announcements
from provisioning.outbox.clerk_reasons import CLERK_REASONS
from provisioning.outbox.effects import Delivery, DeliveryFailed, Topic
from provisioning.outbox.queue import enqueue
from provisioning.profile import Profile
from provisioning.rows import USER_COLUMNS, user_of

DEADLINE_S = 10.0
# Only what nobody has told yet: claims of a token may have come in between, and they are younger.
_FILL = f"""
    UPDATE users SET name = coalesce(name, $2), email = coalesce(email, $3),
                     verified_email = coalesce(verified_email, $4), updated_at = now()
    WHERE id = $1 AND deleted_at IS NULL
      AND (name, email, verified_email)
          IS DISTINCT FROM (coalesce(name, $2), coalesce(email, $3), coalesce(verified_email, $4))
    RETURNING {USER_COLUMNS}
"""  # noqa: S608 - column names of our own


class ProfileSync:
    """Fills in the names and e-mail addresses of people who were created without them."""

    topic: Topic = "profile"
    most = 1

    def __init__(
        self, database: Database, clerk_api: ClerkApi, announcements: Announcements, *, deadline_s: float = DEADLINE_S
    ) -> None:
        """Settle whom to ask.

        Args:
            database: Where people are.
            clerk_api: With a secret key.
            announcements: Tells others what was learned.
            deadline_s: For one person.
        """
        self._database = database
        self._clerk_api = clerk_api
        self._announcements = announcements
        self.deadline_s = deadline_s

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Ask for each, and write down what was told. A person Clerk does not have (404) is done with."""
        for delivery in deliveries:
            try:
                profile = await self._clerk_api.ask_profile(str(delivery.payload["clerkId"]), self.deadline_s)
            except ClerkUnanswered as error:
                if error.outcome == "absent":
                    continue
                raise DeliveryFailed(CLERK_REASONS.get(error.outcome, "error"), error.retry_after_s) from None
            await self._fill(str(delivery.payload["userId"]), profile)

    async def _fill(self, user_id: str, profile: Profile) -> None:
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_FILL, user_id, profile.name, profile.email, profile.verified_email)
            if row is not None:
                await enqueue(connection, *self._announcements.profile_known(user_of(row)))
