"""Asks the limits a request falls under, at its two moments: before anybody looks at a credential, and when it is known
who calls.

What counts by address is asked first, so that guessing credentials counts and costs nothing. The rest is asked of
requests that policy lets pass. Without Redis nothing waits; with it a limit costs one round trip, except for who is
known to have nothing left: that is remembered here until it changes.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from math import ceil
from typing import Protocol

from cachebox import LRUCache

from gateway.actors.beliefs import Memory
from gateway.credentials.kinds import Carrier
from gateway.errors import CredentialRejected
from gateway.limits.errors import RateLimited, RateLimiterUnavailable
from gateway.limits.keys import Keys, claimed_id, network_of, whose
from gateway.limits.memory import MemoryCounter
from gateway.limits.rules import Quota, Rule, Verdict, of_failures
from gateway.shared_state.errors import RedisUnavailable
from gateway.way import Way
from provisioning.token_rules import UNLIMITED_SCOPE

_PROVEN = frozenset(
    {
        "kind_not_accepted",
        "machine_audience",
        "machine_client",
        "machine_expired",
        "machine_inactive",
        "machine_organization",
        "minted_carrier",
        "minted_expired",
        "minted_origin",
        "minted_parent_gone",
        "minted_path",
        "minted_replayed",
        "minted_role_changed",
        "token-expired",
        "token-iat-in-the-future",
        "token-invalid-authorized-parties",
        "token-not-active-yet",
        "token_expired",
        "token_revoked",
    }
)
"""Why a genuine credential is refused: whoever shows one guesses nothing, and every browser shows expired ones."""


class Tally:
    """What is counted for metrics, by rule.

    Attributes:
        refused: Requests, answered 429.
        unavailable: Questions that Redis did not answer.
    """

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self.unavailable: Counter[str] = Counter()


class SharedCounter(Protocol):
    """What counts for all processes (`shared.py`)."""

    async def take(self, key: bytes, rule: Rule) -> Verdict:
        """Count one more, if it may pass; raises RedisUnavailable."""


class Limiter:
    """The limits of one set of settings.

    Attributes:
        waits: Redis counts, so that asking waits.
        tally: For metrics.
    """

    def __init__(
        self,
        rules: Mapping[str, Rule],
        keys: Keys,
        memory: MemoryCounter,
        shared: SharedCounter | None,
        entries: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what counts.

        Args:
            rules: By their names.
            keys: Makes the names of counts.
            memory: Counts here: without Redis, and for `when_unavailable: local`.
            shared: Counts for all; None: there is no Redis.
            entries: Most refusals to remember.
            clock: Seconds that are never set back.
        """
        self._rules = rules
        self._failures = of_failures(rules.values())
        self._keys = keys
        self._memory = memory
        self._shared = shared
        self._clock = clock
        self._exhausted: Memory[bytes, float] = LRUCache(entries)  # until when
        self.waits = shared is not None
        self.tally = Tally()

    # By address, before credentials.

    def arrive_now(self, way: Way) -> None:
        """Count a request by address, without Redis.

        Raises:
            RateLimited: Too many of them.
        """
        quota = way.quota = Quota()
        for rule, key in self._first(way):
            self._judge(quota, rule, key, self._memory.take(key, rule))

    async def arrive(self, way: Way) -> None:
        """The same with Redis.

        Raises:
            RateLimited: Too many of them.
            RateLimiterUnavailable: Nobody can tell, and the limit wants to know.
        """
        quota = way.quota = Quota()
        await self._take_all(quota, self._first(way))

    # By who calls, once that is known.

    def pass_now(self, way: Way) -> None:
        """Count a request by who sends it, without Redis.

        Raises:
            RateLimited: Too many of them.
        """
        quota = way.quota
        if quota is not None and not quota.counted:
            quota.counted = True
            for rule, key in self._second(way):
                self._judge(quota, rule, key, self._memory.take(key, rule))

    async def pass_(self, way: Way) -> None:
        """The same with Redis.

        Raises:
            RateLimited: Too many of them.
            RateLimiterUnavailable: Nobody can tell, and the limit wants to know.
        """
        quota = way.quota
        if quota is not None and not quota.counted:
            quota.counted = True
            await self._take_all(quota, self._second(way))

    # Bad credentials.

    def check_guesses(self, way: Way) -> None:
        """See that nobody goes on guessing from where too many were bad; nothing is asked, and nothing counted.

        Callers that are known do not come by here, wherever they are.

        Raises:
            RateLimited: Too many of them.
        """
        for rule in self._failures:
            key = self._keys.key(rule, "failures-from", network_of(way.arrived.view.address))
            self._refuse_exhausted(Quota(), rule, key)

    async def failed(self, way: Way, error: CredentialRejected) -> None:
        """Count a bad credential: for where it came from, and for whom it claimed to be.

        An id with too many of them is not locked: a good credential of it passes from anywhere else, so that nobody
        is shut out by others' guesses. Those are told 429 in place of 401.

        Raises:
            RateLimited: Too many of them.
            RateLimiterUnavailable: Nobody can tell, and the limit wants to know.
        """
        credential = way.credentials[0]
        is_guess = type(error) is CredentialRejected and error.reason not in _PROVEN
        if not is_guess or (credential.refusal is not None and credential.carrier is Carrier.COOKIE):
            return
        claimed = claimed_id(credential)
        counts = []
        for rule in self._failures:
            counts.append((rule, self._keys.key(rule, "failures-from", network_of(way.arrived.view.address))))
            if claimed:
                counts.append((rule, self._keys.key(rule, "failures-of", claimed)))
        await self._count(Quota(), counts)

    # How.

    def _first(self, way: Way) -> list[tuple[Rule, bytes]]:
        address = way.arrived.view.address
        found = (self._rules[name] for name in way.rule.rate_limits)
        return [(rule, self._keys.key(rule, *whose(rule, None, address))) for rule in found if rule.by == "address"]

    def _second(self, way: Way) -> list[tuple[Rule, bytes]]:
        actor, address = way.caller.actor if way.caller is not None else None, way.arrived.view.address
        if actor is not None and UNLIMITED_SCOPE in (actor.principal.scopes or ()):
            return []
        found = (self._rules[name] for name in way.rule.rate_limits)
        return [(rule, self._keys.key(rule, *whose(rule, actor, address))) for rule in found if rule.by != "address"]

    async def _take_all(self, quota: Quota, counts: list[tuple[Rule, bytes]]) -> None:
        for rule, key in counts:
            self._refuse_exhausted(quota, rule, key)
        await self._count(quota, counts)

    async def _count(self, quota: Quota, counts: list[tuple[Rule, bytes]]) -> None:
        """Count under all of them at once; each counts for itself, also where another refuses."""
        if len(counts) == 1:
            verdicts = [await self._take(*counts[0])]
        else:
            verdicts = await asyncio.gather(*(self._take(rule, key) for rule, key in counts))
        for (rule, key), verdict in zip(counts, verdicts, strict=True):
            if verdict is not None:
                self._judge(quota, rule, key, verdict)
            elif rule.when_unavailable == "closed":
                raise RateLimiterUnavailable

    async def _take(self, rule: Rule, key: bytes) -> Verdict | None:
        """Ask Redis; None: nobody can tell."""
        if self._shared is None:
            return self._memory.take(key, rule)
        try:
            return await self._shared.take(key, rule)
        except RedisUnavailable:
            self.tally.unavailable[rule.name] += 1
            return self._memory.take(key, rule) if rule.when_unavailable == "local" else None

    def _judge(self, quota: Quota, rule: Rule, key: bytes, verdict: Verdict) -> None:
        quota.add(rule, verdict)
        if not verdict.allowed:
            self._exhausted.insert(key, self._clock() + verdict.wait_s)
            raise self._refusal(rule, verdict.wait_s)

    def _refuse_exhausted(self, quota: Quota, rule: Rule, key: bytes) -> None:
        """Refuse without asking anybody while it is known that nothing is left."""
        until = self._exhausted.get(key)
        if until is None:
            return
        wait_s = until - self._clock()
        if wait_s > 0:
            quota.add(rule, Verdict(False, 0, wait_s))
            raise self._refusal(rule, wait_s)
        self._exhausted.pop(key, None)

    def _refusal(self, rule: Rule, wait_s: float) -> RateLimited:
        self.tally.refused[rule.name] += 1
        return RateLimited("bad_credentials" if rule.counts_failures else None, max(1, ceil(wait_s)))
