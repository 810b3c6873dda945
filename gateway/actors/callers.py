"""Credential in, caller out: the near cache in front of verification and of our records.

Facts are cached, not verdicts: policy judges after every hit. An entry is believed while four things hold: the token
has not expired by the wall clock nor by the monotonic one (a clock set back revives nothing), the signing keys are
the ones it was verified with, and what we know of the person is fresh.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast
from zlib import crc32

from cachebox import LRUCache

from config.model import Cache
from gateway.actors.actor import Actor
from gateway.actors.beliefs import Caller, KnownCaller, Proof
from gateway.actors.renewal import ROUND_S, Renewal
from gateway.credentials.kinds import Credential
from gateway.edge.recent_heads import Seen
from gateway.errors import OrganizationRequired, StoreUnavailable, UserDeleted, UserDisabled
from gateway.identity.header_set import identity_block
from gateway.policy.decision import check_pending
from gateway.policy.routes import CompiledRoute
from gateway.verify.principal import Principal
from gateway.verify.verifier import Verifier
from provisioning.arrivals import Arrivals
from provisioning.errors import DatabaseUnavailable, OrganizationMissing
from provisioning.records import Standing, Subject


@dataclass(frozen=True, slots=True)
class _Remembered:
    standing: Standing
    read_at: float  # monotonic


K = TypeVar("K", contravariant=True)
V = TypeVar("V")


class _Memory(Protocol[K, V]):
    """What we use of cachebox's LRUCache, whose own types leave out that nothing may be found."""

    def get(self, key: K) -> V | None: ...

    def insert(self, key: K, value: V) -> V | None: ...


@dataclass(slots=True)
class LookUps:
    """Look-ups by result, for metrics.

    Attributes:
        stale: Served from memory because PostgreSQL is away; a miss as well.
        renewals: Callers in use whose records were read again before they were old.
    """

    hits: int = 0
    misses: int = 0
    stale: int = 0
    renewals: int = 0


class Callers:
    """Resolves credentials to callers.

    Attributes:
        look_ups: Counts; a cache that takes another's place may go on with its counts.
        renewal: Keeps those in use fresh, once started.
    """

    def __init__(
        self,
        verifier: Verifier,
        arrivals: Arrivals,
        settings: Cache,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._verifier = verifier
        self._keys = verifier.keys
        self._arrivals = arrivals
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._known: _Memory[bytes, KnownCaller] = LRUCache(settings.near_entries)
        self._proofs: _Memory[bytes, Proof] = LRUCache(settings.near_entries)
        self._standings: _Memory[tuple[str, str | None], _Remembered] = LRUCache(settings.near_entries)
        self.look_ups = LookUps()
        self.renewal = Renewal(arrivals, monotonic, self._remember)
        self._renewing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Keep those in use fresh, in the background."""
        self._renewing = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(ROUND_S)
            with suppress(DatabaseUnavailable):  # what is old by then is each request's own to ask for
                renewed = await self.renewal.renew()
                self.look_ups.renewals += renewed

    async def close(self) -> None:
        """End that."""
        if self._renewing is not None:
            self._renewing.cancel()
            with suppress(asyncio.CancelledError):
                await self._renewing

    def known(self, digest: bytes) -> Caller | None:
        """Answer from memory alone, without waiting; None sends the request the long way.

        Args:
            digest: Of a credential that nothing but its token speaks against (`Credential.digest`).
        """
        return self._believed(self._known.get(digest))

    def recalled(self, seen: Seen, digest: bytes) -> Caller | None:
        """The same for the bearer of a field section that came before: what is known is noted there.

        Args:
            seen: The section; notes in it are of this cache alone.
            digest: Of its bearer.
        """
        if seen.note is not None:
            caller = self._believed(cast(KnownCaller, seen.note))
            if caller is not None:
                return caller
        seen.note = known = self._known.get(digest)
        return self._believed(known)

    def _believed(self, known: KnownCaller | None) -> Caller | None:
        if known is None or self._monotonic() >= known.believed_until or not self._proves(known):
            return None
        known.used = True
        self.look_ups.hits += 1
        return known.caller

    def known_principal(self, digest: bytes) -> Principal | None:
        """Tell from memory alone who a credential speaks for; None when it must be verified."""
        proof = self._proofs.get(digest)
        return proof.principal if proof is not None and self._proves(proof) else None

    def _proves(self, proof: Proof) -> bool:
        return (
            proof.keys_generation == self._keys.generation
            and self._monotonic() < proof.proven_until
            and self._clock() < proof.expires_at
        )

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
        proof = await self._verified(credential)
        self._proofs.insert(digest, proof)
        return proof.principal

    async def _verified(self, credential: Credential) -> Proof:
        generation = self._verifier.generation
        principal = self._verifier.verify_now(credential) or await self._verifier.verify(credential)
        proven_until = self._monotonic() + principal.expires_at - self._clock()
        return Proof(principal, generation, proven_until, principal.expires_at)

    async def resolve(self, credential: Credential, rule: CompiledRoute) -> Caller:
        """Verify, find or create the records, remember.

        A session with an unfinished task is refused before records are touched: nobody is created half signed in.

        Raises:
            CredentialRejected: Checked and bad, pending where the rule does not allow it, or the person was deleted.
            VerifierUnavailable: Keys or records cannot be asked, and nothing remembered is young enough.
            ActorUnknown: Our records refuse this person.
        """
        digest = credential.digest
        old = self._known.get(digest) if credential.refusal is None else None
        if old is not None and self._monotonic() < old.believed_until and self._proves(old):
            return old.caller
        self.look_ups.misses += 1
        # Its records may be old, but a signature that was checked stays so.
        proof: Proof = old if old is not None and self._proves(old) else await self._verified(credential)
        check_pending(proof.principal, rule)
        subject = _subject_of(proof.principal)
        standing, believed_until = await self._standing(subject)
        if old is not None and old is proof and old.caller.standing == standing:
            caller = old.caller
        else:
            actor = actor_of(proof.principal, standing)
            caller = Caller(actor, standing, identity_block(actor))
        known = KnownCaller(proof, caller, subject, min(believed_until, proof.proven_until))
        if known.believed_until > self._monotonic():
            self._known.insert(digest, known)
            self.renewal.plan(known)
        return caller

    async def _standing(self, subject: Subject) -> tuple[Standing, float]:
        """What our records say, and until when (monotonic) that is believed.

        Fresh from memory, else from PostgreSQL, else, while that is down, from memory up to `cache.stale_if_error`.
        """
        settings = self._settings
        remembered = self._standings.get((subject.clerk_user_id, subject.clerk_organization_id))
        fresh_s = freshness(subject.clerk_user_id, settings.near_ttl)
        if remembered is not None and self._monotonic() - remembered.read_at < fresh_s:
            return remembered.standing, remembered.read_at + fresh_s
        try:
            standing = await self._arrivals.standing(subject)
        except OrganizationMissing:
            raise OrganizationRequired from None
        except DatabaseUnavailable as error:
            now = self._monotonic()
            if remembered is None or now - remembered.read_at >= settings.stale_if_error:
                raise StoreUnavailable("database_unavailable").caused_by(error) from error
            self.look_ups.stale += 1
            return remembered.standing, min(now + settings.degraded_ttl, remembered.read_at + settings.stale_if_error)
        return standing, self._remember(subject, standing, self._monotonic())

    def _remember(self, subject: Subject, standing: Standing, read_at: float) -> float:
        """Remember what our records said at that moment; gives until when it is believed (monotonic)."""
        self._standings.insert((subject.clerk_user_id, subject.clerk_organization_id), _Remembered(standing, read_at))
        return read_at + freshness(subject.clerk_user_id, self._settings.near_ttl)


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
        role=user.role,
        organization_id=standing.organization.id,
        organization_role=organization.role if organization is not None else standing.organization_role,
        organization_permissions=organization.permissions if organization is not None else (),
        principal=principal,
    )
