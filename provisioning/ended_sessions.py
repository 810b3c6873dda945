"""Sessions that are over before their tokens are: the rows by which every process, and every later one, denies them.

Written within the transaction of what ends them, in any order and as often as it is told. Rows only grow: a moment
moves on, and a life is never shortened but by `confirm`. All times are the database's; readers get seconds left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from asyncpg import Record as Row

from provisioning.database.pool import Connection, Database

OVERLAP = timedelta(seconds=30)
"""Rows may be seen this long after they were written: a transaction lasts seconds at most."""
UNCONFIRMED_S = 30 * 86400.0
"""How long a session is denied that Clerk may still give tokens: well over what sessions live at Clerk by default."""
BATCH = 1000

_NOTE_SESSIONS = """
    INSERT INTO ended_sessions AS e (session_id, clerk_user_id, noted_at, until)
    SELECT DISTINCT session_id, $2::text, clock_timestamp(), now() + $3::interval FROM unnest($1::text[]) AS session_id
    ORDER BY session_id
    ON CONFLICT (session_id) DO UPDATE
        SET until = greatest(e.until, excluded.until),
            clerk_user_id = coalesce(e.clerk_user_id, excluded.clerk_user_id),
            noted_at = CASE WHEN excluded.until > e.until + interval '1 minute'
                            THEN excluded.noted_at ELSE e.noted_at END
"""
_NOTE_SIGN_OUT = """
    INSERT INTO signed_out AS s (clerk_user_id, acting, before, noted_at, until)
    VALUES ($1, $4, $2, clock_timestamp(), greatest(now(), $2::timestamptz) + $3::interval)
    ON CONFLICT (clerk_user_id, acting) DO UPDATE
        SET before = greatest(s.before, excluded.before), until = greatest(s.until, excluded.until),
            noted_at = CASE WHEN excluded.before > s.before THEN excluded.noted_at ELSE s.noted_at END
"""
_SEEN = "SELECT session_id FROM logins WHERE user_id = $1 AND seen_at > now() - $2::interval ORDER BY session_id"
_CONFIRM = """
    UPDATE ended_sessions SET until = least(until, now() + $2::interval)
    WHERE clerk_user_id = $1 AND (noted_at <= $3 OR session_id = ANY($4::text[])) AND until > now() + $2::interval
"""
_SESSIONS = """
    SELECT e.session_id, e.clerk_user_id, u.id AS user_id, extract(epoch FROM e.until - now())::float8 AS for_s
    FROM ended_sessions e LEFT JOIN users u ON u.clerk_id = e.clerk_user_id
    WHERE e.until > now() AND e.noted_at > $1 ORDER BY e.noted_at LIMIT $2
"""
_PEOPLE = """
    SELECT s.clerk_user_id, s.acting, u.id AS user_id, extract(epoch FROM s.before)::float8 AS before,
           extract(epoch FROM s.until - now())::float8 AS for_s
    FROM signed_out s LEFT JOIN users u ON u.clerk_id = s.clerk_user_id
    WHERE s.until > now() AND s.noted_at > $1 ORDER BY s.noted_at LIMIT $2
"""
_ASK_SESSIONS = "SELECT session_id FROM ended_sessions WHERE session_id = ANY($1::text[]) AND until > now()"
_ASK_PEOPLE = """
    SELECT clerk_user_id, acting, extract(epoch FROM before)::float8 AS before FROM signed_out
    WHERE clerk_user_id = ANY($1::text[]) AND until > now()
"""
_FORGET = """
    DELETE FROM {table} WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM {table} WHERE until <= now() ORDER BY until LIMIT {batch} FOR UPDATE SKIP LOCKED
    ))
"""
_BEGINNING = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


@dataclass(frozen=True, slots=True)
class EndedSession:
    """One session that is over.

    Attributes:
        session_id: `sess_…`.
        clerk_user_id: Whose, `user_…`; None: it was not told.
        user_id: The same person as we know them, `usr_…`; None: we do not.
        for_s: Seconds until its last token has died.
    """

    session_id: str
    clerk_user_id: str | None
    user_id: str | None
    for_s: float


@dataclass(frozen=True, slots=True)
class SignedOutPerson:
    """One who was signed out everywhere: what they were given up to `before`, Unix seconds, counts no more.

    Attributes:
        acting: Only what they were given as somebody else; who they are themselves, our records judge.
    """

    clerk_user_id: str
    acting: bool
    user_id: str | None
    before: float
    for_s: float


@dataclass(frozen=True, slots=True)
class Ends:
    """What is denied.

    Attributes:
        sessions: The ones noted first, first.
        people: Likewise.
        as_of: Of the database: rows that were written before are all in here, but for those within OVERLAP.
    """

    sessions: Sequence[EndedSession]
    people: Sequence[SignedOutPerson]
    as_of: datetime


async def note_sessions(
    connection: Connection, session_ids: Sequence[str], clerk_user_id: str | None, for_s: float
) -> None:
    """Write down inside the caller's transaction that sessions are over.

    Args:
        connection: Within a transaction.
        session_ids: `sess_…`.
        clerk_user_id: Whose they are; None: it is not known.
        for_s: Seconds from now until their last token has died.
    """
    if session_ids:
        await connection.execute(_NOTE_SESSIONS, list(session_ids), clerk_user_id, timedelta(seconds=for_s))


async def note_sign_out(
    connection: Connection, clerk_user_id: str, before: datetime, for_s: float, *, acting: bool = False
) -> None:
    """Write down inside the caller's transaction that what a person was given up to a moment counts no more.

    Args:
        connection: Within a transaction.
        clerk_user_id: `user_…`.
        before: By Clerk's clock.
        for_s: Seconds that a token issued then lives, and what is minted for it.
        acting: Only what they were given as somebody else.
    """
    await connection.execute(_NOTE_SIGN_OUT, clerk_user_id, before, timedelta(seconds=for_s), acting)


async def seen_sessions(connection: Connection, user_id: str) -> list[str]:
    """Give the sessions with which a person came here lately, those of somebody who acted as them too."""
    return [row["session_id"] for row in await connection.fetch(_SEEN, user_id, timedelta(seconds=UNCONFIRMED_S))]


async def confirm(
    connection: Connection, clerk_user_id: str, noted_by: datetime, session_ids: Sequence[str], for_s: float
) -> None:
    """Keep what was noted of a person's sessions no longer than their tokens live: Clerk has ended them itself.

    Args:
        connection: To write with.
        clerk_user_id: Whose.
        noted_by: Those that were noted up to then, and
        session_ids: these.
        for_s: Seconds from now.
    """
    await connection.execute(_CONFIRM, clerk_user_id, timedelta(seconds=for_s), noted_by, list(session_ids))


class EndedSessions:
    """Reads and prunes the rows. Every method raises `DatabaseUnavailable` while PostgreSQL is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, since: datetime | None, most: int) -> Ends:
        """Read what is denied now.

        Args:
            since: `Ends.as_of` of an earlier reading: only what may have come since; None: everything.
            most: Rows of each kind.
        """
        after = since - OVERLAP if since is not None else _BEGINNING
        async with self._database.connection() as connection:
            as_of = await connection.fetchval("SELECT clock_timestamp()")
            sessions = await connection.fetch(_SESSIONS, after, most)
            people = await connection.fetch(_PEOPLE, after, most)
        return Ends(
            [EndedSession(row["session_id"], row["clerk_user_id"], row["user_id"], row["for_s"]) for row in sessions],
            [_signed_out_of(row) for row in people],
            as_of,
        )

    async def ask(
        self, session_ids: list[str], clerk_user_ids: list[str]
    ) -> tuple[list[str], dict[tuple[str, bool], float]]:
        """Give those of the sessions that are over, and the moments up to which people are signed out.

        Returns:
            Moments by person, and whether only what they did as somebody else is over; Unix seconds.
        """
        async with self._database.connection() as connection:
            ended = [row["session_id"] for row in await connection.fetch(_ASK_SESSIONS, session_ids)]
            people = await connection.fetch(_ASK_PEOPLE, clerk_user_ids)
        return ended, {(row["clerk_user_id"], row["acting"]): row["before"] for row in people}

    async def forget_dead(self) -> int:
        """Delete rows that no living token can meet any more; gives how many."""
        done = 0
        for table in ("ended_sessions", "signed_out"):
            statement = _FORGET.format(table=table, batch=BATCH)
            rows = BATCH
            while rows == BATCH:
                async with self._database.connection() as connection:
                    rows = int((await connection.execute(statement)).rpartition(" ")[2])
                done += rows
        return done


def _signed_out_of(row: Row) -> SignedOutPerson:
    return SignedOutPerson(row["clerk_user_id"], row["acting"], row["user_id"], row["before"], row["for_s"])
