"""What is known of one subscription at Stripe, out of events that come in any order, twice, or not at all. Pure.

Of each kind of fact the newest is kept: the snapshot of the subscription, and when a payment was last made and last
failed. Which is newer is the same for every order of arrival, so that every order leads to the same end.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

PaymentWord = Literal["paid", "failed"]

# How far along its life each of Stripe's words is: orders snapshots of one second, since Stripe counts in seconds and
# tells of several steps within one.
_STEPS = ("incomplete", "trialing", "active", "past_due", "paused", "unpaid", "incomplete_expired", "canceled")
_FINAL = frozenset({"incomplete_expired", "canceled"})  # Stripe revives nothing
_NEVER_BEGAN = frozenset({None, "incomplete", "incomplete_expired"})
_PAYABLE = frozenset({"incomplete", "past_due", "unpaid"})  # what a payment makes active
_LIVE = frozenset({"trialing", "active", "past_due"})
_EARLIEST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A subscription object of Stripe, as far as it matters here.

    Attributes:
        status: Stripe's word.
        plan: What we call what its price buys.
        started_at: When the object was made.
    """

    status: str
    plan: str
    started_at: datetime
    trial_ends_at: datetime | None = None
    current_period_end: datetime | None = None
    cancel_at_period_end: bool = False
    cancel_at: datetime | None = None
    canceled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which event something came with.

    Attributes:
        at: When Stripe made the event, in whole seconds.
        event_id: `evt_…`; settles what is the same in everything else.
    """

    at: datetime
    event_id: str


@dataclass(frozen=True, slots=True)
class Facts:
    """The newest of each kind; None: nothing of that kind came yet.

    Attributes:
        paid_at: When Stripe last said that a payment was made.
        failed_at: When it last said that one failed.
    """

    snapshot: Snapshot | None = None
    snapshot_stamp: Stamp | None = None
    paid_at: datetime | None = None
    failed_at: datetime | None = None

    def with_snapshot(self, snapshot: Snapshot, stamp: Stamp) -> "Facts":
        """Take a snapshot in, unless a newer one is known."""
        if self.snapshot is not None and self.snapshot_stamp is not None:
            known = _snapshot_order(self.snapshot, self.snapshot_stamp)
            if _snapshot_order(snapshot, stamp) <= known:
                return self
        return replace(self, snapshot=snapshot, snapshot_stamp=stamp)

    def with_payment(self, payment: PaymentWord, at: datetime) -> "Facts":
        """Take in what became of a payment, unless the same is known of a later one."""
        if payment == "paid":
            return replace(self, paid_at=max(at, self.paid_at or at))
        return replace(self, failed_at=max(at, self.failed_at or at))

    @property
    def status(self) -> str | None:
        """Stripe's word for the subscription: the snapshot's, moved on by payments that are newer than it.

        A snapshot knows of the payments of its own second, and one that was made then outdoes one that failed.
        """
        if self.snapshot is None or self.snapshot_stamp is None:
            return None
        word, since = self.snapshot.status, self.snapshot_stamp.at
        if self.paid_at is not None and self.paid_at > since:
            since = self.paid_at
            word = "active" if word in _PAYABLE else word
        if self.failed_at is not None and self.failed_at > since and word == "active":
            return "past_due"
        return word

    @property
    def precedence(self) -> int:
        """Which of an organization's subscriptions counts: the lowest; a trial of ours has 3."""
        status = self.status
        if status in _LIVE:
            return 1
        return 4 if status in _NEVER_BEGAN else 2


def _snapshot_order(snapshot: Snapshot, stamp: Stamp) -> tuple[bool, datetime, int, datetime, str]:
    step = _STEPS.index(snapshot.status) if snapshot.status in _STEPS else len(_STEPS)
    period = snapshot.current_period_end or _EARLIEST
    return snapshot.status in _FINAL, stamp.at, step, period, stamp.event_id
