"""`GET /organizations/current/members`: who else is in the organization the caller acts in."""

from dataclasses import dataclass

from gateway.answer import Answer, json_answer
from gateway.api.endpoints import Call
from gateway.api.listing import asked_page
from gateway.api.people_documents import MemberList
from gateway.errors import StoreUnavailable
from provisioning.errors import DatabaseUnavailable
from provisioning.memberships import Memberships
from provisioning.records import ORGANIZATION_ADMIN


@dataclass(frozen=True, slots=True)
class Members:
    """Answers about the caller's organization alone: nothing of the request names another."""

    memberships: Memberships

    async def list_all(self, call: Call) -> Answer:
        """List members; e-mail addresses only for a session of one of the organization's administrators."""
        actor, asked = call.who.actor, asked_page(call)
        try:
            page = await self.memberships.of_organization(actor.organization_id, asked.after, asked.limit)
        except DatabaseUnavailable as error:
            raise StoreUnavailable("database_unavailable") from error
        with_email = actor.organization_role == ORGANIZATION_ADMIN and actor.principal.scopes is None
        return json_answer(200, MemberList.of(page, with_email=with_email).plain())
