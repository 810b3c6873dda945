"""Audit events: who did what, when and from where. Rows are only ever added, and each seals those before it.

Every organization has a chain of its own, and the gateway one for what belongs to none. An entry's hash is the SHA-256
of the hash before it and of the entry's body, so that nothing can be changed, taken out or put in between unnoticed.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import orjson
from asyncpg import Record as Row

from provisioning.database.pool import Connection
from provisioning.ids import new_id

ActorKind = Literal["user", "api_token", "system_token", "operator", "gateway"]

GATEWAY_CHAIN = "gateway"
FIRST_HASH = bytes(32)  # what comes before the first entry of every chain
TEXT_LENGTH = 500
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# One statement, so that the chain is locked for one round trip and the commit. The conflicting row is locked and read
# as it is after all who came before have committed.
_APPEND = """
    WITH grown AS (
        INSERT INTO audit_chains AS c (chain, sequence, hash) VALUES ($2, 1, sha256($13::bytea || $14::bytea))
        ON CONFLICT (chain) DO UPDATE SET sequence = c.sequence + 1, hash = sha256(c.hash || $14::bytea)
        RETURNING sequence, hash
    )
    INSERT INTO audit_events (id, chain, action, actor_kind, actor_id, impersonator_id, targets, address, user_agent,
                              request_id, metadata, occurred_at, sequence, hash)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, sequence, hash FROM grown
"""
ENTRY_COLUMNS = """id, chain, action, actor_kind, actor_id, impersonator_id, targets, address, user_agent, request_id,
    metadata, occurred_at"""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who acts, and from where.

    Attributes:
        actor_kind: What `actor_id` names.
        actor_id: `usr_…`, `atk_…`, the name of a system token, an operator's login name; None for the gateway itself.
        impersonator_id: Who acts in this person's name (Clerk's `act`), else None.
        address: Of the client.
        user_agent: As sent; kept up to 500 characters.
        request_id: As in the log.
    """

    actor_kind: ActorKind
    actor_id: str | None = None
    impersonator_id: str | None = None
    address: str | None = None
    user_agent: str | None = field(default=None, repr=False)
    request_id: str | None = None


GATEWAY = Origin("gateway")


@dataclass(frozen=True, slots=True)
class Event:
    """What happened.

    Attributes:
        action: Such as `api_token.created`.
        organization_id: `org_…`, whose chain this joins; None: the gateway's own chain.
        targets: Ids of what was acted on.
        metadata: Further facts, a JSON object without secrets.
        occurred_at: Aware; None: now.
    """

    action: str
    organization_id: str | None
    origin: Origin
    targets: Sequence[str] = ()
    metadata: Mapping[str, object] = field(default_factory=dict)
    occurred_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of `audit_events`, without its place and its hash.

    Attributes:
        chain: `org_…`, or `gateway`.
        metadata: The text of a JSON object: kept byte for byte, since it is hashed.
        occurred_at: Aware, in whole microseconds.
    """

    id: str
    chain: str
    action: str
    actor_kind: str
    actor_id: str | None
    impersonator_id: str | None
    targets: tuple[str, ...]
    address: str | None
    user_agent: str | None
    request_id: str | None
    metadata: str
    occurred_at: datetime

    def columns(self) -> tuple[object, ...]:
        """The values of its columns, but for its place in the chain and its hash."""
        return (
            self.id,
            self.chain,
            self.action,
            self.actor_kind,
            self.actor_id,
            self.impersonator_id,
            list(self.targets),
            self.address,
            self.user_agent,
            self.request_id,
            self.metadata,
            self.occurred_at,
        )

    def body(self) -> bytes:
        """Write everything down unmistakably: a JSON array, strings in it, in the order of the columns."""
        return orjson.dumps(
            (
                self.id,
                self.chain,
                self.action,
                self.actor_kind,
                self.actor_id,
                self.impersonator_id,
                self.targets,
                self.address,
                self.user_agent,
                self.request_id,
                self.metadata,
                self.occurred_at.astimezone(UTC).isoformat(timespec="microseconds"),
            )
        )

    def hash_after(self, previous: bytes) -> bytes:
        """Give this entry's hash.

        Args:
            previous: The hash of the entry before it in its chain; `FIRST_HASH` for the first.
        """
        return hashlib.sha256(previous + self.body()).digest()


def entry_of(row: Row) -> Entry:
    """Read a row that begins with `ENTRY_COLUMNS`."""
    id_, chain, action, kind, actor, impersonator, targets, address, agent, request, metadata, occurred = row[:12]
    return Entry(
        id_, chain, action, kind, actor, impersonator, tuple(targets), address, agent, request, metadata, occurred
    )


async def append(connection: Connection, *events: Event) -> None:
    """Add events inside the caller's transaction, as its last statement: they stay with it or go with it.

    A chain is locked until the transaction ends, and those of several organizations in the order of their ids: nobody
    who waits for a chain holds what somebody with a chain waits for, as long as nothing is locked after this.
    """
    entries = sorted((_entry(event) for event in events), key=lambda entry: entry.chain)
    await connection.executemany(_APPEND, [(*entry.columns(), FIRST_HASH, entry.body()) for entry in entries])


def _entry(event: Event) -> Entry:
    origin = event.origin
    return Entry(
        new_id("evt"),
        event.organization_id or GATEWAY_CHAIN,
        event.action,
        origin.actor_kind,
        fit(origin.actor_id),
        fit(origin.impersonator_id),
        tuple(event.targets),
        fit(origin.address),
        fit(origin.user_agent),
        fit(origin.request_id),
        orjson.dumps(event.metadata, option=orjson.OPT_SORT_KEYS).decode(),
        event.occurred_at or datetime.now(UTC),
    )


def moment_of(seconds: float) -> datetime:
    """Unix seconds as a moment."""
    return datetime.fromtimestamp(seconds, UTC)


def fit(text: str | None) -> str | None:
    """Take out what PostgreSQL cannot keep and what would garble a terminal; cut what is too long."""
    return _UNFIT.sub(" ", text)[:TEXT_LENGTH] if text is not None else None
