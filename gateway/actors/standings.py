"""What our records say of people: fresh from memory, from Redis, else from PostgreSQL, else, while that is away, stale.

Every answer comes with the moment until which it is believed. What was read before a change counts no more after it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from zlib import crc32

from cachebox import LRUCache

from config.model import Cache
from gateway.actors.beliefs import LookUps, Memory
from gateway.actors.system_tokens import NOBODY
from gateway.credentials.kinds import CredentialKind
from gateway.errors import CredentialRejected, OrganizationLeft, OrganizationRequired, StoreUnavailable
from gateway.shared_state.facts import STANDINGS, Reading
from gateway.shared_state.tier import Recalled, SharedTier
from gateway.verify.principal import Principal
from provisioning.arrivals import Arrivals, is_current
from provisioning.audit import GATEWAY, Origin
from provisioning.errors import DatabaseUnavailable, MembershipEnded, OrganizationMissing
from provisioning.patience import REQUEST_S, STRANGER_S, patience
from provisioning.records import Standing, Subject
from provisioning.single_flight import SingleFlight

SHARED_AGAIN = 3
"""Of people in use others are told so often within `cache.stale_if_error`, though their records are read more often."""


class Ended(Protocol):
    """Ends what a person has open (`live/registry.py`)."""

    def __call__(self, *, user: str, organization: str | None = None) -> object:
        """End it, in one organization or in all."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When the records are asked.

    Attributes:
        monotonic: Seconds that are never set back.
        wall: Unix seconds.
        version: Of the last change heard of.
    """

    monotonic: float
    wall: float = 0.0
    version: int = 0


@dataclass(frozen=True, slots=True)
class _Remembered:
    standing: Standing
    read_at: float  # monotonic
    shared_at: float = -math.inf  # the same, when others were told last


class Standings:
    """Knows what our records say of people.

    Attributes:
        look_ups: Counts, together with those of the credentials (`callers.py`).
        near_s: How long what was read is believed at most: `cache.near_ttl`, less while changes may be missed.
    """

    def __init__(
        self,
        arrivals: Arrivals,
        settings: Cache,
        monotonic: Callable[[], float],
        ended: Ended | None = None,
        shared: SharedTier | None = None,
    ) -> None:
        """Begin with nothing remembered.

        Args:
            arrivals: Knows our records.
            settings: How long what is known is believed.
            monotonic: Seconds that are never set back.
            ended: Told of people who may not call any more, as soon as that is seen.
            shared: What replicas remember together; None: there is no Redis.
        """
        self._arrivals = arrivals
        self._settings = settings
        self._monotonic = monotonic
        self._ended = ended
        self._shared = shared
        self._looks: SingleFlight[Recalled[Standing] | None] = SingleFlight()
        self._forgotten = 0  # how often anything was
        self.near_s = settings.near_ttl
        self._forgot_all_at = -math.inf
        self._remembered: Memory[tuple[str, str | None], _Remembered] = LRUCache(settings.near_entries)
        self._changed_at: Memory[str, float] = LRUCache(settings.near_entries)
        self.look_ups = LookUps()

    async def of(self, principal: Principal, subject: Subject, origin: Origin = GATEWAY) -> tuple[Standing, float]:
        """What our records say, and until when (monotonic) that is believed.

        Fresh from memory or from Redis, else from PostgreSQL, else, while that is down, whichever of the first two is
        younger, up to `cache.stale_if_error`. Who is new there was seen at `origin`.
        """
        remembered = self._remembered_of(subject)
        if remembered is not None and remembered.read_at > self._forgot_all_at:
            until = self.believed_until(subject, remembered.read_at)
            if self._monotonic() < until and _says_the_same(principal, subject, remembered.standing):
                return remembered.standing, until
        forgotten = self._forgotten
        recalled = await self._recalled(principal, subject)
        if recalled is not None and forgotten == self._forgotten:  # else it was judged before a change
            found = _Remembered(recalled.fact, self._monotonic() - recalled.age_s)
            if recalled.fresh:
                self._remembered.insert((subject.clerk_user_id, subject.clerk_organization_id), found)
                return found.standing, self.believed_until(subject, found.read_at)
            if remembered is None or found.read_at > remembered.read_at:
                remembered = found
        asked = self.moment()
        try:
            async with patience(REQUEST_S if remembered is not None else STRANGER_S):
                standing = await self._read(principal, subject, origin)
        except OrganizationMissing:
            raise OrganizationRequired from None
        except MembershipEnded as error:
            if self._ended is not None and error.organization_id is not None:
                self._ended(user=error.user_id, organization=error.organization_id)
            raise OrganizationLeft(error.reason) from None
        except (DatabaseUnavailable, TimeoutError) as error:
            return self._stale(remembered, error)
        # What is found for a token of ours may not be complete: nobody is let to skip the making of the rest.
        shares = bool(subject.clerk_user_id) and principal.binding is None and standing is not NOBODY
        return standing, self._remember(subject, standing, asked, asked.monotonic if shares else -math.inf)

    def _remembered_of(self, subject: Subject) -> _Remembered | None:
        """Give what was read of somebody since they or their organization were changed last."""
        remembered = self._remembered.get((subject.clerk_user_id, subject.clerk_organization_id))
        if remembered is None:
            return None
        standing = remembered.standing
        for changed in (subject.clerk_user_id, standing.user.id, standing.organization.id):
            changed_at = self._changed_at.get(changed)
            if changed_at is not None and remembered.read_at <= changed_at:
                return None
        return remembered

    def _stale(self, remembered: _Remembered | None, error: Exception) -> tuple[Standing, float]:
        """Go on with what was read last, while PostgreSQL cannot be asked."""
        now, settings = self._monotonic(), self._settings
        if remembered is None or now - remembered.read_at >= settings.stale_if_error:
            raise StoreUnavailable("database_unavailable").caused_by(error) from error
        self.look_ups.stale += 1
        return remembered.standing, min(now + settings.degraded_ttl, remembered.read_at + settings.stale_if_error)

    async def _recalled(self, principal: Principal, subject: Subject) -> Recalled[Standing] | None:
        """Look in Redis, once for all who ask at once; None: nothing there counts for this subject."""
        shared = self._shared
        if shared is None or not subject.clerk_user_id or principal.kind is CredentialKind.CLERK_M2M:
            return None
        about = (subject.clerk_user_id, subject.clerk_organization_id)
        fresh_s = freshness(subject.clerk_user_id, self.near_s)
        recalled = await self._looks.run(
            (self._forgotten, about), lambda: shared.find(STANDINGS, *about, fresh_s=fresh_s)
        )
        return recalled if recalled is not None and _says_the_same(principal, subject, recalled.fact) else None

    async def _read(self, principal: Principal, subject: Subject, origin: Origin) -> Standing:
        """Ask PostgreSQL; what we minted makes nobody known, and brings no membership back. Machines have no record."""
        if principal.kind is CredentialKind.CLERK_M2M:
            return NOBODY
        if not subject.clerk_user_id:
            return Standing(NOBODY.user, await self._arrivals.organization(principal.subject), "")
        if principal.binding is None:
            return await self._arrivals.standing(subject, origin)
        standing = await self._arrivals.found(subject)
        if standing is None:
            if self._ended is not None:
                self._ended(user=principal.binding.user_id, organization=principal.binding.organization_id)
            raise CredentialRejected("minted_parent_gone")
        return standing

    def moment(self) -> Moment:
        """Note when the records begin to be asked."""
        shared = self._shared
        if shared is None:
            return Moment(self._monotonic())
        return Moment(self._monotonic(), shared.now(), shared.freshness.version)

    def remember(self, subject: Subject, standing: Standing, asked: Moment) -> float:
        """Remember what was read again of people in use; gives until when it is believed (monotonic)."""
        before = self._remembered.get((subject.clerk_user_id, subject.clerk_organization_id))
        told = before is not None and before.standing == standing
        shared_at = before.shared_at if told and before is not None else -math.inf
        due = asked.monotonic - shared_at >= self._settings.stale_if_error / SHARED_AGAIN
        return self._remember(subject, standing, asked, asked.monotonic if due else shared_at)

    def _remember(self, subject: Subject, standing: Standing, asked: Moment, shared_at: float) -> float:
        about = (subject.clerk_user_id, subject.clerk_organization_id)
        if self._shared is not None and shared_at == asked.monotonic:
            self._shared.keep(STANDINGS, *about, reading=Reading(standing, asked.version, asked.wall))
        self._remembered.insert(about, _Remembered(standing, asked.monotonic, shared_at))
        return self.believed_until(subject, asked.monotonic)

    def believed_until(self, subject: Subject, read_at: float) -> float:
        """Tell until when (monotonic) something is believed that was read at a moment."""
        return read_at + freshness(subject.clerk_user_id, self.near_s)

    def forget(self, user_id: str, clerk_user_id: str | None) -> None:
        """Ask our records about a person anew from this moment on.

        Args:
            user_id: `usr_…`.
            clerk_user_id: `user_…`; None: not known, and what is read of them is known by `user_id` alone.
        """
        # By both: what is being read is not remembered yet, and nobody could look for it.
        for one in (user_id, clerk_user_id):
            if one is not None:
                self._changed_at.insert(one, self._monotonic())
        self._forgotten += 1
        if self._shared is not None:
            self._shared.forget(user_id)
        self._arrivals.ask_anew()

    def forget_organization(self, organization_id: str) -> None:
        """Believe nothing that was read of this organization before this moment, here or by others."""
        self._changed_at.insert(organization_id, self._monotonic())
        self._forgotten += 1
        if self._shared is not None:
            self._shared.forget(organization_id)
        self._arrivals.ask_anew()

    def forget_all(self) -> None:
        """Ask our records anew about everybody; what they said before serves only while they cannot be asked."""
        self._forgot_all_at = self._monotonic()
        self._forgotten += 1
        if self._shared is not None:
            self._shared.forget_all()
        self._arrivals.ask_anew()

    async def close(self) -> None:
        """End what is under way."""
        await self._looks.close()


def _says_the_same(principal: Principal, subject: Subject, standing: Standing) -> bool:
    """Whether our records need not follow the token, which may be newer. What we minted changes nothing."""
    return principal.binding is not None or not subject.clerk_user_id or is_current(standing, subject)


def freshness(person: str, ttl_s: float) -> float:
    """How long what our records say of a person is believed: 0.7 to 1 of `cache.near_ttl`, always the same for one.

    People who were met together, after a start say, are so not all asked for again in one moment.
    """
    return ttl_s * (0.7 + 0.3 * crc32(person.encode()) / 2**32)
