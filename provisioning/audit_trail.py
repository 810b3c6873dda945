"""Reading the audit trail of one organization, a page at a time, newest first.

Pages follow the moment of an event and its place in the chain, neither of which ever changes: whatever is appended
between two pages, every event that was there at the first is met once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from provisioning.audit import ENTRY_COLUMNS, Entry, entry_of
from provisioning.database.pool import Database

PREFIX_MARK = ".*"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events; None leaves a question open.

    Attributes:
        action: Exact, or what comes before it with `.*` behind: `user.*`.
        actor_id: As in the event.
        target: One of the event's targets.
        after: From this moment on, aware.
        before: Up to this moment, without it, aware.
    """

    action: str | None = None
    actor_id: str | None = None
    target: str | None = None
    after: datetime | None = None
    before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ends: the last event on it."""

    occurred_at: datetime
    sequence: int


@dataclass(frozen=True, slots=True)
class Page:
    """Some events, newest first; `next` is None on the last page."""

    entries: tuple[Entry, ...]
    next: Place | None


class AuditTrail:
    """Reads audit events. Raises `DatabaseUnavailable` while PostgreSQL is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, organization_id: str, wanted: Wanted, limit: int, after: Place | None = None) -> Page:
        """Read a page.

        Args:
            organization_id: `org_…`, whose chain alone is read.
            wanted: Which events.
            limit: How many at most, 1 or more.
            after: Where the page before ended; None: from the newest on.
        """
        statement, arguments = page_statement(organization_id, wanted, limit, after)
        async with self._database.connection() as connection:
            rows = await connection.fetch(statement, *arguments)
        entries = tuple(entry_of(row) for row in rows[:limit])
        last = Place(rows[limit - 1]["occurred_at"], rows[limit - 1]["sequence"]) if len(rows) > limit else None
        return Page(entries, last)


def page_statement(
    organization_id: str, wanted: Wanted, limit: int, after: Place | None
) -> tuple[str, Sequence[object]]:
    """Write the query of a page, only with the conditions it has, so that each finds its index; and its arguments."""
    arguments: list[object] = [organization_id]

    def argument(value: object) -> str:
        arguments.append(value)
        return f"${len(arguments)}"

    conditions = ["chain = $1"]
    if wanted.action is not None and wanted.action.endswith(PREFIX_MARK):
        beginning = wanted.action.removesuffix("*")
        conditions.append(f'action COLLATE "C" >= {argument(beginning)}')
        conditions.append(f'action COLLATE "C" < {argument(beginning[:-1] + "/")}')  # what follows `.` in ASCII
    elif wanted.action is not None:
        conditions.append(f'action COLLATE "C" = {argument(wanted.action)}')
    if wanted.actor_id is not None:
        conditions.append(f"actor_id = {argument(wanted.actor_id)}")
    if wanted.target is not None:
        conditions.append(f"targets @> ARRAY[{argument(wanted.target)}::text]")
    if wanted.after is not None:
        conditions.append(f"occurred_at >= {argument(wanted.after)}")
    if wanted.before is not None:
        conditions.append(f"occurred_at < {argument(wanted.before)}")
    if after is not None:
        conditions.append(f"(occurred_at, sequence) < ({argument(after.occurred_at)}, {argument(after.sequence)})")
    statement = f"""
        SELECT {ENTRY_COLUMNS}, sequence FROM audit_events WHERE {" AND ".join(conditions)}
        ORDER BY occurred_at DESC, sequence DESC LIMIT {argument(limit + 1)}
    """  # noqa: S608 - columns and conditions of our own; every value is an argument
    return statement, arguments
