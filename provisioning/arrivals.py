"""From a proven subject to their standing: found, or asked about and written, once at a time per process."""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from provisioning.clerk_api import ClerkApi
from provisioning.first_sight import FirstSight
from provisioning.profile import Profile, claimed, filled
from provisioning.records import Standing, Subject
from provisioning.single_flight import SingleFlight

DURATION_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


@dataclass(slots=True)
class Tally:
    """What was done, for metrics.

    Attributes:
        provisioned_users: Users this process made.
        provisionings: Transactions of first sight, also those that added only an organization or a membership.
        failures: Provisionings that raised.
        duration_counts: Provisionings by duration, one count per bound of `DURATION_BOUNDS_S` (not cumulative) and one
            for what lies above.
        duration_sum_s: Seconds of all of them together.
    """

    provisioned_users: int = 0
    provisionings: int = 0
    failures: int = 0
    duration_counts: list[int] = field(default_factory=lambda: [0] * (len(DURATION_BOUNDS_S) + 1))
    duration_sum_s: float = 0.0


class Arrivals:
    """Gives every proven subject a standing in our records.

    Attributes:
        tally: Counts; who takes another's place may go on with its counts.
    """

    def __init__(
        self, first_sight: FirstSight, clerk_api: ClerkApi, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._first_sight = first_sight
        self._clerk_api = clerk_api
        self._clock = clock
        self._flights: SingleFlight[Standing] = SingleFlight()
        self.tally = Tally()

    async def standing(self, subject: Subject) -> Standing:
        """Find the subject's standing, or make and refresh what is missing. A cancelled waiter leaves the others be.

        Disabled and deleted users come back as they are: the caller refuses them.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be asked now.
            OrganizationMissing: No Clerk organization in the token, and personal ones are off.
        """
        return await self._flights.run(subject, lambda: self._standing(subject))

    async def standings(self, subjects: Sequence[Subject]) -> list[Standing | None]:
        """Read many people's standings at once, in the order asked for; None where `standing` has something to do.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be asked now.
        """
        found = await self._first_sight.find_many(subjects)
        return [
            standing if standing is not None and is_current(standing, subject) else None
            for standing, subject in zip(found, subjects, strict=True)
        ]

    async def finish(self, wait_s: float) -> None:
        """Let what is under way come to its end, for `wait_s` at most; then end it."""
        await self._flights.landed(wait_s)
        await self._flights.close()

    async def close(self) -> None:
        """End what is under way."""
        await self._flights.close()

    async def _standing(self, subject: Subject) -> Standing:
        found = await self._first_sight.find(subject.clerk_user_id, subject.clerk_organization_id)
        if found is not None and is_current(found, subject):
            return found
        began = self._clock()
        try:
            provisioned = await self._provision(subject)
        except Exception:
            self.tally.failures += 1
            raise
        finally:
            took = self._clock() - began
            self.tally.duration_counts[bisect_left(DURATION_BOUNDS_S, took)] += 1
            self.tally.duration_sum_s += took
            self.tally.provisionings += 1
        return provisioned

    async def _provision(self, subject: Subject) -> Standing:
        profile, organization_name = await self._profile(subject)
        provisioned = await self._first_sight.provision(subject, profile, organization_name)
        self.tally.provisioned_users += provisioned.created
        return provisioned.standing

    async def _profile(self, subject: Subject) -> tuple[Profile, str | None]:
        """Take the profile from the claims, else from Clerk; only what is new is asked for. Holds no connection."""
        claims = claimed(subject)
        known = await self._first_sight.known(subject)
        asks_person = not known.person and (claims.name is None or claims.email is None)
        asked, organization_name = await asyncio.gather(
            self._clerk_api.user_profile(subject.clerk_user_id) if asks_person else _nothing(),
            self._clerk_api.organization_name(subject.clerk_organization_id)
            if subject.clerk_organization_id is not None and not known.organization
            else _nothing(),
        )
        return filled(claims, asked), organization_name


def is_current(standing: Standing, subject: Subject) -> bool:
    """Whether our rows already say what the token says; a tombstone follows nothing."""
    user, claims = standing.user, claimed(subject)
    if user.deleted_at is not None:
        return True
    if subject.clerk_organization_id is not None and standing.organization_role != subject.organization_role:
        return False
    return claims.name in (None, user.name) and claims.email in (None, user.email)


async def _nothing() -> None:
    """Stand in for a question that need not be asked."""
