"""The signing keys of one Clerk instance: fetched, believed for a while, refreshed before that ends.

Lookups never wait; who must wait says so by awaiting, and then for less than a second. `jwt.PyJWKClient` is no choice:
it blocks the loop. A fetched set replaces the old one whole: merging, as Clerk's own library does, keeps a removed key
alive for as long as somebody sends unknown `kid`s.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from random import random

import aiohttp

from gateway.errors import CredentialRejected, VerifierUnavailable
from gateway.verify.jwks import SigningKey, parse_jwks
from provisioning.background import end_tasks
from provisioning.database.breaker import Breaker

WAIT_S = 0.8  # what a request waits at most, so that it is answered within a second
_FETCH_S = 2.0  # what a fetch takes at most
PROBE_S = 2.0  # between tries while the source does not answer; both together: less than 5 s after it is back
_MAX_BODY_BYTES = 256 * 1024
_REFRESH_AT = 0.8  # of the time to live


class FetchResult(StrEnum):
    """How a fetch ended; the words of the metric label."""

    OK = "ok"
    STATUS = "status"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    TOO_LARGE = "too_large"
    UNUSABLE = "unusable"


class _FetchFailedError(Exception):
    """Ends a fetch with its result."""

    def __init__(self, result: FetchResult) -> None:
        super().__init__(result)
        self.result = result


class SigningKeys:
    """Signing keys by `kid`.

    When a fetch is made: in the background at 0.8 of `ttl`; by the first lookup after `ttl` (an event loop that was
    asleep); for an unknown `kid` or a bad signature, once per `cooldown` for all of them together. After a failure
    nothing is fetched for 2 s (`cooldown`, if that is shorter); then one fetch tries, and so on, whether or not
    anybody asks. There is never more than one fetch at a time.

    Attributes:
        generation: Changes whenever the contents change.
        fetches: Number of fetches by result.
        breaker: Shared state of "the source is away".
    """

    def __init__(
        self,
        jwks_url: str,
        *,
        ttl: float = 300.0,
        cooldown: float = 10.0,
        stale_ceiling: float = 3600.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember the settings; nothing is fetched before `start`.

        Args:
            jwks_url: Of this instance alone: two instances never share a set.
            ttl: Seconds a set is believed while its source answers.
            cooldown: Seconds, see above.
            stale_ceiling: Seconds a set is believed while its source does not answer.
            monotonic: Clock that never steps.
        """
        self.generation = 0
        self.fetches: dict[FetchResult, int] = dict.fromkeys(FetchResult, 0)
        self._url = jwks_url
        self._ttl, self._cooldown, self._stale_ceiling = ttl, cooldown, max(stale_ceiling, ttl)
        self._monotonic = monotonic
        self._keys: Mapping[str, SigningKey] = {}
        self._fetched_at = -math.inf
        self.breaker = Breaker(min(PROBE_S, cooldown), monotonic)
        self._forced_until = -math.inf  # after a fetch for an unknown kid or a bad signature
        self._failed = asyncio.Event()
        self._flight: asyncio.Task[None] | None = None
        self._refresher: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Begin the first fetch and keep the set fresh; does not wait for keys."""
        self._session = aiohttp.ClientSession(
            trust_env=False,  # neither a proxy nor .netrc of the environment may stand between us and the keys
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # a small body must stay small
            timeout=aiohttp.ClientTimeout(total=_FETCH_S),
        )
        self._refresher = asyncio.create_task(self._keep_fresh())

    async def first_set(self, wait_s: float = _FETCH_S) -> bool:
        """Wait for the fetch that `start` began, for `wait_s` at most; True when there are keys to believe."""
        await self._fetched(wait_s)
        return self.ready

    async def close(self) -> None:
        """End what runs. Lookups afterwards answer from what is known."""
        await end_tasks(self._refresher, self._flight, quietly=True)
        if self._session is not None:
            await self._session.close()
        self._refresher = self._flight = self._session = None

    def age_s(self) -> float:
        """Seconds since the set was fetched; infinite before the first."""
        return self._monotonic() - self._fetched_at

    @property
    def ready(self) -> bool:
        """True while there are keys that may be believed."""
        return self.age_s() <= self._stale_ceiling

    @property
    def good_until(self) -> float:
        """Monotonic seconds at which this set, and what was verified with it, stops being believed."""
        return self._fetched_at + self._stale_ceiling

    def find_key(self, kid: str) -> SigningKey | None:
        """Look a key up without waiting.

        Returns:
            The key, or None when `fetch_key` may know better.

        Raises:
            CredentialRejected: `jwk-kid-mismatch`: not in the set, and asked for recently.
            VerifierUnavailable: `jwk-remote-failed-to-load`: no set to believe, and its source failed just now.
        """
        age = self.age_s()
        if age > self._stale_ceiling:
            if self.breaker.rest_s() > 0:
                raise self._unavailable()
            return None
        if age > self._ttl:
            if self.breaker.closed:
                return None  # not refreshed in time, but nothing says the source is away: ask before believing
            if self.breaker.rest_s() <= 0:
                self._begin()
        key = self._keys.get(kid)
        if key is None and self._flight is None and not self.may_refetch():
            raise self._unknown()
        return key

    async def fetch_key(self, kid: str, wait_s: float = WAIT_S) -> SigningKey:
        """Look a key up, asking its source first when that may help; waits `wait_s` at most.

        Raises:
            CredentialRejected: `jwk-kid-mismatch`: not in the set.
            VerifierUnavailable: `jwk-remote-failed-to-load`: cannot be known now.
        """
        key = self.find_key(kid)
        if key is not None:
            return key
        if self._flight is None and self.age_s() <= self._ttl:
            self._forced_until = self._monotonic() + self._cooldown
        in_time = await self._fetched(wait_s)
        if not self.ready:
            raise self._unavailable()
        key = self._keys.get(kid)
        if key is not None:
            return key
        if not in_time:
            raise self._unavailable()
        raise self._unknown()

    def may_refetch(self) -> bool:
        """Tell whether an unknown `kid`, or a bad signature under a known one, is a reason to ask for the set again."""
        return self._monotonic() >= self._forced_until and self.breaker.rest_s() <= 0

    async def fetch_newer(self, key: SigningKey, wait_s: float = WAIT_S) -> SigningKey | None:
        """Give the key that took the place of `key`, asking at most once per cool-down.

        Clerk's `kid` names the instance, so a rotated key may keep it.

        Returns:
            None when `key` still stands or nothing newer can be had now.
        """
        if self._keys.get(key.kid) == key and (self._flight is not None or self.may_refetch()):
            if self._flight is None:
                self._forced_until = self._monotonic() + self._cooldown
            await self._fetched(wait_s)
        newer = self._keys.get(key.kid)
        return None if newer == key else newer

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.wait({self._begin()})
            self._failed.clear()
            if self.breaker.closed:
                with suppress(TimeoutError):  # a fetch that a request asks for may fail meanwhile
                    async with asyncio.timeout(self._ttl * _REFRESH_AT):
                        await self._failed.wait()
            while not self.breaker.closed:
                # Not all processes at the same moment.
                await asyncio.sleep(min(PROBE_S, self._cooldown) * (1 + random() / 10))  # noqa: S311 - hides nothing
                if self.breaker.rest_s() <= 0:
                    break

    async def _fetched(self, wait_s: float) -> bool:
        """Wait for the fetch under way or a new one; False when it takes longer. The fetch itself goes on."""
        done, _ = await asyncio.wait({self._begin()}, timeout=wait_s)
        return bool(done)

    def _begin(self) -> asyncio.Task[None]:
        if self._flight is None:
            self._flight = asyncio.create_task(self._fetch())
            self._flight.add_done_callback(self._landed)
        return self._flight

    def _landed(self, flight: asyncio.Task[None]) -> None:
        if self._flight is flight:
            self._flight = None

    async def _fetch(self) -> None:
        started_at = self._monotonic()
        try:
            keys = await self._load()
        except _FetchFailedError as failure:
            self.fetches[failure.result] += 1
            self.breaker.failed()  # who probes afterwards is the one flight
            self._failed.set()
            return
        self.breaker.succeeded()
        self.fetches[FetchResult.OK] += 1
        self._fetched_at = started_at
        if keys != self._keys:
            self._keys = keys
            self.generation += 1

    async def _load(self) -> Mapping[str, SigningKey]:
        """Fetch and read the set.

        Raises:
            _FetchFailedError: Whatever went wrong.
        """
        if self._session is None:
            raise _FetchFailedError(FetchResult.UNREACHABLE)
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        try:
            # A redirect would let whoever answers choose another source, so 3xx is a failure like any other status.
            async with self._session.get(self._url, headers=headers, allow_redirects=False) as response:
                if response.status != 200:
                    raise _FetchFailedError(FetchResult.STATUS)
                body = await _read_capped(response.content)
            return parse_jwks(body)
        except TimeoutError:  # before the next: aiohttp's timeouts are both
            raise _FetchFailedError(FetchResult.TIMEOUT) from None
        except (aiohttp.ClientError, OSError):
            raise _FetchFailedError(FetchResult.UNREACHABLE) from None
        except (ValueError, RecursionError):
            raise _FetchFailedError(FetchResult.UNUSABLE) from None

    def _unknown(self) -> CredentialRejected | VerifierUnavailable:
        """An unknown `kid` is bad only if the source could tell us so."""
        return CredentialRejected("jwk-kid-mismatch") if self.breaker.closed else self._unavailable()

    def _unavailable(self) -> VerifierUnavailable:
        wait_s = math.ceil(self.breaker.rest_s())
        return VerifierUnavailable("jwk-remote-failed-to-load", retry_after_s=max(1, wait_s))


async def _read_capped(content: aiohttp.StreamReader) -> bytes:
    """Read a body that must be small.

    Raises:
        _FetchFailedError: It is not.
    """
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise _FetchFailedError(FetchResult.TOO_LARGE)
    return bytes(body)
