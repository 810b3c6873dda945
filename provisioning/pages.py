"""Long lists in pages: each begins behind the last row of the one before, whatever came or went meanwhile. Pure.

Lists are ordered by a moment and then by id, so a place is both. The text of a cursor is no secret and no proof: what
the caller may see is in the query itself.
"""

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from provisioning.errors import CursorInvalid
from provisioning.ids import is_id

T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TEXT = re.compile(r"([0-9]{1,17})\.(usr_[0-9A-Za-z]{22})")  # 17 digits reach the year 5138
CURSOR_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands in its list.

    Attributes:
        at: Aware, in whole microseconds, as PostgreSQL keeps moments; not before 1970.
        id: `usr_…`; empty before the first row and behind the last one.
    """

    at: datetime
    id: str

    def cursor(self) -> str:
        """Write it for a client: base64url without padding."""
        return (
            base64.urlsafe_b64encode(f"{(self.at - _EPOCH) // _MICROSECOND}.{self.id}".encode()).rstrip(b"=").decode()
        )


FIRST = Place(_EPOCH, "")
LAST = Place(datetime(9999, 1, 1, tzinfo=UTC), "")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list.

    Attributes:
        last: Where it ends, if there is more.
    """

    items: tuple[T, ...]
    last: Place | None = None


def place_of(cursor: str) -> Place:
    """Read a cursor.

    Raises:
        CursorInvalid: It is none of ours.
    """
    try:
        raw = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        text = base64.b64decode(raw, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, UnicodeError):
        raise CursorInvalid from None
    match = _TEXT.fullmatch(text) if len(cursor) <= CURSOR_LENGTH else None
    if match is None or not is_id("usr", match[2]):
        raise CursorInvalid
    return Place(_EPOCH + int(match[1]) * _MICROSECOND, match[2])


def page_of(rows: Sequence[T], limit: int, place: Callable[[T], Place]) -> Page[T]:
    """Make a page of up to `limit + 1` rows: the last one only shows that there is more."""
    kept = tuple(rows[:limit])
    return Page(kept, place(kept[-1]) if len(rows) > limit else None)
