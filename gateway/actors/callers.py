"""Credential in, caller out: the near cache in front of verification and of our records.

Facts are cached, not verdicts: policy judges after every hit. An entry is believed while four things hold: the token
has not expired by the wall clock nor by the monotonic one (a clock set back revives nothing), the signing keys are
the ones it was verified with, and what we know of the person is fresh.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar
from zlib import crc32

from cachebox import LRUCache

from config.model import Cache
from gateway.actors.actor import Actor
from gateway.credentials.kinds import Credential, CredentialKind
from gateway.errors import CredentialRejected, OrganizationRequired, StoreUnavailable, UserDeleted, UserDisabled
from gateway.identity.assertion import Assertion
from gateway.identity.header_set import identity_block
from gateway.policy.decision import check_pending
from gateway.policy.routes import CompiledRoute
from gateway.verify.minted import check_standing
from gateway.verify.principal import Principal
from gateway.verify.verifier import Verifier
from provisioning.arrivals import Arrivals
from provisioning.errors import DatabaseUnavailable, OrganizationMissing
from provisioning.records import Role, Standing, Subject

_AGENT_TOKEN = CredentialKind.AGENT_TOKEN


@dataclass(frozen=True, slots=True)
class Caller:
    """An Actor with what is prepared once for it.

    Attributes:
        standing: What our records say, as read when the entry was made.
        identity: The identity header block upstreams receive, but for the assertion.
        assertions: The last one for each upstream; `identity/assertion.py` keeps it.
    """

    actor: Actor
    standing: Standing
    identity: bytes = field(repr=False)
    assertions: dict[str, Assertion] = field(default_factory=dict, repr=False, compare=False)


class Ended(Protocol):
    """Ends what a person has open (`live/registry.py`)."""

    def __call__(self, *, user: str, organization: str | None = None) -> object:
        """End it, in one organization or in all."""


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    content: T
    keys_generation: int
    believed_until: float  # monotonic
    expires_at: float  # wall clock


@dataclass(frozen=True, slots=True)
class _Remembered:
    standing: Standing
    read_at: float  # monotonic


@dataclass(slots=True)
class LookUps:
    """Look-ups by result, for metrics.

    Attributes:
        stale: Served from memory because PostgreSQL is away; a miss as well.
    """

    hits: int = 0
    misses: int = 0
    stale: int = 0


class Callers:
    """Resolves credentials to callers.

    Attributes:
        look_ups: Counts; a cache that takes another's place may go on with its counts.
    """

    def __init__(
        self,
        verifier: Verifier,
        arrivals: Arrivals,
        settings: Cache,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        ended: Ended | None = None,
    ) -> None:
        """Take what callers are made of.

        Args:
            verifier: Proves.
            arrivals: Knows our records.
            settings: How long what is known is believed.
            clock: Unix seconds.
            monotonic: Seconds that are never set back.
            ended: Told of people who may not call any more, as soon as that is seen.
        """
        self._verifier = verifier
        self._ended = ended
        self._keys = verifier.keys
        self._arrivals = arrivals
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._entries: LRUCache[bytes, _Entry[Caller]] = LRUCache(settings.near_entries)
        self._proofs: LRUCache[bytes, _Entry[Principal]] = LRUCache(settings.near_entries)
        self._standings: LRUCache[tuple[str, str, str | None], _Remembered] = LRUCache(settings.near_entries)
        self.look_ups = LookUps()

    def known(self, digest: bytes) -> Caller | None:
        """Answer from memory alone, without waiting; None sends the request the long way.

        Args:
            digest: Of a credential that nothing but its token speaks against (`Credential.digest`).
        """
        entry: _Entry[Caller] | None = self._entries.get(digest)
        caller = self._believed(entry) if entry is not None else None
        if caller is not None:
            self.look_ups.hits += 1
        return caller

    def known_principal(self, digest: bytes) -> Principal | None:
        """Tell from memory alone who a credential speaks for; None when it must be verified."""
        entry: _Entry[Principal] | None = self._proofs.get(digest)
        return self._believed(entry) if entry is not None else None

    def _believed(self, entry: _Entry[T]) -> T | None:
        if (
            entry.keys_generation != self._keys.generation
            or self._monotonic() >= entry.believed_until
            or self._clock() >= entry.expires_at
        ):
            return None
        return entry.content

    async def prove(self, credential: Credential) -> Principal:
        """Verify alone: enough to compare people, and nobody is created or looked up for it.

        Raises:
            CredentialRejected: Checked and bad.
            VerifierUnavailable: Keys cannot be asked.
        """
        digest = credential.digest
        principal = self.known_principal(digest) if credential.refusal is None else None
        if principal is not None:
            return principal
        generation = self._verifier.generation
        principal = self._verifier.verify_now(credential) or await self._verifier.verify(credential)
        believed_until = self._monotonic() + principal.expires_at - self._clock()
        self._proofs.insert(digest, _Entry(principal, generation, believed_until, principal.expires_at))
        return principal

    async def resolve(self, credential: Credential, rule: CompiledRoute) -> Caller:
        """Verify, find or create the records, remember.

        A session with an unfinished task is refused before records are touched: nobody is created half signed in.

        Raises:
            CredentialRejected: Checked and bad, pending where the rule does not allow it, or the person was deleted.
            VerifierUnavailable: Keys or records cannot be asked, and nothing remembered is young enough.
            ActorUnknown: Our records refuse this person.
        """
        digest = credential.digest
        caller = self.known(digest) if credential.refusal is None else None
        if caller is not None:
            return caller
        self.look_ups.misses += 1
        generation = self._verifier.generation
        principal = self._verifier.verify_now(credential) or await self._verifier.verify(credential)
        check_pending(principal, rule)
        standing, believed_until = await self._standing(principal)
        check_standing(principal, standing)
        try:
            actor = actor_of(principal, standing)
        except (UserDeleted, UserDisabled):
            if self._ended is not None:
                self._ended(user=standing.user.id)
            raise
        caller = Caller(actor, standing, identity_block(actor))
        now = self._monotonic()
        believed_until = min(now + principal.expires_at - self._clock(), believed_until)
        if believed_until > now:
            entry = _Entry(caller, generation, believed_until, principal.expires_at)
            self._entries.insert(digest, entry)
        return caller

    async def _standing(self, principal: Principal) -> tuple[Standing, float]:
        """What our records say, and until when (monotonic) that is believed.

        Fresh from memory, else from PostgreSQL, else, while that is down, from memory up to `cache.stale_if_error`.
        """
        settings = self._settings
        subject = _subject_of(principal)
        key = (principal.issuer, subject.clerk_user_id, subject.clerk_organization_id)
        remembered: _Remembered | None = self._standings.get(key)
        fresh_s = freshness(subject.clerk_user_id, settings.near_ttl)
        if remembered is not None and self._monotonic() - remembered.read_at < fresh_s:
            return remembered.standing, remembered.read_at + fresh_s
        try:
            standing = await self._read(principal, subject)
        except OrganizationMissing:
            raise OrganizationRequired from None
        except DatabaseUnavailable as error:
            now = self._monotonic()
            if remembered is None or now - remembered.read_at >= settings.stale_if_error:
                raise StoreUnavailable("database_unavailable") from error
            self.look_ups.stale += 1
            return remembered.standing, min(now + settings.degraded_ttl, remembered.read_at + settings.stale_if_error)
        read_at = self._monotonic()
        self._standings.insert(key, _Remembered(standing, read_at))
        return standing, read_at + fresh_s

    async def _read(self, principal: Principal, subject: Subject) -> Standing:
        """Ask PostgreSQL; what we minted makes nobody known, and brings no membership back."""
        if principal.binding is None:
            return await self._arrivals.standing(subject)
        standing = await self._arrivals.found(subject)
        if standing is None:
            if self._ended is not None:
                self._ended(user=principal.binding.user_id, organization=principal.binding.organization_id)
            raise CredentialRejected("minted_parent_gone")
        return standing


def freshness(person: str, ttl_s: float) -> float:
    """How long what our records say of a person is believed: 0.7 to 1 of `cache.near_ttl`, always the same for one.

    People who were met together, after a start say, are so not all asked for again in one moment.
    """
    return ttl_s * (0.7 + 0.3 * crc32(person.encode()) / 2**32)


def _subject_of(principal: Principal) -> Subject:
    organization = principal.organization
    if organization is None:
        return Subject(principal.subject, name=principal.name, email=principal.email)
    return Subject(
        principal.subject, organization.id, organization.slug, organization.role, principal.name, principal.email
    )


def actor_of(principal: Principal, standing: Standing) -> Actor:
    """Judge what our records say of a person, and make the Actor.

    Raises:
        UserDeleted: A tombstone.
        UserDisabled: An operator disabled them.
    """
    user = standing.user
    if user.deleted_at is not None:
        raise UserDeleted
    if user.disabled_at is not None:
        raise UserDisabled
    organization = principal.organization
    return Actor(
        user_id=user.id,
        role=Role.USER if principal.kind is _AGENT_TOKEN else user.role,
        organization_id=standing.organization.id,
        organization_role=organization.role if organization is not None else standing.organization_role,
        organization_permissions=organization.permissions if organization is not None else (),
        principal=principal,
    )
