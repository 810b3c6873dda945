"""Whether audit chains are whole: every event follows from the one before it, and the last is where the chain ends.

Found is what was changed, taken out, put in, moved, or cut off at the end. Not found is a chain that somebody who may
write everything in PostgreSQL made anew from some event on, with its end: keep the ends elsewhere (`docs/audit.md`).
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from asyncpg import Record as Row

from provisioning.audit import ENTRY_COLUMNS, FIRST_HASH, Entry, entry_of
from provisioning.database.pool import Connection, Database

FETCHED = 5000
"""Rows of one round trip."""
Wrong: TypeAlias = Literal["broken", "missing", "out_of_line", "cut_off", "beyond_end", "end_changed", "end_missing"]
MEANING: dict[Wrong, str] = {
    "broken": "does not follow from the event before it: one of the two was changed, moved or put in",
    "missing": "is missing, as are all up to the next one",
    "out_of_line": "stands where another event stands already",
    "cut_off": "is missing, as are all up to the end of the chain",
    "beyond_end": "stands behind the end of the chain: it was put in",
    "end_changed": "is the last one, but the end of the chain has another hash",
    "end_missing": "is the last one, but the chain has no end",
}

# PostgreSQL knows moments that Python does not: such a row was not written here.
_KNOWN = "CASE WHEN {0} >= '0001-01-02' AND {0} < '9999-12-30' THEN {0} END AS occurred_at"
_COLUMNS = f"{ENTRY_COLUMNS.replace('occurred_at', _KNOWN.format('occurred_at'))}, sequence, hash"
_EVENTS = f"SELECT {_COLUMNS} FROM audit_events"  # noqa: S608 - column names of our own
_ENDS = "SELECT chain, sequence, hash FROM audit_chains"
_HAS_CHAIN = """
    SELECT EXISTS (SELECT FROM audit_chains WHERE chain = $1) OR EXISTS (SELECT FROM audit_events WHERE chain = $1)
"""
_IN_ORDER = "ORDER BY chain, sequence"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        sequence: Place of the event in its chain, from 1; 0: the chain has no event at all.
    """

    chain: str
    sequence: int
    wrong: Wrong

    def __str__(self) -> str:
        return f"{self.chain} event {self.sequence} {MEANING[self.wrong]}"


@dataclass(frozen=True, slots=True)
class End:
    """The last event of a chain; `FIRST_HASH` and 0 where there is none."""

    sequence: int = 0
    hash: bytes = FIRST_HASH


@dataclass(frozen=True, slots=True)
class Link:
    """One event with its place and hash as they are kept; `entry` is None when it cannot be one of ours."""

    chain: str
    sequence: int
    hash: bytes
    entry: Entry | None


class ChainCheck:
    """Follows one chain in the order of its places. Pure."""

    def __init__(self, chain: str) -> None:
        self.chain = chain
        self.last = End()

    def take(self, link: Link) -> Iterator[Finding]:
        """Look at the next event."""
        expected, previous = self.last.sequence + 1, self.last.hash
        self.last = End(link.sequence, link.hash)
        if link.sequence > expected:
            yield Finding(self.chain, expected, "missing")  # what it follows cannot be told
        elif link.sequence < expected:
            yield Finding(self.chain, link.sequence, "out_of_line")
        elif link.entry is None or link.entry.hash_after(previous) != link.hash:
            yield Finding(self.chain, link.sequence, "broken")

    def end(self, kept: End | None) -> Iterator[Finding]:
        """Compare the last event with the end of the chain, as it is kept."""
        last = self.last
        if kept is None:
            yield Finding(self.chain, last.sequence, "end_missing")
        elif last.sequence < kept.sequence:
            yield Finding(self.chain, last.sequence + 1, "cut_off")
        elif last.sequence > kept.sequence:
            yield Finding(self.chain, kept.sequence + 1, "beyond_end")
        elif last.hash != kept.hash:
            yield Finding(self.chain, last.sequence, "end_changed")


@dataclass(slots=True)
class Verdict:
    """What came of looking at chains.

    Attributes:
        events: How many were looked at.
        ends: Of every chain, as its events have it.
        findings: In the order of chains and places, `most` of them.
        more: How many findings are left out.
    """

    events: int
    ends: dict[str, End]
    findings: list[Finding]
    more: int = 0

    @property
    def whole(self) -> bool:
        """Nothing is wrong."""
        return not self.findings


async def verify(
    database: Database,
    chain: str | None = None,
    *,
    most: int = 1000,
    told: Callable[[int, int], None] = lambda done, all_: None,
) -> Verdict:
    """Look at every event of every chain, as they are at one moment.

    Args:
        database: Whose statements may take some seconds.
        chain: This one alone: `org_…` or `gateway`; None: all.
        most: Findings to list.
        told: Told now and then how many events were looked at, and of how many.

    Raises:
        DatabaseUnavailable: PostgreSQL cannot be asked now.
    """
    verdict = Verdict(0, {}, [])
    async with _one_moment(database) as connection:
        kept = {row["chain"]: End(row["sequence"], row["hash"]) for row in await connection.fetch(*_of(_ENDS, chain))}
        total = sum(end.sequence for end in kept.values())
        check: ChainCheck | None = None
        async for rows in _batches(connection, _EVENTS, chain):
            for row in rows:
                link = _link(row)
                if check is None or link.chain != check.chain:
                    if check is not None:
                        _finish(verdict, check, kept, most)
                    check = ChainCheck(link.chain)
                _note(verdict, check.take(link), most)
            verdict.events += len(rows)
            told(verdict.events, total)
        if check is not None:
            _finish(verdict, check, kept, most)
    for name in sorted(kept.keys() - verdict.ends.keys()):
        _finish(verdict, ChainCheck(name), kept, most)
    return verdict


@dataclass(frozen=True, slots=True)
class Kept:
    """An event as it is exported: with its place, its hash, and the hash before it."""

    entry: Entry
    sequence: int
    hash: bytes
    previous: bytes


async def has_chain(database: Database, chain: str) -> bool:
    """Tell whether there is a chain: its end, or an event of it.

    Raises:
        DatabaseUnavailable: PostgreSQL cannot be asked now.
    """
    async with database.connection() as connection:
        return bool(await connection.fetchval(_HAS_CHAIN, chain))


async def export(
    database: Database, chain: str | None = None, since: datetime | None = None, until: datetime | None = None
) -> AsyncGenerator[Kept, None]:
    """Read events as they are at one moment, chain by chain, each in its order; memory holds some thousands.

    Args:
        database: Whose statements may take some seconds.
        chain: As for `verify`.
        since: From this moment on.
        until: Up to this moment, without it.

    Raises:
        DatabaseUnavailable: PostgreSQL cannot be asked now.
    """
    # A left join, since the event before may be missing, or before `since`.
    joined = f"""
        SELECT {", ".join(f"e.{column.strip()}" for column in ENTRY_COLUMNS.split(","))}, e.sequence, e.hash,
               p.hash AS previous
        FROM audit_events e LEFT JOIN audit_events p ON p.chain = e.chain AND p.sequence = e.sequence - 1
        WHERE ($1::timestamptz IS NULL OR e.occurred_at >= $1) AND ($2::timestamptz IS NULL OR e.occurred_at < $2)
          AND ($3::text IS NULL OR e.chain = $3)
        ORDER BY e.chain, e.sequence
    """  # noqa: S608 - column names of our own
    async with _one_moment(database) as connection:
        cursor = await connection.cursor(joined, since, until, chain)
        while rows := await cursor.fetch(FETCHED):
            for row in rows:
                yield Kept(entry_of(row), row["sequence"], row["hash"], row["previous"] or FIRST_HASH)


@asynccontextmanager
async def _one_moment(database: Database) -> AsyncIterator[Connection]:
    """Lend a connection that sees everything as it was when it began: nothing that is appended meanwhile."""
    async with (
        database.connection() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        yield connection


async def _batches(connection: Connection, statement: str, chain: str | None) -> AsyncIterator[list[Row]]:
    text, *arguments = _of(statement, chain)
    cursor = await connection.cursor(f"{text} {_IN_ORDER}", *arguments)
    while rows := await cursor.fetch(FETCHED):
        yield rows


def _of(statement: str, chain: str | None) -> tuple[str, ...]:
    return (statement,) if chain is None else (f"{statement} WHERE chain = $1", chain)


def _link(row: Row) -> Link:
    entry = entry_of(row) if row["occurred_at"] is not None else None
    return Link(row["chain"], row["sequence"], row["hash"], entry)


def _note(verdict: Verdict, findings: Iterator[Finding], most: int) -> None:
    for finding in findings:
        if len(verdict.findings) < most:
            verdict.findings.append(finding)
        else:
            verdict.more += 1


def _finish(verdict: Verdict, check: ChainCheck, kept: dict[str, End], most: int) -> None:
    verdict.ends[check.chain] = check.last
    _note(verdict, check.end(kept.get(check.chain)), most)
