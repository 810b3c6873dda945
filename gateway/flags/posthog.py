"""PostHog's definitions: fetched by one process of the fleet, kept as a last good copy, evaluated by its own package.

The package's own poller forgets every flag after a 401 or 402, so fetching is ours: whatever goes wrong, what is in
force stays. Evaluation asks nobody.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import aiohttp
import structlog

from gateway.flags.copies import Copies, Copy
from gateway.flags.provider import Facts, Json
from provisioning.background import end_tasks

if TYPE_CHECKING:
    from posthog import Posthog

POLL_S = 30.0
_WAIT_S = 0.2
"""Between looks for what another process is fetching, while there is nothing yet."""
WARM_UP_S = 5.0
"""How long a start waits for definitions; after that declared defaults are told until they come."""
_TIMEOUT = aiohttp.ClientTimeout(total=10, connect=3)
_LARGEST = 8 * 1024 * 1024  # a tenth of it when compressed, for a quarter of a second on the way to Redis
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Source:
    """Where definitions are.

    Attributes:
        project_key: Public: PostHog wants it in the URL.
        secret_key: Goes into a header alone.
    """

    host: str
    project_key: str
    secret_key: str

    def __repr__(self) -> str:
        return f"Source({self.host!r})"


class _Refused(Exception):
    """PostHog did not give definitions; the text says why."""


class PosthogFlags:
    """A `FlagProvider`."""

    def __init__(
        self,
        source: Source,
        names: Collection[str],
        json_names: Collection[str],
        copies: Copies,
        *,
        poll_s: float = POLL_S,
        warm_up_s: float = WARM_UP_S,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is known yet.

        Args:
            source: Where definitions are.
            names: Of the flags that are evaluated.
            json_names: Of those whose value is their payload.
            copies: Shares definitions with the rest of the fleet.
            poll_s: Seconds between looks.
            warm_up_s: How long `start` waits.
            clock: Unix seconds.
            monotonic: Seconds.
        """
        self._source = source
        self._names = sorted(names)
        self._json_names = frozenset(json_names)
        self._copies = copies
        self._poll_s = poll_s
        self._warm_up_s = warm_up_s
        self._clock = clock
        self._monotonic = monotonic
        self._session: aiohttp.ClientSession | None = None
        self._polling: asyncio.Task[None] | None = None
        self._client: Posthog | None = None
        self._copy: Copy | None = None
        self.generation = 0
        self.loads: Counter[str] = Counter()
        self.loaded_at: float | None = None

    def evaluate(self, facts: Facts) -> Mapping[str, Json]:
        """See `FlagProvider`."""
        if self._client is None or not self._names:
            return {}
        subscription = {"plan": facts.plan, "subscription_status": facts.subscription_status}
        person = {"email": facts.email, "role": facts.role, "organization_role": facts.organization_role}
        found = self._client.get_all_flags_and_payloads(
            facts.user_id,
            groups={"organization": facts.organization_id},
            person_properties=person | subscription,
            group_properties={"organization": {"id": facts.organization_id} | subscription},
            only_evaluate_locally=True,
            flag_keys_to_evaluate=self._names,
        )
        values: dict[str, Json] = dict(found["featureFlags"] or {})
        payloads: Mapping[str, Any] = found["featureFlagPayloads"] or {}
        for name in self._json_names & values.keys():
            payload = payloads.get(name)
            with suppress(ValueError):
                values[name] = json.loads(payload) if isinstance(payload, str) else payload
        return values

    async def start(self) -> None:
        """Load in the background; wait for it a bounded time. PostHog's troubles are no reason not to start."""
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        first = asyncio.Event()
        self._polling = asyncio.create_task(self._poll(first))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._warm_up_s):
                await first.wait()
        if self._client is None:
            _log.warning("flags are not there yet: defaults are told", provider="posthog")

    async def close(self) -> None:
        """See `FlagProvider`."""
        await end_tasks(self._polling)
        if self._session is not None:
            await self._session.close()

    async def _poll(self, first: asyncio.Event) -> None:
        while True:
            waits = False
            try:
                waits = await self.look()
            except Exception as error:  # noqa: BLE001 - a poller that ends would leave flags as they are for ever
                _log.error("flags cannot be looked at", cause=type(error).__name__, exc_info=error)
            if waits:
                await asyncio.sleep(min(self._poll_s, _WAIT_S))
                continue
            first.set()
            await asyncio.sleep(self._poll_s)

    async def look(self) -> bool:
        """Bring what is in force up to date: from the fleet's copy while that is young, else from PostHog.

        Returns:
            Whether there is nothing yet, and another process is fetching it.
        """
        copy, now = await self._copies.load(), self._clock()
        if copy is not None:
            # Of a process whose clock is ahead: taken, but what is fetched next must not seem older than it.
            await self._adopt(replace(copy, fetched_at=min(copy.fetched_at, now)))
            if 0 <= now - copy.fetched_at < self._poll_s * 0.9:
                self.loads["shared"] += 1
                return False
        if not await self._copies.may_fetch(self._poll_s):
            return self._client is None
        try:
            fetched = await self._fetch()
        except (aiohttp.ClientError, TimeoutError, OSError, _Refused) as error:
            self.loads["failed"] += 1
            cause = str(error) if isinstance(error, _Refused) else type(error).__name__
            _log.warning("flags cannot be fetched, what is in force stays", provider="posthog", cause=cause)
            return False
        await self._adopt(fetched)
        await self._copies.save(fetched)
        return False

    async def _fetch(self) -> Copy:
        if self._session is None:
            raise _Refused("not started")
        source, known = self._source, self._copy
        headers = {"Authorization": f"Bearer {source.secret_key}"}
        if known is not None and known.etag:
            headers["If-None-Match"] = known.etag
        url = f"{source.host.rstrip('/')}/flags/definitions"
        query = {"token": source.project_key, "send_cohorts": ""}
        async with self._session.get(url, params=query, headers=headers, allow_redirects=False) as response:
            if response.status == 304 and known is not None:
                self.loads["not_modified"] += 1
                return Copy(known.body, known.etag, self._clock())
            if response.status != 200:
                raise _Refused(f"status {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_chunked(65536):
                body += chunk
                if len(body) > _LARGEST:
                    raise _Refused("definitions are too large")
            etag = response.headers.get("ETag", "")
        await asyncio.to_thread(_definitions, bytes(body))  # before it counts as good
        self.loads["ok"] += 1
        return Copy(bytes(body), etag, self._clock())

    async def _adopt(self, copy: Copy) -> None:
        known = self._copy
        if known is not None and copy.fetched_at < min(known.fetched_at, self._clock()):
            return  # a copy from before: never step back; the clock may have been set back, too
        if known is None or copy.body != known.body:
            try:
                client = await asyncio.to_thread(self._client_of, copy.body)
            except _Refused as error:
                _log.warning("flags refused, the last good ones stay", provider="posthog", cause=str(error))
                return
            self._client = client
            self.generation += 1
        self._copy = copy
        self.loaded_at = self._monotonic() - max(0.0, self._clock() - copy.fetched_at)

    def _client_of(self, body: bytes) -> "Posthog":
        """A client that holds these definitions, and neither threads nor a key to ask for others."""
        from posthog import Posthog

        flags, groups, cohorts = _definitions(body)
        client = Posthog(self._source.project_key, host=self._source.host, sync_mode=True, send=False)
        client.feature_flags = flags
        client.group_type_mapping = groups
        client.cohorts = cohorts
        return client


def _definitions(body: bytes) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """Read an answer.

    Raises:
        _Refused: It is no answer of this kind.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise _Refused("definitions are not JSON") from None
    if not isinstance(answer, dict) or not isinstance(answer.get("flags"), list):
        raise _Refused("definitions have another form")
    groups, cohorts = answer.get("group_type_mapping") or {}, answer.get("cohorts") or {}
    if not answer["flags"]:  # what a project over its quota, or of another key, looks like; nobody means this
        raise _Refused("definitions are empty")
    if not all(isinstance(flag, dict) and isinstance(flag.get("key"), str) for flag in answer["flags"]):
        raise _Refused("definitions have another form")
    if not isinstance(groups, dict) or not isinstance(cohorts, dict):
        raise _Refused("definitions have another form")
    return answer["flags"], groups, cohorts
