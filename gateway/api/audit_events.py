"""`GET /organizations/current/audit-events`: what was done in the caller's organization, for its administrators."""

import re
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import BeforeValidator, Field

from gateway.answer import Answer, json_answer
from gateway.api.documents import AuditEventDocument, AuditEventList
from gateway.api.endpoints import Call
from gateway.api.queries import Cursors, Query, read_query
from gateway.errors import QueryInvalid, StoreUnavailable
from provisioning.audit_trail import AuditTrail, Place, Wanted
from provisioning.errors import DatabaseUnavailable

AUDIT_SCOPE = "audit:read"
LIMIT, MOST = 50, 200
_PLACE = struct.Struct(">qq")  # microseconds since the epoch, place in the chain
_EPOCH = datetime.fromtimestamp(0, UTC)
_ACTION = r"^[a-z0-9_]+(?:\.[a-z0-9_]+)*(?:\.\*)?$"
_BLANK_OFFSET = re.compile(r" (\d\d:?\d\d)$")


def _moment(value: object) -> datetime:
    """Read an ISO 8601 moment; a `+` that was not escaped has become a blank on its way."""
    try:
        moment = datetime.fromisoformat(_BLANK_OFFSET.sub(r"+\1", str(value)))
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("write an ISO 8601 moment with its offset, such as 2030-01-31T12:00:00Z")


Moment = Annotated[datetime, BeforeValidator(_moment)]


class AuditQuery(Query):
    """Which events."""

    action: str | None = Field(
        None, max_length=100, pattern=_ACTION, description="Exact, or `user.*` for all of a kind."
    )
    actor_id: str | None = Field(None, min_length=1, max_length=500, description="As in `actor.id`.")
    target: str | None = Field(None, min_length=1, max_length=500, description="The id of one of the targets.")
    occurred_after: Moment | None = Field(None, description="From this moment on (ISO 8601 with offset).")
    occurred_before: Moment | None = Field(None, description="Up to this moment, without it.")
    limit: int = Field(LIMIT, ge=1, le=MOST, description="Events of one page.")
    cursor: str | None = Field(None, max_length=200, description="`nextCursor` of the page before; same filters.")

    def wanted(self) -> Wanted:
        """The same without paging."""
        return Wanted(self.action, self.actor_id, self.target, self.occurred_after, self.occurred_before)


@dataclass(frozen=True, slots=True)
class AuditEvents:
    """Answers about the audit trail."""

    trail: AuditTrail
    cursors: Cursors

    async def list_page(self, call: Call) -> Answer:
        """List events of the caller's organization, newest first; never another's."""
        query, organization_id = read_query(call, AuditQuery), call.who.actor.organization_id
        wanted = query.wanted()
        question = repr((organization_id, wanted))
        after = None if query.cursor is None else _place(self.cursors.read(query.cursor, question))
        try:
            page = await self.trail.page(organization_id, wanted, query.limit, after)
        except DatabaseUnavailable as error:
            raise StoreUnavailable("database_unavailable") from error
        cursor = None if page.next is None else self.cursors.write(_written(page.next), question)
        items = [AuditEventDocument.of(entry) for entry in page.entries]
        return json_answer(200, AuditEventList(items=items, next_cursor=cursor).plain())


def _written(place: Place) -> bytes:
    return _PLACE.pack((place.occurred_at - _EPOCH) // timedelta(microseconds=1), place.sequence)


def _place(written: bytes) -> Place:
    try:
        microseconds, sequence = _PLACE.unpack(written)
        return Place(_EPOCH + timedelta(microseconds=microseconds), sequence)
    except (struct.error, OverflowError):  # of a release that wrote something else
        raise QueryInvalid("cursor_invalid") from None
