"""From a proven subject to their standing: found, or asked about and written, once at a time per process."""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from provisioning.audit import GATEWAY, Origin
from provisioning.bootstrap import Bootstrap
from provisioning.clerk_api import ClerkApi
from provisioning.first_sight import FirstSight
from provisioning.profile import Profile, claimed, filled
from provisioning.records import Organization, Standing, Subject
from provisioning.repair import Repaired, repair
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


@dataclass(frozen=True, slots=True)
class _Told:
    profile: Profile
    organization_name: str | None
    administers: bool | None  # whether the settings make this person an administrator; None: not known now
    profile_unknown: bool  # Clerk was asked for it in vain


class Arrivals:
    """Gives every proven subject a standing in our records.

    Attributes:
        tally: Counts; who takes another's place may go on with its counts.
    """

    def __init__(
        self,
        first_sight: FirstSight,
        clerk_api: ClerkApi,
        *,
        bootstrap: Bootstrap | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nobody.

        Args:
            first_sight: Finds and writes.
            clerk_api: Tells of people.
            bootstrap: Makes administrators of those the settings name, and is closed with this; None: of nobody.
            clock: Monotonic seconds.
        """
        self._first_sight = first_sight
        self._clerk_api = clerk_api
        self._bootstrap = bootstrap
        self._clock = clock
        self._flights: SingleFlight[Standing] = SingleFlight()
        self._asked_anew = 0
        self.tally = Tally()

    async def standing(self, subject: Subject, origin: Origin = GATEWAY) -> Standing:
        """Find the subject's standing, or make and refresh what is missing. A cancelled waiter leaves the others be.

        Disabled and deleted users come back as they are: the caller refuses them.

        Args:
            subject: Proven by a verified credential.
            origin: Where they were seen, for the audit; of those who ask at once the first one's counts.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be asked now.
            OrganizationMissing: No Clerk organization in the token, and personal ones are off.
        """
        return await self._flights.run((self._asked_anew, subject), lambda: self._standing(subject, origin))

    def ask_anew(self) -> None:
        """Let nobody from now on join a flight that is under way: what it reads may be from before a change."""
        self._asked_anew += 1

    async def standings(self, subjects: Sequence[Subject]) -> list[Standing | None]:
        """Read many people's standings at once, in the order asked for; None where `standing` has something to do.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be asked now.
        """
        found = await self._first_sight.find_many(subjects)
        if self._bootstrap is not None:
            for one in found:  # people in use are read nowhere else
                if one is not None:
                    self._bootstrap.consider(one.user)
        return [
            standing if standing is not None and self._is_complete(standing, subject) else None
            for standing, subject in zip(found, subjects, strict=True)
        ]

    async def found(self, subject: Subject) -> Standing | None:
        """Find the subject's standing without making anything; None when there is none.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be asked now.
            OrganizationMissing: The personal organization is asked for, and those are off.
        """
        return await self._first_sight.find(subject.clerk_user_id, subject.clerk_organization_id)

    async def organization(self, clerk_organization_id: str) -> Organization:
        """Find or make an organization that speaks for itself, by an API key of its own.

        Args:
            clerk_organization_id: Proven by the key.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be asked now.
        """
        found = await self._first_sight.find_organization(clerk_organization_id)
        if found is not None:
            return found
        name = await self._clerk_api.organization_name(clerk_organization_id)
        return await self._first_sight.provision_organization(clerk_organization_id, name)

    async def finish(self, wait_s: float) -> None:
        """Let what is under way come to its end, for `wait_s` at most; then end it."""
        await self._flights.landed(wait_s)
        await self.close()

    async def close(self) -> None:
        """End what is under way."""
        await self._flights.close()
        if self._bootstrap is not None:
            await self._bootstrap.close()

    async def repair(self, user_id: str, origin: Origin) -> Repaired:
        """Make what is missing of a known person's records; as `repair`."""
        return await repair(self._first_sight, user_id, origin)

    async def _standing(self, subject: Subject, origin: Origin) -> Standing:
        found = await self._first_sight.find(subject.clerk_user_id, subject.clerk_organization_id)
        if found is not None and self._is_complete(found, subject):
            if self._bootstrap is not None:
                self._bootstrap.consider(found.user)
            return found
        began = self._clock()
        try:
            provisioned = await self._provision(subject, origin)
        except Exception:
            self.tally.failures += 1
            raise
        finally:
            took = self._clock() - began
            self.tally.duration_counts[bisect_left(DURATION_BOUNDS_S, took)] += 1
            self.tally.duration_sum_s += took
            self.tally.provisionings += 1
        return provisioned

    def _is_complete(self, standing: Standing, subject: Subject) -> bool:
        return is_current(standing, subject) and not self._first_sight.owes_trial(standing)

    async def _provision(self, subject: Subject, origin: Origin) -> Standing:
        told = await self._ask(subject)
        provisioned = await self._first_sight.provision(
            subject, told.profile, told.organization_name, profile_unknown=told.profile_unknown, origin=origin
        )
        self.tally.provisioned_users += provisioned.created
        standing = provisioned.standing
        if self._bootstrap is None:
            return standing
        return replace(standing, user=await self._bootstrap.settle(standing.user, told.administers))

    async def _ask(self, subject: Subject) -> _Told:
        """Take the profile from the claims, else from Clerk; only what is new is asked for. Holds no connection."""
        claims = claimed(subject)
        known = await self._first_sight.known(subject)
        incomplete = claims.name is None or claims.email is None or self._first_sight.link_verified_email
        asks_person = not known.person and incomplete
        asked, organization_name, administers = await asyncio.gather(
            self._clerk_api.user_profile(subject.clerk_user_id) if asks_person else _nothing(),
            self._clerk_api.organization_name(subject.clerk_organization_id)
            if subject.clerk_organization_id is not None and not known.organization
            else _nothing(),
            # At the same time as the profile, so that both are one question.
            self._bootstrap.administers(subject.clerk_user_id)
            if self._bootstrap is not None and not known.person
            else _nothing(),
        )
        unknown = asks_person and asked is None
        return _Told(filled(claims, asked), organization_name, administers, profile_unknown=unknown)


def is_current(standing: Standing, subject: Subject) -> bool:
    """Whether our rows already say what the token says; a tombstone follows nothing."""
    user, claims = standing.user, claimed(subject)
    if user.deleted_at is not None:
        return True
    role, told = standing.organization_role, subject.organization_role
    if subject.clerk_organization_id is not None and role != told and not standing.outdates(told, subject.issued_at):
        return False
    return claims.name in (None, user.name) and claims.email in (None, user.email)


async def _nothing() -> None:
    """Stand in for a question that need not be asked."""
