"""What `gateway outbox` does for operators: it asks PostgreSQL itself, whether or not a gateway is running."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

import asyncpg

from config.model import Settings
from gateway.commands.tokens import STATEMENT_TIMEOUT_S, CommandFailed, Printed, json_text
from gateway.report import failure_text
from provisioning.database.pool import Database
from provisioning.errors import ProvisioningError
from provisioning.outbox.queue import Listed, Queue

T = TypeVar("T")
MOST = 1000
_HEADINGS = ("ID", "TOPIC", "KIND", "KEY", "STATE", "ATTEMPTS", "LAST ERROR", "CREATED", "NEXT ATTEMPT")


def list_of(settings: Settings, topic: str | None, *, dead: bool, as_json: bool) -> Printed:
    """List what is not delivered, the oldest 1000.

    Raises:
        CommandFailed: It could not be read.
    """
    found = _run(settings, lambda queue: queue.listed(topic, dead=dead, most=MOST))
    if as_json:
        return Printed((json_text({"items": [_facts(row) for row in found]}),))
    if not found:
        return Printed(err=("nothing was given up" if dead else "everything is delivered",))
    more = (f"these are the oldest {MOST}",) if len(found) == MOST else ()
    return Printed(err=more, rows=(_HEADINGS, *(_cells(row) for row in found)))


def retry(settings: Settings, row_id: int | None, *, as_json: bool) -> Printed:
    """Let one be tried now, whether it was given up or waits for its next attempt; None: all that were given up.

    Raises:
        CommandFailed: There is no such row, it is delivered, or somebody delivers it right now.
    """
    rows = _run(settings, lambda queue: queue.retry(row_id))
    if row_id is not None and not rows:
        raise CommandFailed("there is no such row that was given up or waits; see gateway outbox list")
    if as_json:
        return Printed((json_text({"retried": rows}),))
    return Printed((f"{rows} will be tried now",))


def _facts(row: Listed) -> dict[str, object]:
    return {
        "id": row.id,
        "topic": row.topic,
        "kind": row.kind,
        "key": row.key,
        "state": row.state,
        "attempts": row.attempts,
        "lastError": row.last_error,
        "createdAt": _shown(row.created_at),
        "nextAttemptAt": _shown(row.next_attempt_at) if row.state == "pending" else None,
    }


def _cells(row: Listed) -> tuple[str, ...]:
    facts = _facts(row)
    names = ("id", "topic", "kind", "key", "state", "attempts", "lastError", "createdAt", "nextAttemptAt")
    return tuple("-" if facts[name] is None else str(facts[name]) for name in names)


def _shown(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _run(settings: Settings, ask: Callable[[Queue], Awaitable[T]]) -> T:
    secret = settings.database.direct_url or settings.database.url
    if secret is None:
        raise CommandFailed("database.url is not set")

    async def run() -> T:
        async with Database(secret.get_secret_value(), pool_size=1, statement_timeout=STATEMENT_TIMEOUT_S) as database:
            return await ask(Queue(database))

    try:
        return asyncio.run(run())
    except asyncpg.UndefinedTableError:
        raise CommandFailed("the schema is behind; run `gateway migrate`") from None
    except (OSError, ProvisioningError) as error:
        raise CommandFailed(failure_text(error)) from error
