"""Audit events: who did what, when and from where. Rows are only ever added, and each seals those before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from provisioning.database.pool import Connection

ActorKind = Literal["user", "api_token", "system_token", "operator", "gateway"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Who acts, and from where.

    Attributes:
        actor_kind: What `actor_id` names.
        actor_id: `usr_…`, `atk_…`, the name of a system token, an operator's login name; None for the gateway itself.
        impersonator_id: Who acts in this person's name (Clerk's `act`), else None.
        address: Of the client.
        user_agent: As sent.
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
        occurred_at: None: now.
    """

    action: str
    organization_id: str | None
    origin: Origin
    targets: Sequence[str] = ()
    metadata: Mapping[str, object] = field(default_factory=dict)
    occurred_at: datetime | None = None


async def append(connection: Connection, *events: Event) -> None:
    """Add events inside the caller's transaction, as its last statement: they stay with it or go with it.

    The organization's chain is locked until the transaction ends, which is why nothing may wait for a lock after this.
    """
    raise NotImplementedError
