"""Credential in, caller out: the near cache in front of verification and of our records.

Facts are cached, not verdicts: policy judges after every hit. An entry is believed while four things hold: the token
has not expired by the wall clock nor by the monotonic one (a clock set back revives nothing), the signing keys are
the ones it was verified with, and what we know of the person is fresh.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import cast

from cachebox import LRUCache

from config.model import Cache
from gateway.actors.actor import actor_of, subject_of
from gateway.actors.beliefs import Caller, KnownCaller, Memory, Proof, proof_of
from gateway.actors.renewal import ROUND_S, Renewal
from gateway.actors.standings import Ended, Standings
from gateway.actors.sweep import AT_ONCE, Sweep
from gateway.credentials.kinds import Credential, CredentialKind
from gateway.edge.recent_heads import Seen
from gateway.errors import UserDeleted, UserDisabled
from gateway.flags.provider import FlagProvider
from gateway.flags.telling import FlagTeller, NoProvider, facts_of
from gateway.identity.header_set import identity_block
from gateway.policy.decision import check_pending
from gateway.policy.routes import CompiledRoute
from gateway.revocation.denied import Denied
from gateway.revocation.errors import SessionRevoked
from gateway.shared_state.tier import SharedTier
from gateway.verify.api_tokens import ApiTokens
from gateway.verify.holdings import Holdings
from gateway.verify.minted import check_standing
from gateway.verify.principal import Principal
from gateway.verify.verifier import Verifier
from provisioning.arrivals import Arrivals
from provisioning.audit import GATEWAY, Origin
from provisioning.background import end_tasks
from provisioning.errors import DatabaseUnavailable
from provisioning.records import Standing

_API_TOKEN = CredentialKind.API_TOKEN


class Callers:
    """Resolves credentials to callers.

    Attributes:
        look_ups: Counts of look-ups.
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
        flags: FlagTeller | None = None,
        denied: Denied | None = None,
        shared: SharedTier | None = None,
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
            flags: Tells flags; None: there are none.
            denied: Knows sessions that are over before their tokens; asked whenever a proof is had, never on a hit.
            shared: What replicas remember together; None: there is no Redis.
        """
        self._flags = flags if flags is not None else FlagTeller({}, NoProvider(), 1)
        self._definitions: FlagProvider = self._flags.provider
        self._denied = denied
        self._verifier = verifier
        self._api_tokens = api_tokens
        self._ended = ended
        self._keys = verifier.keys
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._known: Memory[bytes, KnownCaller] = LRUCache(settings.near_entries)
        self._proofs: Memory[bytes, Proof] = LRUCache(settings.near_entries)
        self._sweep = Sweep(self._known)
        self._standings = Standings(arrivals, settings, monotonic, ended, shared)
        self._forgotten = 0  # how often anything was
        self._forgot_all_at = self._tokens_doubted_at = 0  # by that count: what is kept from before counts no more
        self.look_ups = self._standings.look_ups
        self.renewal = Renewal(arrivals, monotonic, self._standings.moment, self._standings.remember)
        self._renewing: asyncio.Task[None] | None = None
        self._shortening: asyncio.Task[None] | None = None
        self._holdings = api_tokens.holdings if api_tokens is not None else Holdings()
        self._holdings.watch(self._known, self._proofs)

    def go_on(self, before: "Callers") -> None:
        """Count on from where another's counts are, whose place this takes."""
        self.look_ups = self._standings.look_ups = before.look_ups

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
        """End that, and what is under way for tokens."""
        await end_tasks(self._renewing, self._shortening)
        await self._sweep.close()
        if self._api_tokens is not None:
            await self._api_tokens.close()
        await self._standings.close()
        await self._verifier.close()

    def known(self, digest: bytes) -> Caller | None:
        """Answer from memory alone, without waiting; None sends the request the long way.

        Args:
            digest: Of a credential that nothing but its token speaks against (`Credential.digest`).
        """
        return self._believed(self._known.get(digest))

    def recalled(self, seen: Seen) -> Caller | None:
        """The same for the bearer of a field section that came before: what is known is noted there.

        Args:
            seen: The section, with a bearer; notes in it are of this cache alone.
        """
        if seen.note is not None:
            known = cast(KnownCaller, seen.note)
            # Notes outlive what the cache let go or replaced, so none counts that is older than what was forgotten.
            if known.found_at == self._forgotten:
                caller = self._believed(known)
                if caller is not None:
                    return caller
        found = self._known.get(seen.bearer) if seen.bearer is not None else None
        if found is not None:
            found.found_at = self._forgotten
        seen.note = found
        return self._believed(found)

    def _believed(self, known: KnownCaller | None) -> Caller | None:
        if known is None or known.kept_at < self._forgot_all_at or self._monotonic() >= known.believed_until:
            return None
        if not self._proves(known):
            return None
        known.used = True
        self.look_ups.hits += 1
        return self._current(known)

    def _current(self, known: KnownCaller) -> Caller:
        """The caller with flags of the definitions in force, told anew where they are of others; never waits."""
        caller = known.caller
        if caller.told.generation != self._definitions.generation:
            caller = known.caller = self._retold(caller)
        return caller

    def _retold(self, caller: Caller) -> Caller:
        told = self._flags.tell(facts_of(caller.actor, caller.standing))
        if told.header == caller.told.header and told.digest == caller.told.digest:
            caller.told = told  # what was prepared for it is as good as before
            return caller
        return Caller(caller.actor, caller.standing, identity_block(caller.actor, told.header), told)

    def known_principal(self, digest: bytes) -> Principal | None:
        """Tell from memory alone who a credential speaks for; None when it must be verified."""
        proof = self._proofs.get(digest)
        if proof is not None and proof.principal.kind is _API_TOKEN and proof.kept_at < self._tokens_doubted_at:
            return None
        if proof is None or not self._proves(proof) or (self._denied is not None and not self._denied.whole):
            return None
        return None if self._denied is not None and self._denied.denies(proof.principal) else proof.principal

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
        if self._denied is not None:
            await self._denied.check(proof.principal)
        self._keep_proof(digest, proof)
        return proof.principal

    def _keep_proof(self, digest: bytes, proof: Proof) -> None:
        proof.kept_at = self._forgotten
        self._proofs.insert(digest, proof)

    async def _verified(self, credential: Credential) -> Proof:
        generation = self._verifier.generation
        principal = self._verifier.verify_now(credential) or await self._verifier.verify(credential)
        proven_until = min(self._monotonic() + principal.expires_at - self._clock(), principal.recheck_at)
        return Proof(principal, generation, proven_until, principal.expires_at)

    async def resolve(self, credential: Credential, rule: CompiledRoute, origin: Origin = GATEWAY) -> Caller:
        """Verify, find or create the records, remember.

        A session with an unfinished task is refused before records are touched: nobody is created half signed in.

        Args:
            credential: As found.
            rule: That asks.
            origin: Where somebody new was seen, for the audit.

        Raises:
            CredentialRejected: Checked and bad, pending where the rule does not allow it, or the person was deleted.
            VerifierUnavailable: Keys or records cannot be asked, and nothing remembered is young enough.
            ActorUnknown: Our records refuse this person.
        """
        digest = credential.digest
        old = self._known.get(digest) if credential.refusal is None else None
        known_still = old is not None and old.kept_at >= self._forgot_all_at
        if old is not None and known_still and self._monotonic() < old.believed_until and self._proves(old):
            return self._current(old)
        self.look_ups.misses += 1
        if credential.kind is _API_TOKEN and self._api_tokens is not None:
            return await self._resolve_token(credential, self._api_tokens)
        # Its records may be old, but a signature that was checked stays so.
        proof: Proof = old if old is not None and self._proves(old) else await self._verified(credential)
        forgotten = self._forgotten
        if self._denied is not None:
            await self._denied.check(proof.principal)
        check_pending(proof.principal, rule)
        subject = subject_of(proof.principal)
        standing, believed_until = await self._standings.of(proof.principal, subject, origin)
        check_standing(proof.principal, standing)
        minted_from_token = proof.principal.binding is not None and proof.principal.token_id is not None
        if minted_from_token and self._api_tokens is not None:
            await self._api_tokens.check_parent(proof.principal)
        if old is not None and old is proof and old.caller.standing == standing:
            caller = self._current(old)
        else:
            caller = self._caller(proof.principal, standing)
        if self._denied is not None and self._denied.denies(proof.principal):  # since it was asked
            raise SessionRevoked
        known = KnownCaller(proof, caller, subject, min(believed_until, proof.proven_until))
        if known.believed_until <= self._monotonic() or forgotten != self._forgotten:  # something was, while we asked
            return caller
        known.kept_at = forgotten
        self._known.insert(digest, known)
        if caller.actor.user_id:
            self._holdings.add(caller.actor.user_id, digest)
            if proof.principal.impersonator is not None:  # it ends with theirs as well
                self._holdings.add(proof.principal.impersonator.subject, digest)
            if not minted_from_token:
                self.renewal.plan(known)
        return caller

    def forget_tokens(self, user_id: str) -> None:
        """Look at all credentials of a person anew from this moment on: something about API tokens was changed."""
        self._forgotten += 1
        if self._api_tokens is not None:
            self._api_tokens.forget(user_id)
        else:
            self._holdings.forget(user_id)

    def forget(self, user_id: str, clerk_user_id: str | None) -> None:
        """Ask our records about a person anew from this moment on: they were changed.

        Args:
            user_id: `usr_…`.
            clerk_user_id: `user_…`; None: not known, and looked for among all who are remembered.
        """
        self._standings.forget(user_id, clerk_user_id)
        self.forget_tokens(user_id)

    def forget_sessions(self, user_id: str | None, clerk_user_id: str | None, session_id: str | None = None) -> None:
        """Look at the sessions of a person anew from this moment on: one of them is over, or all; records stay known.

        Args:
            user_id: `usr_…`; None: not known, so that all who are remembered are walked over (`Sweep`).
            clerk_user_id: `user_…`; None: not known, likewise.
            session_id: `sess_…`; None: any of theirs.
        """
        self._forgotten += 1
        for owner in (user_id, clerk_user_id):
            if owner is not None:
                self._holdings.forget(owner)
        if user_id is None or clerk_user_id is None:
            self._sweep.drop(*(name for name in (clerk_user_id, session_id) if name is not None))

    def forget_all(self) -> None:
        """Ask our records anew about everybody, with no loop over a million entries; what they said serves outages."""
        self._forgotten += 1
        self._forgot_all_at = self._tokens_doubted_at = self.renewal.forgot_all_at = self._forgotten
        self._standings.forget_all()
        if self._api_tokens is not None:
            self._api_tokens.forget_all()

    def lose_touch(self) -> None:
        """Changes made elsewhere may be missed: believe nothing for longer than `cache.degraded_ttl` from now on."""
        self._forgotten += 1  # what is being read is not kept for longer
        self._live_for(min(self._settings.near_ttl, self._settings.degraded_ttl))
        self._tokens_doubted_at = self._forgotten
        if self._shortening is None or self._shortening.done():
            self._shortening = asyncio.get_running_loop().create_task(self._shorten())

    def regain_touch(self, *, missed: bool) -> None:
        """They are heard of again.

        Args:
            missed: Some may have been missed: nothing counts any more that was believed.
        """
        self._live_for(self._settings.near_ttl)
        if missed:
            self.forget_all()

    def _live_for(self, near_s: float) -> None:
        self._standings.near_s = near_s
        if self._api_tokens is not None:
            self._api_tokens.near_s = near_s

    async def _shorten(self) -> None:
        """Shorten the lives of what is believed, some thousands at a time: others have their turn on the loop."""
        for number, known in enumerate(list(self._known.values()), 1):
            left_s = known.believed_until - self._monotonic()
            if left_s > self._standings.near_s:
                known.believed_until = self._standings.believed_until(known.subject, self._monotonic())
                if known.used and known.caller.kind is CredentialKind.SESSION:
                    self.renewal.plan(known)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)

    def forget_organization(self, organization_id: str) -> None:
        """Ask our records again for all who act in an organization: something about it was changed."""
        self._forgotten += 1
        self._sweep.drop(organization_id)
        self._standings.forget_organization(organization_id)
        if self._api_tokens is not None:
            self._api_tokens.forget_organization(organization_id)

    async def _prove_token(self, credential: Credential, api_tokens: ApiTokens) -> Principal:
        generation, forgotten = self._verifier.generation, api_tokens.generation
        proven = await api_tokens.verify(credential)
        if forgotten == api_tokens.generation:
            self._keep_proof(credential.digest, proof_of(proven, generation))
            api_tokens.holdings.add(proven.standing.user.id, credential.digest)
        return proven.principal

    async def _resolve_token(self, credential: Credential, api_tokens: ApiTokens) -> Caller:
        """An API token's records come with its proof. Its entry is one like a session's: a hit is the same look-up."""
        generation, forgotten = self._verifier.generation, api_tokens.generation
        proven = await api_tokens.verify(credential)
        self.look_ups.stale += proven.stale
        caller = self._caller(proven.principal, proven.standing)
        if forgotten == api_tokens.generation:  # else what was read is from before a revocation
            proof = proof_of(proven, generation)
            known = KnownCaller(proof, caller, subject_of(proven.principal), proven.believed_until)
            known.kept_at = self._forgotten
            self._known.insert(credential.digest, known)
            api_tokens.holdings.add(caller.actor.user_id, credential.digest)
        return caller

    def _caller(self, principal: Principal, standing: Standing) -> Caller:
        """Make the Actor as of now; who may not call any more has nothing open any more."""
        try:
            actor = actor_of(principal, standing, datetime.fromtimestamp(self._clock(), UTC))
        except (UserDeleted, UserDisabled):
            if self._ended is not None:
                self._ended(user=standing.user.id)
            raise
        told = self._flags.tell(facts_of(actor, standing))
        return Caller(actor, standing, identity_block(actor, told.header), told)
