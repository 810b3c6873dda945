"""What `gateway audit` does for operators: it asks PostgreSQL itself, whether or not a gateway is running."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import asyncpg
import orjson

from config.model import Settings
from gateway.commands.tokens import CommandFailed, Printed, json_text
from gateway.report import failure_text
from provisioning.audit_check import MEANING, Finding, Kept, Verdict, export, has_chain, verify
from provisioning.database.pool import Database
from provisioning.errors import ProvisioningError

T = TypeVar("T")
STATEMENT_TIMEOUT_S = 300.0
"""Nobody's request waits for this, and a first row may need a sort of everything."""
_WRITTEN_AT_ONCE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Range:
    """Moments, as an operator writes them; None: open."""

    since: str | None = None
    until: str | None = None


def verify_chains(settings: Settings, organization: str | None, *, as_json: bool) -> Printed:
    """Look whether chains are whole; the exit code is 1 when they are not.

    Raises:
        CommandFailed: They could not be read, or there is no such chain.
    """
    with _progress() as told:
        verdict = _run(settings, lambda database: verify(database, organization, told=told))
    if organization is not None and not verdict.ends:
        raise _no_chain(organization)
    code = 0 if verdict.whole else 1
    if as_json:
        return Printed((json_text(_facts(verdict)),), code=code)
    counted = f"{len(verdict.ends)} chains, {verdict.events} events"
    if verdict.whole:
        return Printed((f"{counted}: whole",))
    more = (f"and {verdict.more} more",) if verdict.more else ()
    return Printed((*map(str, verdict.findings), *more, f"{counted}: NOT whole"), code=code)


def export_events(settings: Settings, organization: str | None, wanted: Range) -> Printed:
    """Write events to standard output, one JSON object a line, as they come.

    Raises:
        CommandFailed: They could not be read, or a moment cannot, or there is no such chain.
    """
    since, until = _moment("--since", wanted.since), _moment("--until", wanted.until)

    async def write(database: Database) -> None:
        if organization is not None and not await has_chain(database, organization):
            raise _no_chain(organization)
        lines = bytearray()
        async with aclosing(export(database, organization, since, until)) as exported:
            async for kept in exported:
                lines += _line(kept)
                if len(lines) >= _WRITTEN_AT_ONCE:
                    sys.stdout.write(lines.decode())
                    lines.clear()
        sys.stdout.write(lines.decode())

    _run(settings, write)
    return Printed()


def _no_chain(organization: str) -> CommandFailed:
    return CommandFailed(f"there is no audit chain of {organization}; name our id of an organization, or gateway")


def _line(kept: Kept) -> bytes:
    """Write one event so that its hash can be computed anew: `metadata` is the very text that was hashed."""
    entry = kept.entry
    document = {
        "chain": entry.chain,
        "sequence": kept.sequence,
        "hash": kept.hash.hex(),
        "previousHash": kept.previous.hex(),
        "id": entry.id,
        "action": entry.action,
        "actorKind": entry.actor_kind,
        "actorId": entry.actor_id,
        "impersonatorId": entry.impersonator_id,
        "targets": entry.targets,
        "address": entry.address,
        "userAgent": entry.user_agent,
        "requestId": entry.request_id,
        "metadata": entry.metadata,
        "occurredAt": entry.occurred_at.astimezone(UTC).isoformat(timespec="microseconds"),
    }
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def _facts(verdict: Verdict) -> dict[str, object]:
    def fact(finding: Finding) -> dict[str, object]:
        return {
            "chain": finding.chain,
            "sequence": finding.sequence,
            "wrong": finding.wrong,
            "meaning": MEANING[finding.wrong],
        }

    return {
        "whole": verdict.whole,
        "events": verdict.events,
        "findings": [fact(finding) for finding in verdict.findings],
        "moreFindings": verdict.more,
        "ends": [
            {"chain": chain, "sequence": end.sequence, "hash": end.hash.hex()} for chain, end in verdict.ends.items()
        ],
    }


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CommandFailed(f"{option}: write an ISO 8601 moment, such as 2030-01-31T12:00:00Z") from None
    return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Show how far it is, where somebody looks on."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("events", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _run(settings: Settings, ask: Callable[[Database], Awaitable[T]]) -> T:
    secret = settings.database.direct_url or settings.database.url
    if secret is None:
        raise CommandFailed("database.url is not set")

    async def run() -> T:
        async with Database(secret.get_secret_value(), pool_size=1, statement_timeout=STATEMENT_TIMEOUT_S) as database:
            return await ask(database)

    try:
        return asyncio.run(run())
    except asyncpg.UndefinedTableError:
        raise CommandFailed("the schema is behind; run `gateway migrate`") from None
    except BrokenPipeError:
        raise  # whoever read it has enough
    except OverflowError:  # a moment that nobody here wrote
        raise CommandFailed("an event cannot be read; see `gateway audit verify`") from None
    except (OSError, ProvisioningError) as error:
        raise CommandFailed(failure_text(error)) from error
