"""API tokens as credentials: the text alone first, then one look at the records, then whom the token speaks for.

Junk never reaches a store. What the records said is remembered under the token's digest for a while, here and in Redis,
and longer while PostgreSQL is away; a refusal for some seconds, and here alone. A token acts with what its owner may do
now, never with more.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from zlib import crc32

from cachebox import LRUCache

from config.grammar import BUILT_IN_SCOPES
from config.model import Cache
from gateway.credentials.kinds import Carrier, Credential, CredentialKind
from gateway.errors import (
    CredentialRejected,
    GatewayError,
    OrganizationLeft,
    StoreUnavailable,
    UserDeleted,
    UserDisabled,
)
from gateway.shared_state.facts import API_TOKENS, Reading
from gateway.shared_state.tier import SharedTier
from gateway.verify.holdings import Holdings
from gateway.verify.principal import ClerkOrganization, Principal
from provisioning.errors import DatabaseUnavailable
from provisioning.patience import REQUEST_S, STRANGER_S, patience
from provisioning.records import FoundToken, Standing
from provisioning.single_flight import SingleFlight
from provisioning.token_rules import held, unusable
from provisioning.token_text import TokenText, parse_token
from provisioning.tokens import Tokens

BELIEVED_S = 60.0
"""Seconds a token is believed at most, whatever `cache.near_ttl` says: then its use is noted again."""
REFUSED_S = 5.0
"""Seconds a refusal is remembered at most."""
MOST_REFUSED = 8192


@dataclass(frozen=True, slots=True)
class ProvenToken:
    """What a good API token proves.

    Attributes:
        standing: Its owner, in its organization.
        believed_until: Monotonic seconds; then the records must be asked again.
        stale: They could not be asked: this is what they said last.
    """

    principal: Principal
    standing: Standing
    believed_until: float
    stale: bool = False


@dataclass(frozen=True, slots=True)
class _Read:
    found: FoundToken
    at: float  # monotonic


@dataclass(frozen=True, slots=True)
class _Refused:
    reason: str
    until: float  # monotonic


class ApiTokens:
    """Verifies API tokens.

    Attributes:
        holdings: Who owns which digest, in here and in every cache that watches; `forget` empties them.
        generation: Changes with every `forget`: what was read before is not remembered after.
        near_s: How long what was read is believed at most: `cache.near_ttl`, less while changes may be missed.
    """

    def __init__(
        self,
        tokens: Tokens,
        scopes: Iterable[str],
        settings: Cache,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        shared: SharedTier | None = None,
    ) -> None:
        """Begin with nothing remembered.

        Args:
            tokens: The records.
            scopes: The application's, `tokens.scopes`; one that is taken out of the settings counts no longer.
            settings: How long what is known is believed.
            clock: Unix seconds.
            monotonic: Seconds that are never set back.
            shared: What replicas remember together; None: there is no Redis.
        """
        self.holdings = Holdings()
        self.generation = 0
        self.near_s = settings.near_ttl
        self._forgot_all_at = -math.inf
        self._organizations_changed_at: LRUCache[str, float] = LRUCache(settings.near_entries)
        self._tokens = tokens
        self._scopes = frozenset(scopes).union(BUILT_IN_SCOPES)
        self._settings = settings
        self._shared = shared
        self._clock = clock
        self._monotonic = monotonic
        self._reads: LRUCache[bytes, _Read] = LRUCache(settings.near_entries)
        self._refused: LRUCache[bytes, _Refused] = LRUCache(MOST_REFUSED)
        self._flights: SingleFlight[_Read] = SingleFlight()
        self.holdings.watch(self._reads, self._refused)

    async def verify(self, credential: Credential) -> ProvenToken:
        """Verify, from memory while that is fresh.

        Raises:
            CredentialRejected: `token_malformed` by its text alone; `token_unknown`, `token_revoked`, `token_expired`
                by the records; UserDeleted.
            ActorUnknown: UserDisabled, OrganizationLeft: the token is good, its owner is not.
            StoreUnavailable: The records cannot be asked, and nothing remembered is young enough.
        """
        if credential.refusal is not None:
            raise CredentialRejected(credential.refusal)
        text = parse_token(credential.token)
        if text is None:
            raise CredentialRejected("token_malformed")
        digest, now, generation = credential.digest, self._monotonic(), self.generation
        refused: _Refused | None = self._refused.get(digest)
        if refused is not None and now < refused.until:
            raise _refusal(refused.reason)
        read = self._recalled(digest)
        if read is not None and read.at > self._forgot_all_at and now < read.at + self._freshness(text.public_id):
            return self._proven(digest, read.found, read.at + self._freshness(text.public_id), generation)
        try:
            async with patience(REQUEST_S if read is not None else STRANGER_S):
                read = await self._flights.run((generation, digest), lambda: self._look(text, digest))
        except (DatabaseUnavailable, TimeoutError) as error:
            return self._remembered(digest, error, generation)
        return self._proven(digest, read.found, read.at + self._freshness(text.public_id), generation)

    async def check_parent(self, principal: Principal) -> None:
        """See that the API token something was minted from is still good, and still carries those scopes.

        Raises:
            CredentialRejected: `minted_parent_gone`.
            StoreUnavailable: The records cannot be asked.
        """
        try:
            found = await self._tokens.find_by_id(principal.token_id or "")
        except DatabaseUnavailable as error:
            raise StoreUnavailable("database_unavailable") from error
        if found is None or unusable(found, datetime.fromtimestamp(self._clock(), UTC)) is not None:
            raise CredentialRejected("minted_parent_gone")
        if not set(principal.scopes or ()) <= self._scopes.intersection(held(found.token.scopes, found.user.role)):
            raise CredentialRejected("minted_parent_gone")

    def forget(self, user_id: str) -> None:
        """Believe nothing any more of what is remembered of this person's API tokens, here and where it is watched."""
        self.generation += 1
        if self._shared is not None:
            self._shared.forget(user_id)
        self.holdings.forget(user_id)

    def forget_organization(self, organization_id: str) -> None:
        """Ask the records again for every API token that acts in this organization."""
        self.generation += 1
        if self._shared is not None:
            self._shared.forget(organization_id)
        self._organizations_changed_at.insert(organization_id, self._monotonic())

    def forget_all(self) -> None:
        """Ask the records anew about every token; what they said before serves only while they cannot be asked."""
        self.generation += 1
        self._forgot_all_at = self._monotonic()
        self._refused.clear()

    async def close(self) -> None:
        """End what is under way."""
        await self._flights.close()

    async def _look(self, text: TokenText, digest: bytes) -> _Read:
        """Look in Redis, else ask the records; one flight for all who present this token at once."""
        generation, recalled = self.generation, None
        if self._shared is not None:
            recalled = await self._shared.find(API_TOKENS, digest, fresh_s=self._freshness(text.public_id))
        if recalled is None or recalled.fact.token.public_id != text.public_id:
            return await self._read(text, digest, generation)
        read = _Read(recalled.fact, self._monotonic() - recalled.age_s)
        if recalled.fresh:
            self._remember(digest, read, generation)
            return read
        try:
            return await self._read(text, digest, generation)
        except DatabaseUnavailable:
            remembered = self._recalled(digest)
            if remembered is None or remembered.at < read.at:
                self._remember(digest, read, generation)
            raise

    async def _read(self, text: TokenText, digest: bytes, generation: int) -> _Read:
        """Ask the records."""
        shared = self._shared
        version, asked_at = (shared.freshness.version, shared.now()) if shared is not None else (0, 0.0)
        began = self._monotonic()
        found = await self._tokens.find(text.public_id)
        # An unknown id and a wrong secret take the same way, with one comparison in constant time, to the same word:
        # nobody learns which ids exist (T03).
        matches = text.matches(found.digest if found is not None else None)
        if found is None or not matches:
            raise self._refuse(digest, "token_unknown", generation)
        read = _Read(found, began)
        self._remember(digest, read, generation)
        if shared is not None:
            ends = found.token.expires_at
            until = ends.timestamp() if ends is not None else None
            shared.keep(API_TOKENS, digest, reading=Reading(found, version, asked_at), until=until)
        return read

    def _remember(self, digest: bytes, read: _Read, generation: int) -> None:
        """Remember a reading, unless it is from before something was forgotten."""
        if generation == self.generation:
            self._reads.insert(digest, read)
            self.holdings.add(read.found.user.id, digest)

    def _recalled(self, digest: bytes) -> _Read | None:
        """Give what was read of a token since its organization was changed last."""
        read: _Read | None = self._reads.get(digest)
        if read is None:
            return None
        changed_at: float | None = self._organizations_changed_at.get(read.found.organization.id)
        return read if changed_at is None or read.at > changed_at else None

    def _remembered(self, digest: bytes, error: Exception, generation: int) -> ProvenToken:
        """Go on with what the records said last, while they cannot be asked."""
        now, settings = self._monotonic(), self._settings
        read = self._recalled(digest)
        if read is None or now - read.at >= settings.stale_if_error:
            raise StoreUnavailable("database_unavailable") from error
        until = min(now + min(settings.degraded_ttl, BELIEVED_S), read.at + settings.stale_if_error)
        return self._proven(digest, read.found, until, generation, stale=True)

    def _proven(
        self, digest: bytes, found: FoundToken, believed_until: float, generation: int, *, stale: bool = False
    ) -> ProvenToken:
        """Judge what the records say, on every use: a token ends while it is remembered too."""
        reason, standing = unusable(found, datetime.fromtimestamp(self._clock(), UTC)), found.standing
        if reason is not None or standing is None:
            self.holdings.add(found.user.id, digest)  # the refusal goes by the owner, and is forgotten with them
            raise self._refuse(digest, reason or "organization_left", generation)
        token, user, organization = found.token, found.user, found.organization
        principal = Principal(
            kind=CredentialKind.API_TOKEN,
            carrier=Carrier.HEADER,
            issuer="",
            subject=user.clerk_id,
            expires_at=token.expires_at.timestamp() if token.expires_at is not None else math.inf,
            organization=ClerkOrganization(organization.clerk_id, None, standing.organization_role)
            if organization.clerk_id is not None
            else None,
            scopes=tuple(scope for scope in held(token.scopes, user.role) if scope in self._scopes),
            token_id=token.id,
        )
        return ProvenToken(principal, standing, believed_until, stale)

    def _refuse(self, digest: bytes, reason: str, generation: int) -> GatewayError:
        """Remember a refusal, and nothing good beside it, unless it is from before something was forgotten."""
        if generation != self.generation:
            return _refusal(reason)
        self._reads.pop(digest, None)
        self._refused.insert(digest, _Refused(reason, self._monotonic() + min(self._settings.near_ttl, REFUSED_S)))
        return _refusal(reason)

    def _freshness(self, public_id: str) -> float:
        """How long what was read is believed: tokens that were met together are not asked for again together."""
        return min(self.near_s, BELIEVED_S) * (0.7 + 0.3 * crc32(public_id.encode()) / 2**32)


def _refusal(reason: str) -> GatewayError:
    """Give a reason its class."""
    match reason:
        case "user_deleted":
            return UserDeleted()
        case "user_disabled":
            return UserDisabled()
        case "organization_left":
            return OrganizationLeft()
        case _:
            return CredentialRejected(reason)
