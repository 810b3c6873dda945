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
from typing import Any, Protocol, TypeVar, cast
from zlib import crc32

from cachebox import LRUCache

from config.model import Cache
from gateway.actors.actor import Actor
from gateway.actors.beliefs import Caller, KnownCaller, Proof
from gateway.actors.renewal import ROUND_S, Renewal
from gateway.credentials.kinds import Credential, CredentialKind
from gateway.edge.recent_heads import Seen
from gateway.errors import CredentialRejected, OrganizationRequired, StoreUnavailable, UserDeleted, UserDisabled
from gateway.identity.header_set import identity_block
from gateway.policy.decision import check_pending
from gateway.policy.routes import CompiledRoute
from gateway.verify.api_tokens import ApiTokens, ProvenToken
from gateway.verify.minted import check_standing
from gateway.verify.principal import Principal
from gateway.verify.verifier import Verifier
from provisioning.arrivals import Arrivals
from provisioning.errors import DatabaseUnavailable, OrganizationMissing
from provisioning.records import Role, Standing, Subject

_AGENT_TOKEN = CredentialKind.AGENT_TOKEN

_API_TOKEN, _AGENT_TOKEN = CredentialKind.API_TOKEN, CredentialKind.AGENT_TOKEN


class Ended(Protocol):
    """Ends what a person has open (`live/registry.py`)."""

    def __call__(self, *, user: str, organization: str | None = None) -> object:
        """End it, in one organization or in all."""


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

    def pop(self, key: K, default: Any = None) -> Any: ...

    def __contains__(self, key: K) -> bool: ...


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
        api_tokens: ApiTokens | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        ended: Ended | None = None,
    ) -> None:
        """Take what callers are made of.

        Args:
            verifier: Proves sessions.
            arrivals: Knows our records.
            settings: How long what is known is believed.
            api_tokens: Proves API tokens; None: every one of them is refused.
            clock: Unix seconds.
            monotonic: Seconds that are never set back.
            ended: Told of people who may not call any more, as soon as that is seen.
        """
        self._verifier = verifier
        self._api_tokens = api_tokens
        self._ended = ended
        self._keys = verifier.keys
        self._arrivals = arrivals
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._known: _Memory[bytes, KnownCaller] = LRUCache(settings.near_entries)
        self._proofs: _Memory[bytes, Proof] = LRUCache(settings.near_entries)
        self._standings: _Memory[tuple[str, str | None], _Remembered] = LRUCache(settings.near_entries)
        self._forgotten = 0  # how often anything was
        self.look_ups = LookUps()
        self.renewal = Renewal(arrivals, monotonic, self._remember)
        self._renewing: asyncio.Task[None] | None = None
        if api_tokens is not None:
            api_tokens.holdings.watch(self._known, self._proofs)

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
        """End that, and what is under way for API tokens."""
        if self._renewing is not None:
            self._renewing.cancel()
            with suppress(asyncio.CancelledError):
                await self._renewing
        if self._api_tokens is not None:
            await self._api_tokens.close()

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
            known = cast(KnownCaller, seen.note)
            # Notes outlive what the cache let go or replaced, so none counts that is older than what was forgotten.
            if known.found_at == self._forgotten:
                caller = self._believed(known)
                if caller is not None:
                    return caller
        found = self._known.get(digest)
        if found is not None:
            found.found_at = self._forgotten
        seen.note = found
        return self._believed(found)

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
        if credential.kind is _API_TOKEN and self._api_tokens is not None:
            return await self._prove_token(credential, self._api_tokens)
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
        if credential.kind is _API_TOKEN and self._api_tokens is not None:
            return await self._resolve_token(credential, self._api_tokens)
        # Its records may be old, but a signature that was checked stays so.
        proof: Proof = old if old is not None and self._proves(old) else await self._verified(credential)
        check_pending(proof.principal, rule)
        forgotten = self._forgotten
        subject = _subject_of(proof.principal)
        standing, believed_until = await self._standing(proof.principal, subject)
        check_standing(proof.principal, standing)
        if proof.principal.token_id is not None and self._api_tokens is not None:
            await self._api_tokens.check_parent(proof.principal)
        if old is not None and old is proof and old.caller.standing == standing:
            caller = old.caller
        else:
            actor = self._actor(proof.principal, standing)
            caller = Caller(actor, standing, identity_block(actor))
        known = KnownCaller(proof, caller, subject, min(believed_until, proof.proven_until))
        if known.believed_until <= self._monotonic():
            return caller
        if proof.principal.token_id is None:
            self._known.insert(digest, known)
            self.renewal.plan(known)
        elif self._api_tokens is not None and forgotten == self._forgotten:  # nothing was revoked while we asked
            self._known.insert(digest, known)
            self._api_tokens.holdings.add(caller.actor.user_id, digest)
        return caller

    def forget_tokens(self, user_id: str) -> None:
        """Look at all API tokens of a person anew from this moment on: something about them was changed."""
        self._forgotten += 1
        if self._api_tokens is not None:
            self._api_tokens.forget(user_id)

    async def _prove_token(self, credential: Credential, api_tokens: ApiTokens) -> Principal:
        generation, forgotten = self._verifier.generation, api_tokens.generation
        proven = await api_tokens.verify(credential)
        if forgotten == api_tokens.generation:
            self._proofs.insert(credential.digest, _proof_of(proven, generation))
            api_tokens.holdings.add(proven.standing.user.id, credential.digest)
        return proven.principal

    async def _resolve_token(self, credential: Credential, api_tokens: ApiTokens) -> Caller:
        """An API token's records come with its proof. Its entry is one like a session's: a hit is the same look-up."""
        generation, forgotten = self._verifier.generation, api_tokens.generation
        proven = await api_tokens.verify(credential)
        self.look_ups.stale += proven.stale
        actor = self._actor(proven.principal, proven.standing)
        caller = Caller(actor, proven.standing, identity_block(actor))
        if forgotten == api_tokens.generation:  # else what was read is from before a revocation
            proof = _proof_of(proven, generation)
            known = KnownCaller(proof, caller, _subject_of(proven.principal), proven.believed_until)
            self._known.insert(credential.digest, known)
            api_tokens.holdings.add(actor.user_id, credential.digest)
        return caller

    async def _standing(self, principal: Principal, subject: Subject) -> tuple[Standing, float]:
        """What our records say, and until when (monotonic) that is believed.

        Fresh from memory, else from PostgreSQL, else, while that is down, from memory up to `cache.stale_if_error`.
        """
        settings = self._settings
        remembered = self._standings.get((subject.clerk_user_id, subject.clerk_organization_id))
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
                raise StoreUnavailable("database_unavailable").caused_by(error) from error
            self.look_ups.stale += 1
            return remembered.standing, min(now + settings.degraded_ttl, remembered.read_at + settings.stale_if_error)
        return standing, self._remember(subject, standing, self._monotonic())

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

    def _actor(self, principal: Principal, standing: Standing) -> Actor:
        """Make the Actor; who may not call any more has nothing open any more."""
        try:
            return actor_of(principal, standing)
        except (UserDeleted, UserDisabled):
            if self._ended is not None:
                self._ended(user=standing.user.id)
            raise

    def _remember(self, subject: Subject, standing: Standing, read_at: float) -> float:
        """Remember what our records said at that moment; gives until when it is believed (monotonic)."""
        self._standings.insert((subject.clerk_user_id, subject.clerk_organization_id), _Remembered(standing, read_at))
        return read_at + freshness(subject.clerk_user_id, self._settings.near_ttl)


def _proof_of(proven: ProvenToken, keys_generation: int) -> Proof:
    """An API token is proven for as long as its reading is believed: then its use is noted again."""
    return Proof(proven.principal, keys_generation, proven.believed_until, proven.principal.expires_at)


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
