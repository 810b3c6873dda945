"""Clerk's opaque machine tokens as credentials: what Clerk said of them, for a while.

Clerk alone can tell whether one is good, and tells it by a question of some 100 ms that counts against a limit. So a
good answer is believed for a minute at most, a refusal for some seconds, both under the token's hash; one flight for
all who present a token at once; and only so many tokens that were never good may cause a question each second, so that
junk cannot use the limit up. Nothing is believed for longer because Clerk does not answer: revocation happens there.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from zlib import crc32

from cachebox import LRUCache

from config.model import Cache
from gateway.credentials.kinds import Credential
from gateway.errors import CredentialRejected, VerifierUnavailable
from gateway.verify.machine import MachineRules
from gateway.verify.machine_answer import AnswerMalformed, read_answer
from gateway.verify.machine_api import MachineApi
from gateway.verify.principal import Principal
from provisioning.patience import REQUEST_S, patience
from provisioning.single_flight import SingleFlight

BELIEVED_S = 60.0
"""Seconds an answer is believed at most, whatever `cache.near_ttl` says: as long as a revoked token may pass."""
REFUSED_S = 5.0
"""Seconds a refusal is remembered at most."""
MOST_REFUSED = 8192
STRANGERS_PER_S = 50
"""Questions a second about tokens that were never good here, in one process; Clerk answers 100 a second."""
_TOKEN = re.compile(r"(?:ak|oat|mt)_[A-Za-z0-9._~+/=-]{8,512}")


@dataclass(frozen=True, slots=True)
class _Refused:
    reason: str
    until: float  # monotonic


class MachineTokens:
    """Verifies opaque machine tokens."""

    def __init__(
        self,
        api: MachineApi,
        rules: MachineRules,
        settings: Cache,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nothing remembered.

        Args:
            api: Who is asked.
            rules: What tokens must say.
            settings: How long and how much is remembered.
            clock: Unix seconds.
            monotonic: Seconds that are never set back.
        """
        self._api = api
        self._rules = rules
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._good: LRUCache[bytes, Principal] = LRUCache(settings.near_entries)
        self._refused: LRUCache[bytes, _Refused] = LRUCache(MOST_REFUSED)
        self._flights: SingleFlight[Principal] = SingleFlight()
        self._strangers = (-inf, 0)  # the second, and how many came in it

    def remembered(self, credential: Credential) -> Principal | None:
        """Verify without asking; None when Clerk must be asked.

        Raises:
            CredentialRejected: By its text alone, or as Clerk said lately.
        """
        if credential.refusal is not None:
            raise CredentialRejected(credential.refusal)
        if _TOKEN.fullmatch(credential.token) is None:
            raise CredentialRejected("token-invalid")
        digest, now = credential.digest, self._monotonic()
        refused: _Refused | None = self._refused.get(digest)
        if refused is not None and now < refused.until:
            raise CredentialRejected(refused.reason)
        good: Principal | None = self._good.get(digest)
        if good is None or now >= good.recheck_at:
            return None
        if good.expires_at <= self._clock():
            raise CredentialRejected("machine_expired")
        return good

    async def verify(self, credential: Credential) -> Principal:
        """Verify, asking Clerk unless its last answer is believed.

        Raises:
            CredentialRejected: Clerk does not know it, or it is revoked, expired, or not for us.
            VerifierUnavailable: Clerk did not tell, or is not to be asked now.
        """
        known = self.remembered(credential)
        if known is not None:
            return known
        digest = credential.digest
        try:
            async with patience(REQUEST_S):  # the question goes on, and its answer is remembered
                return await self._flights.run(digest, lambda: self._ask(credential, digest))
        except TimeoutError:
            raise VerifierUnavailable("clerk_timeout") from None

    async def close(self) -> None:
        """End what is under way."""
        await self._flights.close()

    async def _ask(self, credential: Credential, digest: bytes) -> Principal:
        if self._good.get(digest) is None:
            self._admit_stranger()
        asked_at = self._monotonic()
        try:
            document = await self._api.ask(credential.kind, credential.token)
            principal = read_answer(document, credential.kind, credential.token, self._rules, self._clock())
        except AnswerMalformed:
            raise self._api.malformed() from None
        except CredentialRejected as error:
            self._refuse(digest, error.reason)
            raise
        good = replace(principal, recheck_at=asked_at + self._freshness(digest))
        self._good.insert(digest, good)
        return good

    def _admit_stranger(self) -> None:
        """Count a token that was never good.

        Raises:
            VerifierUnavailable: Too many of them came in this second.
        """
        second, count = self._strangers
        now = float(int(self._monotonic()))
        count = count + 1 if now == second else 1
        self._strangers = now, count
        if count > STRANGERS_PER_S:
            raise VerifierUnavailable("clerk_busy")

    def _refuse(self, digest: bytes, reason: str) -> None:
        """Remember a refusal, and nothing good beside it."""
        self._good.pop(digest, None)
        until = self._monotonic() + min(self._settings.near_ttl, REFUSED_S)
        self._refused.insert(digest, _Refused(reason, until))

    def _freshness(self, digest: bytes) -> float:
        """How long an answer is believed: tokens that were met together are not asked about again together."""
        return min(self._settings.near_ttl, BELIEVED_S) * (0.7 + 0.3 * crc32(digest) / 2**32)
