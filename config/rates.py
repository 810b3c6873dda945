"""Rates: how many of something may happen within which time."""

import re
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator, WithJsonSchema

from config.values import parse_duration

_RATE = re.compile(r"([0-9]{1,9}) *(?:/|per) *([a-z]+|[0-9][0-9.]*[a-z]+)")
_WINDOWS_S = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
_WRITE = "write how many in which time, such as 100/minute, 5/second or 20/10s"
_SHORTEST_S, _LONGEST_S = 0.1, 31 * 86400.0


class Rate(NamedTuple):
    """So many within any time as long as the window.

    Attributes:
        limit: 1 or more.
        window_s: Seconds, from a tenth to a month.
    """

    limit: int
    window_s: float

    def __str__(self) -> str:
        return f"{self.limit}/{self.window_s:g}s"


def parse_rate(value: object) -> Rate:
    """Read `100/minute`, `5 per second`, `1000/h` or `20/10s`.

    Raises:
        ValueError: Not a rate, none at all, or of a window under a tenth of a second or over 31 days.
    """
    if isinstance(value, Rate):
        return value
    match = _RATE.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if match is None or int(match[1]) == 0:
        raise ValueError(_WRITE)
    unit = match[2]
    try:
        window_s = _WINDOWS_S.get(unit.removesuffix("s")) or parse_duration(unit if unit[0].isdigit() else f"1{unit}")
    except ValueError:  # what to write instead is a rate, not a duration
        raise ValueError(_WRITE) from None
    if not _SHORTEST_S <= window_s <= _LONGEST_S:
        raise ValueError("write a time from 100ms to 31d")
    return Rate(int(match[1]), window_s)


AnyRate = Annotated[
    Rate, BeforeValidator(parse_rate), WithJsonSchema({"type": "string", "examples": ["100/minute", "20/10s"]})
]
