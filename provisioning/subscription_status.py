"""What a subscription is at a moment: computed from stored facts and a clock, nowhere written down. Pure.

Every subscription has one word now, perhaps a moment at which that changes by itself, and one word from then on. So
nothing that is over comes back by time alone, and nobody needs a job that goes through rows when trials end.
"""

import re
from datetime import datetime, timedelta
from enum import StrEnum

from provisioning.records import Subscription

PERIOD_GRACE = timedelta(days=3)
"""How long what is paid for outlives its period without news: as long as Stripe repeats a webhook that fails."""
_DAY = timedelta(days=1)


class SubscriptionStatus(StrEnum):
    """What callers and upstreams are told."""

    TRIALING = "trialing"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    CANCELED = "canceled"
    EXPIRED = "expired"
    NONE = "none"


IN_FORCE = frozenset({SubscriptionStatus.TRIALING, SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE})
"""In which a plan counts. Past due does, while Stripe tries to collect: when it gives up, it says another word."""


def status_at(subscription: Subscription | None, now: datetime) -> SubscriptionStatus:
    """Tell the status of an organization's subscription.

    Args:
        subscription: None: it has none.
        now: Aware.
    """
    first, until, then = _course(subscription)
    return first if until is None or now < until else then


def next_change(subscription: Subscription | None, now: datetime) -> datetime | None:
    """Tell when the status changes by time alone; None: not any more."""
    _, until, _ = _course(subscription)
    return until if until is not None and now < until else None


def plan_in_force(subscription: Subscription | None, now: datetime) -> str | None:
    """Tell the plan that counts; None: there is none."""
    return subscription.plan if subscription is not None and status_at(subscription, now) in IN_FORCE else None


def days_remaining(subscription: Subscription | None, now: datetime) -> int | None:
    """Count the days left of the trial, or of the period that is paid for, one that has begun included.

    Returns:
        0 when it is over; None when there is no subscription, or no end is known.
    """
    status = status_at(subscription, now)
    if subscription is None or status is SubscriptionStatus.NONE:
        return None
    if status not in IN_FORCE:
        return 0
    if status is SubscriptionStatus.TRIALING:
        end = _course(subscription)[1]
    else:
        end = cancels_at(subscription) or subscription.current_period_end
    return None if end is None else max(0, -((now - end) // _DAY))


def cancels_at(subscription: Subscription) -> datetime | None:
    """Tell when a subscription ends because somebody wants it to; None: it goes on."""
    if subscription.cancel_at is not None:
        return subscription.cancel_at
    return subscription.current_period_end if subscription.cancel_at_period_end else None


def cancels_with_period(subscription: Subscription) -> bool:
    """Tell whether it is to end with its period; Stripe says so in either of two ways."""
    if subscription.cancel_at_period_end:
        return True
    end = subscription.current_period_end
    return subscription.cancel_at is not None and end is not None and subscription.cancel_at <= end


def plan_name(plan: str) -> str:
    """Make a plan's word readable: `team-plus` is `Team Plus`; an id of Stripe's stays as it is."""
    if plan.startswith("price_"):
        return plan
    return " ".join(word[0].upper() + word[1:] for word in re.split(r"[-_\s]+", plan) if word) or plan


def _ran_out(subscription: Subscription) -> bool:
    """Whether a trial came to its end and nobody had given a means of payment: Stripe cancels it at that moment."""
    end, period = subscription.trial_ends_at, subscription.current_period_end
    if end is None or subscription.canceled_at is None or cancels_at(subscription) is not None:
        return False
    return subscription.canceled_at >= end and (period is None or period <= end)


def _course(
    subscription: Subscription | None,
) -> tuple[SubscriptionStatus, datetime | None, SubscriptionStatus]:
    """The status, until when it stays so (None: for ever), and what it is from then on."""
    status = SubscriptionStatus
    if subscription is None:
        return status.NONE, None, status.NONE
    cancel = cancels_at(subscription)
    match subscription.status:
        case "trialing":
            end = subscription.trial_ends_at
            if end is None:  # a trial without an end is none
                return status.EXPIRED, None, status.EXPIRED
            if cancel is not None and cancel <= end:
                return status.TRIALING, cancel, status.CANCELED
            # To the moment, also at Stripe: what comes after it is Stripe's to say, within seconds.
            return status.TRIALING, end, status.EXPIRED
        case "active" | "past_due" as word:
            if cancel is not None:
                return status(word), cancel, status.CANCELED
            end = subscription.current_period_end
            return status(word), end + PERIOD_GRACE if end is not None else None, status.EXPIRED
        case "canceled":
            over = status.EXPIRED if _ran_out(subscription) else status.CANCELED
            return over, None, over
        case "unpaid" | "paused":
            return status.EXPIRED, None, status.EXPIRED
        case _:  # never began, or a word that is not known: nothing follows from it
            return status.NONE, None, status.NONE
