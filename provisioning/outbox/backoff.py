"""How long to wait before a delivery is tried again. Pure."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_S = 1.0
CAP_S = 60.0
LONGEST_RETRY_AFTER_S = 3600.0

Uniform = Callable[[float, float], float]


def delay_s(attempts: int, retry_after_s: float | None = None, uniform: Uniform = random.uniform) -> float:
    """Give the seconds until the next attempt: half to all of 1, 2, 4 … 60, and never less than was asked for.

    Args:
        attempts: Made so far, 1 or more.
        retry_after_s: What the receiver asked for; None: nothing.
        uniform: Draws a number between two, so that what failed together does not come back together.
    """
    ceiling = min(CAP_S, FIRST_S * 2.0 ** min(max(attempts, 1) - 1, 16))
    if retry_after_s is None:
        return uniform(ceiling / 2, ceiling)
    return retry_after_s + uniform(0.0, FIRST_S)


def retry_after_s(text: str | None, now: datetime | None = None) -> float | None:
    """Read `Retry-After` (RFC 9110 §10.2.3), seconds or a date, held between 0 and an hour; None: not said.

    Args:
        text: The field's value.
        now: Aware; None: the system's.
    """
    trimmed = (text or "").strip()
    if trimmed.isascii() and trimmed.isdigit():
        return min(float(trimmed[:10]), LONGEST_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(trimmed)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max((moment - (now or datetime.now(UTC))).total_seconds(), 0.0), LONGEST_RETRY_AFTER_S)
