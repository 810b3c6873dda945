"""PostHog's `/batch/`, as far as uses of features need it: events with ids of ours, so that a repetition counts once.

Facts (PostHog's capture API, 2026-11): the project key goes in the body; an event is known by its `uuid`, so one that
was taken and whose answer was lost may be sent again; 429 and 5xx come with or without `Retry-After`; 413 is a batch
over 20 MB.
"""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import aiohttp
import orjson
from yarl import URL

DEADLINE_S = 10.0
_TAKEN, _TOO_LARGE = range(200, 300), 413
_LATER = (408, 425, 429)


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """One use of a feature.

    Attributes:
        name: Of the event.
        user_id: `usr_…`, whom PostHog knows by it.
        organization_id: `org_…`, a group of type `organization`.
        auth: Kind of the credential.
        at: Unix seconds.
        id: Stays the same in every attempt.
    """

    name: str
    user_id: str
    organization_id: str
    auth: str
    at: float
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True, slots=True)
class Batch:
    """Events with the body that carries them."""

    events: Sequence[UsageEvent]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch.

    Attributes:
        result: `later`: it may be taken another time.
        reason: For the log: a status, or what failed.
        retry_after_s: When PostHog said so.
        too_large: Refused for its size.
    """

    result: Literal["delivered", "refused", "later"]
    reason: str = ""
    retry_after_s: float | None = None
    too_large: bool = False

    @property
    def done(self) -> bool:
        """It is not to be sent again."""
        return self.result != "later"


class PosthogBatches:
    """Sends batches to one project."""

    def __init__(
        self, session: aiohttp.ClientSession, host: str, project_key: str, *, deadline_s: float = DEADLINE_S
    ) -> None:
        """Settle where to.

        Args:
            session: Belongs to the caller.
            host: Such as `https://us.i.posthog.com`.
            project_key: `phc_…`; it only lets events in.
            deadline_s: For one batch, all in all.
        """
        self._session = session
        self._url = URL(f"{host.rstrip('/')}/batch/", encoded=True)
        self._project_key = project_key
        self._deadline_s = deadline_s

    def batch(self, events: Sequence[UsageEvent]) -> Batch:
        """Write down what is sent, the same in every attempt."""
        document = {
            "api_key": self._project_key,
            "historical_migration": False,
            "batch": [_document(event) for event in events],
        }
        return Batch(tuple(events), orjson.dumps(document))

    async def deliver(self, batch: Batch) -> Outcome:
        """Send a batch once; raises nothing but cancellation."""
        try:
            async with (
                asyncio.timeout(self._deadline_s),
                self._session.post(
                    self._url,
                    data=batch.body,
                    headers={"Content-Type": "application/json", "User-Agent": "actorgate"},
                    allow_redirects=False,
                ) as response,
            ):
                return _outcome(response.status, response.headers.get("Retry-After"))
        except TimeoutError:
            return Outcome("later", "timeout")
        except (aiohttp.ClientError, OSError) as error:
            return Outcome("later", type(error).__name__)


def _outcome(status: int, retry_after: str | None) -> Outcome:
    if status in _TAKEN:
        return Outcome("delivered")
    if status in _LATER or status >= 500:
        text = (retry_after or "").strip()
        asked = float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
        return Outcome("later", str(status), asked)
    return Outcome("refused", str(status), too_large=status == _TOO_LARGE)


def _document(event: UsageEvent) -> dict[str, object]:
    return {
        "uuid": event.id,
        "event": event.name,
        "distinct_id": event.user_id,
        "timestamp": datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds"),
        "properties": {
            "$groups": {"organization": event.organization_id},
            "$geoip_disable": True,  # the address PostHog sees is the gateway's
            "$lib": "actorgate",
            "auth": event.auth,
        },
    }
