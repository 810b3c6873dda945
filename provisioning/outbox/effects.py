"""What has to happen elsewhere, as values. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

Topic = Literal["slack", "posthog", "stripe", "profile", "sessions"]
TOPICS: tuple[Topic, ...] = get_args(Topic)

Reason = Literal[
    "timeout", "unreachable", "failed", "rate_limited", "refused", "rejected", "conflict", "malformed", "error"
]
"""Why a delivery failed.

`timeout` no answer in time; `unreachable` no connection, or it died; `failed` 5xx; `rate_limited` 429; `refused` the
receiver takes nothing from us (401, 403, 404, 410, a redirect); `rejected` it does not take this one (any other 4xx);
`conflict` the same is under way there (409); `malformed` its answer cannot be read; `error` a mistake of ours.
"""

AWAY: frozenset[Reason] = frozenset({"timeout", "unreachable", "failed", "rate_limited", "refused"})
"""Reasons that would meet every other delivery to this receiver just as well."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing to be done elsewhere, once.

    Attributes:
        topic: Who does it.
        kind: What it is, such as `user_created`.
        key: Unique within the topic, and the same whenever the same is asked for again.
        payload: All that is needed to do it, fit for JSON, without secrets and U+0000. It is erased once delivered.
        stream: Effects of one topic and stream are delivered in the order in which they were written; None: in any.
    """

    topic: Topic
    kind: str
    key: str
    payload: Mapping[str, object] = field(repr=False)
    stream: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """An effect on its way.

    Attributes:
        id: Of its row.
        created_at: When it was written.
        attempts: How often it was taken up, this time included.
    """

    id: int
    topic: Topic
    kind: str
    key: str
    payload: Mapping[str, object] = field(repr=False)
    created_at: datetime
    attempts: int


class DeliveryFailed(Exception):
    """It was not delivered, or nobody knows whether it was.

    Attributes:
        reason: Why.
        retry_after_s: How long the receiver asks to be left alone; None: it does not say.
    """

    def __init__(self, reason: Reason, retry_after_s: float | None = None) -> None:
        self.reason = reason
        self.retry_after_s = retry_after_s
        super().__init__(reason)
