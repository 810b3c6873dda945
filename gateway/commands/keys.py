"""What `gateway keys` does for operators: it asks PostgreSQL itself, whether or not a gateway is running."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import asyncpg

from config.model import Settings
from gateway.commands.tokens import STATEMENT_TIMEOUT_S, CommandFailed, Printed, json_text
from gateway.identity.ring_settings import ring_records, rotation_rules
from gateway.report import failure_text
from provisioning.database.pool import Database
from provisioning.errors import ProvisioningError, SealBroken
from provisioning.key_ring import unopened_text
from provisioning.ring_records import KeyRow, RingRecords
from provisioning.signing_key import RotationRules, over_at, state_of

T = TypeVar("T")
_HEADINGS = ("KID", "STATE", "SIGNS FROM", "OVER AT", "OPENS")
_LOCK_POLL_S = 0.05
_LOCK_WAIT_S = 10.0


def list_of(settings: Settings, *, as_json: bool) -> Printed:
    """List the keys of the ring, and whether they open under this master key.

    Raises:
        CommandFailed: They could not be read.
    """
    rows, records = _run(settings, _read)
    return _printed(rows, records, rotation_rules(settings), as_json=as_json)


def rotate(settings: Settings, *, now: bool, discard: bool, as_json: bool) -> Printed:
    """Make the next key out of turn.

    Args:
        settings: Loaded.
        now: It signs at once, not only after `keys.publish_ahead`.
        discard: Delete all other keys: what they signed is refused from now on. The new one signs at once.
        as_json: Print one JSON object.

    Raises:
        CommandFailed: It could not be made.
    """

    async def ask(records: RingRecords) -> tuple[list[KeyRow], RingRecords]:
        if not discard:
            for row in await records.read():
                _check(row, records)
        moment = time.time()
        signs_from = moment if now or discard else moment + settings.keys.publish_ahead
        async with asyncio.timeout(_LOCK_WAIT_S):
            while (rows := await records.rotate(signs_from, moment, discard=discard)) is None:  # noqa: ASYNC110
                await asyncio.sleep(_LOCK_POLL_S)
        return rows, records

    rows, records = _run(settings, ask)
    return _printed(rows, records, rotation_rules(settings), as_json=as_json)


async def _read(records: RingRecords) -> tuple[list[KeyRow], RingRecords]:
    return await records.read(), records


def _check(row: KeyRow, records: RingRecords) -> None:
    """Refuse to put a key beside others that open under another master key only: no replica could start."""
    try:
        row.open(records.sealer)
    except SealBroken as error:
        raise CommandFailed(unopened_text(row.kid)) from error


def _printed(rows: Sequence[KeyRow], records: RingRecords, rules: RotationRules, *, as_json: bool) -> Printed:
    if as_json:
        return Printed((json_text({"items": [_facts(row, rows, records, rules) for row in rows]}),))
    if not rows:
        return Printed(err=("no signing keys yet; the first start of `gateway serve` makes one",))
    return Printed(rows=(_HEADINGS, *(_cells(_facts(row, rows, records, rules)) for row in rows)))


def _facts(row: KeyRow, rows: Sequence[KeyRow], records: RingRecords, rules: RotationRules) -> dict[str, object]:
    ends = over_at(rows, row, rules)
    try:
        row.open(records.sealer)
        opens = True
    except SealBroken:
        opens = False
    return {
        "kid": row.kid,
        "state": state_of(rows, row, rules, time.time()).value,
        "signsFrom": _shown(row.signs_from),
        "overAt": None if ends is None else _shown(ends),
        "createdAt": _shown(row.created_at),
        "opens": opens,
    }


def _cells(facts: dict[str, object]) -> tuple[str, ...]:
    opens = "yes" if facts["opens"] else "NO: another master key, or damage"
    return str(facts["kid"]), str(facts["state"]), str(facts["signsFrom"]), str(facts["overAt"] or "-"), opens


def _shown(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _run(settings: Settings, ask: Callable[[RingRecords], Awaitable[T]]) -> T:
    secret = settings.database.direct_url or settings.database.url
    if secret is None:
        raise CommandFailed("database.url is not set")

    async def run() -> T:
        async with Database(secret.get_secret_value(), pool_size=1, statement_timeout=STATEMENT_TIMEOUT_S) as database:
            return await ask(ring_records(settings, database))

    try:
        return asyncio.run(run())
    except asyncpg.UndefinedTableError:
        raise CommandFailed("the schema is behind; run `gateway migrate`") from None
    except TimeoutError:
        raise CommandFailed("another process has been changing the keys for too long") from None
    except (OSError, ValueError, ProvisioningError) as error:
        raise CommandFailed(failure_text(error)) from error
