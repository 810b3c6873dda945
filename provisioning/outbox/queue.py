"""The table `outbox`: written within the transaction that causes an effect, worked off beside it.

A row that is taken up is due again when its lease ends: who dies in between holds nothing that must be released, and
no connection is held while a receiver is waited for. All times are the database's, so that no replica's clock counts.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import orjson
from asyncpg import Record as Row

from provisioning.database.pool import Connection, Database
from provisioning.outbox.effects import AWAY, Delivery, Effect, Reason, Topic

CHANNEL = "gateway_outbox"
BATCH = 500
DEAD_KEPT_FOR = timedelta(days=90)
REJECTIONS = 5
"""A receiver may say so often that it does not take this one; then it is believed."""

_ENQUEUE = f"""
    WITH queued AS (
        INSERT INTO outbox (topic, kind, key, stream, payload)
        SELECT topic, kind, key, stream, payload::jsonb
        FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) AS e (topic, kind, key, stream, payload)
        ON CONFLICT (topic, key) DO NOTHING RETURNING topic
    )
    SELECT pg_notify('{CHANNEL}', topic) FROM (SELECT DISTINCT topic FROM queued) AS topics
"""  # noqa: S608 - a constant of our own, here and below
# MATERIALIZED: the rows are chosen and locked once, whatever plan is made for the rest. Of a stream only the first that
# is pending is taken. Those behind it are put off, for long while it waits for its next attempt, so that an outage does
# not have all of them looked at again and again; whoever ends the first lets the next go on. The lease begins when a
# row is taken, not when a statement that had to wait began: that is what now() would say.
_TAKE = """
    WITH due AS MATERIALIZED (
        SELECT id, stream FROM outbox
        WHERE topic = $1 AND state = 'pending' AND next_attempt_at <= now()
        ORDER BY next_attempt_at, id LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
    ), judged AS MATERIALIZED (
        SELECT due.id, (
            SELECT CASE
                WHEN first.taken_by IS NULL AND first.next_attempt_at > now()
                THEN first.next_attempt_at + interval '10 minutes' ELSE now() + interval '1 second'
            END
            FROM outbox AS first
            WHERE first.topic = $1 AND first.stream = due.stream AND first.state = 'pending' AND first.id < due.id
            ORDER BY first.id LIMIT 1
        ) AS not_before FROM due
    ), put_off AS (
        UPDATE outbox AS o SET next_attempt_at = judged.not_before
        FROM judged WHERE o.id = judged.id AND judged.not_before IS NOT NULL
        RETURNING o.id
    ), taken AS (
        UPDATE outbox AS o SET
            attempts = o.attempts + 1, first_attempt_at = coalesce(o.first_attempt_at, now()),
            taken_by = $3, next_attempt_at = clock_timestamp() + $4::interval
        FROM judged WHERE o.id = judged.id AND judged.not_before IS NULL
        RETURNING o.id, o.topic, o.kind, o.key, o.payload, o.created_at, o.attempts
    )
    SELECT others.put_off, taken.* FROM (SELECT count(*) AS put_off FROM put_off) AS others LEFT JOIN taken ON true
    ORDER BY taken.id
"""
# Of rows named `ended`, with their topics and streams: whoever comes after them.
_LET_THE_NEXT_GO_ON = """
    UPDATE outbox AS o SET next_attempt_at = now()
    FROM ended
    WHERE o.state = 'pending' AND o.taken_by IS NULL AND o.next_attempt_at > now() AND o.id = (
        SELECT min(next.id) FROM outbox AS next
        WHERE next.topic = ended.topic AND next.stream = ended.stream AND next.state = 'pending' AND next.id > ended.id
    )
"""
_DELIVERED = f"""
    WITH ended AS (
        UPDATE outbox SET
            state = 'delivered', finished_at = now(), taken_by = NULL, last_error = NULL, payload = '{{}}'
        WHERE id = ANY($1::bigint[]) AND taken_by = $2
        RETURNING id, topic, stream
    ) {_LET_THE_NEXT_GO_ON}
"""  # noqa: S608
_FAILED = f"""
    WITH failed AS (
        UPDATE outbox AS o SET
            taken_by = NULL, last_error = $3, next_attempt_at = now() + $4::interval,
            rejections = o.rejections + $5::integer,
            state = CASE WHEN judged.over THEN 'dead' ELSE 'pending' END,
            finished_at = CASE WHEN judged.over THEN now() END
        FROM (
            SELECT id, rejections + $5::integer >= {REJECTIONS} OR first_attempt_at <= now() - $6::interval AS over
            FROM outbox WHERE id = $1
        ) AS judged
        WHERE o.id = judged.id AND o.taken_by = $2
        RETURNING o.id, o.topic, o.stream, o.state
    ), ended AS (
        SELECT id, topic, stream FROM failed WHERE state = 'dead'
    ), gone_on AS (
        {_LET_THE_NEXT_GO_ON}
    )
    SELECT state FROM failed
"""  # noqa: S608
_RELEASE = """
    UPDATE outbox SET taken_by = NULL, attempts = attempts - 1, next_attempt_at = now()
    WHERE id = ANY($1::bigint[]) AND taken_by = $2
"""
_HURRY = """
    UPDATE outbox SET next_attempt_at = now()
    WHERE topic = $1 AND state = 'pending' AND taken_by IS NULL AND next_attempt_at > now()
      AND last_error = ANY($2::text[])
"""
_DUE = """
    SELECT t.topic FROM unnest($1::text[]) AS t (topic)
    WHERE EXISTS (
        SELECT FROM outbox AS o WHERE o.topic = t.topic AND o.state = 'pending' AND o.next_attempt_at <= now()
    )
"""
_DEPTH = """
    SELECT topic, 'pending' AS state, count(*) AS rows, extract(epoch FROM now() - min(created_at))::float8 AS oldest_s
    FROM outbox WHERE state = 'pending' GROUP BY topic
    UNION ALL SELECT topic, 'dead', count(*), 0 FROM outbox WHERE state = 'dead' GROUP BY topic
"""
_PRUNE = f"""
    DELETE FROM outbox WHERE id IN (
        SELECT id FROM outbox WHERE state = $1 AND finished_at <= now() - $2::interval
        ORDER BY finished_at LIMIT {BATCH} FOR UPDATE SKIP LOCKED
    ) RETURNING id
"""  # noqa: S608
_LIST = """
    SELECT id, topic, kind, key, state, created_at, next_attempt_at, attempts, last_error,
           taken_by IS NOT NULL AND next_attempt_at > now() AS is_taken
    FROM outbox WHERE state <> 'delivered' AND ($1::text IS NULL OR topic = $1) AND (NOT $2 OR state = 'dead')
    ORDER BY id LIMIT $3
"""
# A row that somebody is delivering keeps its lease: two would deliver it at a time.
_RETRY = f"""
    WITH again AS (
        UPDATE outbox SET
            state = 'pending', next_attempt_at = now(), first_attempt_at = NULL, rejections = 0, finished_at = NULL
        WHERE (id = $1 OR $1 IS NULL)
          AND (state = 'dead' OR (state = 'pending' AND taken_by IS NULL AND $1 IS NOT NULL))
        RETURNING topic
    ), told AS (
        SELECT pg_notify('{CHANNEL}', topic) FROM (SELECT DISTINCT topic FROM again) AS topics
    )
    SELECT (SELECT count(*) FROM again) AS rows, (SELECT count(*) FROM told) AS told
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Taken:
    """Rows taken up together.

    Attributes:
        name: Tells this taking up from a later one of the same rows.
    """

    name: str
    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True, slots=True)
class Depth:
    """What waits in one topic.

    Attributes:
        oldest_s: Age of the oldest that waits; 0: none does.
        dead: What was given up.
    """

    pending: int = 0
    oldest_s: float = 0.0
    dead: int = 0


@dataclass(frozen=True, slots=True)
class Listed:
    """One row as operators see it.

    Attributes:
        state: `pending`, `delivering` or `dead`.
        last_error: A word of `Reason`; None: no attempt has failed yet.
    """

    id: int
    topic: str
    kind: str
    key: str
    state: Literal["pending", "delivering", "dead"]
    created_at: datetime
    next_attempt_at: datetime
    attempts: int
    last_error: str | None


async def enqueue(connection: Connection, *effects: Effect) -> None:
    """Write effects down inside the caller's transaction, before its audit events: they stay with it or go with it.

    An effect whose key is there already is left out, whatever became of the first. Workers hear of the rest as soon as
    the transaction commits.
    """
    if not effects:
        return
    columns = ([getattr(effect, name) for effect in effects] for name in ("topic", "kind", "key", "stream"))
    payloads = [orjson.dumps(effect.payload).decode() for effect in effects]
    await connection.execute(_ENQUEUE, *columns, payloads)


class Queue:
    """Works the table off. Every method raises `DatabaseUnavailable` while PostgreSQL is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, topic: Topic, most: int, lease_s: float) -> Taken:
        """Take up what is due, the longest waiting first; nobody else gets it while the lease lasts.

        Args:
            topic: Of all of them.
            most: How many at once.
            lease_s: Seconds after which they are due again, if nothing is heard of them.
        """
        name = secrets.token_hex(8)
        while True:
            async with self._database.connection() as connection:
                rows = await connection.fetch(_TAKE, topic, most, name, timedelta(seconds=lease_s))
            deliveries = tuple(_delivery_of(row) for row in rows if row["id"] is not None)
            if deliveries or not rows[0]["put_off"]:
                return Taken(name, deliveries)

    async def delivered(self, taken: Taken, ids: Sequence[int]) -> None:
        """Note that these are done; their payloads, which may name people, are erased."""
        async with self._database.connection() as connection:
            await connection.execute(_DELIVERED, ids, taken.name)

    async def failed(
        self, taken: Taken, delivery: Delivery, reason: Reason, delay_s: float, give_up_after_s: float
    ) -> Literal["pending", "dead"] | None:
        """Note that one was not delivered.

        Args:
            taken: That it was taken up with.
            delivery: Which.
            reason: Why.
            delay_s: Seconds until it is tried again.
            give_up_after_s: Seconds since its first attempt after which it is not.

        Returns:
            What it is now; None: its lease had ended, and somebody else has it.
        """
        async with self._database.connection() as connection:
            state: Literal["pending", "dead"] | None = await connection.fetchval(
                _FAILED,
                delivery.id,
                taken.name,
                reason,
                timedelta(seconds=delay_s),
                int(reason == "rejected"),
                timedelta(seconds=give_up_after_s),
            )
        return state

    async def release(self, taken: Taken, ids: Sequence[int]) -> None:
        """Give back what was not tried."""
        async with self._database.connection() as connection:
            await connection.execute(_RELEASE, ids, taken.name)

    async def hurry(self, topic: Topic) -> None:
        """Let all that failed because the receiver was away be tried now: it is back."""
        async with self._database.connection() as connection:
            await connection.execute(_HURRY, topic, sorted(AWAY))

    async def due(self, topics: Iterable[Topic]) -> frozenset[Topic]:
        """Tell in which topics something is due."""
        async with self._database.connection() as connection:
            return frozenset(row["topic"] for row in await connection.fetch(_DUE, list(topics)))

    async def depth(self) -> Mapping[str, Depth]:
        """Count what waits and what was given up, by topic."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_DEPTH)
        waiting = {row["topic"]: row for row in rows if row["state"] == "pending"}
        dead = {row["topic"]: int(row["rows"]) for row in rows if row["state"] == "dead"}
        return {
            topic: Depth(
                int(waiting[topic]["rows"]) if topic in waiting else 0,
                max(0.0, float(waiting[topic]["oldest_s"])) if topic in waiting else 0.0,
                dead.get(topic, 0),
            )
            for topic in {*waiting, *dead}
        }

    async def prune(self, keep_delivered_s: float) -> int:
        """Delete what was delivered that long ago, and what has been dead for 90 days; gives how many rows."""
        pruned = 0
        for state, kept in (("delivered", timedelta(seconds=keep_delivered_s)), ("dead", DEAD_KEPT_FOR)):
            rows = BATCH
            while rows == BATCH:
                async with self._database.connection() as connection:
                    rows = len(await connection.fetch(_PRUNE, state, kept))
                pruned += rows
        return pruned

    async def listed(self, topic: str | None, *, dead: bool, most: int) -> tuple[Listed, ...]:
        """List what is not delivered, the oldest first.

        Args:
            topic: Only of this one; None: of all.
            dead: Only what was given up.
            most: How many rows.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(_LIST, topic, dead, most)
        return tuple(_listed_of(row) for row in rows)

    async def retry(self, row_id: int | None) -> int:
        """Let one that is dead or waits be tried now, as if for the first time; None: all that are dead.

        Returns:
            How many will be.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_RETRY, row_id)
        return int(row["rows"]) if row is not None else 0


def _delivery_of(row: Row) -> Delivery:
    payload = orjson.loads(row["payload"])
    return Delivery(row["id"], row["topic"], row["kind"], row["key"], payload, row["created_at"], row["attempts"])


def _listed_of(row: Row) -> Listed:
    return Listed(
        row["id"],
        row["topic"],
        row["kind"],
        row["key"],
        "delivering" if row["is_taken"] else row["state"],
        row["created_at"],
        row["next_attempt_at"],
        row["attempts"],
        row["last_error"],
    )
