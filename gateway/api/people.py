"""Endpoints for administrators: people, their role, whether they may call, and their records made whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from gateway.answer import Answer, json_answer
from gateway.api.api_tokens import Body
from gateway.api.endpoints import Call
from gateway.api.listing import asked_page
from gateway.api.origins import origin_of
from gateway.api.people_documents import PersonDetailDocument, PersonDocument, PersonList, RepairDocument
from gateway.errors import (
    OwnAccountRefused,
    PolicyDenied,
    RouteUnknown,
    StateConflict,
    StoreUnavailable,
)
from gateway.revocation.changes import PersonChanged
from gateway.revocation.revocations import Revocations
from provisioning.administration import Administration
from provisioning.arrivals import Arrivals
from provisioning.errors import DatabaseUnavailable, NoAdministrator, OwnAccount, UserEnded, UserMissing
from provisioning.ids import is_id
from provisioning.memberships import Memberships
from provisioning.records import Role, User
from provisioning.users import Users

_REFUSALS = (OwnAccount, UserEnded, UserMissing)


class RoleChange(Body):
    """Asks for another role."""

    role: Literal["USER", "ADMIN"] = Field(description="SYSTEM belongs to system tokens alone.")


@dataclass(frozen=True, slots=True)
class People:
    """Answers administrators.

    Attributes:
        revocations: Told of every change, before the answer.
    """

    users: Users
    memberships: Memberships
    administration: Administration
    arrivals: Arrivals
    revocations: Revocations

    async def list_all(self, call: Call) -> Answer:
        """List people, those who came last first."""
        origin_of(call)
        asked = asked_page(call, ("search",))
        with translated():
            page = await self.administration.list_of(asked.more.get("search") or None, asked.after, asked.limit)
        return json_answer(200, PersonList.of(page).plain())

    async def show(self, call: Call) -> Answer:
        """Show one, with the organizations they belong to."""
        origin_of(call)
        user_id = user_id_of(call)
        with translated():
            user = await self.users.get(user_id)
            if user is None:
                raise UserMissing
            standings = await self.memberships.of_user(user_id)
        return json_answer(200, PersonDetailDocument.of_all(user, standings).plain())

    async def set_role(self, call: Call) -> Answer:
        """Give one another role, in every organization."""
        origin, user_id, body = origin_of(call), user_id_of(call), await call.read_model(RoleChange)
        with translated(), self._forgetting(call, user_id):
            user = await self.administration.set_role(user_id, Role(body.role), origin, by=call.who.actor.user_id)
        return self._changed(user)

    async def disable(self, call: Call) -> Answer:
        """Refuse one everything, at once."""
        origin, user_id = origin_of(call), user_id_of(call)
        with translated(), self._forgetting(call, user_id):
            user = await self.administration.disable(user_id, origin, by=call.who.actor.user_id)
        return self._changed(user)

    async def enable(self, call: Call) -> Answer:
        """Let one call again."""
        origin, user_id = origin_of(call), user_id_of(call)
        with translated(), self._forgetting(call, user_id):
            user = await self.administration.enable(user_id, origin, by=call.who.actor.user_id)
        return self._changed(user)

    async def repair(self, call: Call) -> Answer:
        """Provision one again: make what is missing, and tell what was there."""
        origin, user_id = origin_of(call), user_id_of(call)
        with translated():
            repaired = await self.arrivals.repair(user_id, origin)
        self.revocations.tell(PersonChanged(user_id))
        return json_answer(200, RepairDocument.of(repaired).plain())

    def _changed(self, user: User) -> Answer:
        self.revocations.tell(PersonChanged(user.id, user.clerk_id, closes=True))
        return json_answer(200, PersonDocument.of(user).plain())

    @contextmanager
    def _forgetting(self, call: Call, user_id: str) -> Iterator[None]:
        """Forget as well when a change failed or its client left: nobody knows then whether it was made."""
        try:
            yield
        except NoAdministrator:
            user = call.who.standing.user
            # What is remembered of them is old.
            self.revocations.tell(PersonChanged(user.id, user.clerk_id, closes=True))
            raise
        except _REFUSALS:  # nothing was changed: what they have open stays
            raise
        except BaseException:
            self.revocations.tell(PersonChanged(user_id, closes=True))
            raise


async def nothing_here(_: Call) -> Answer:
    """Stand where an endpoint is switched off whose path must not lead to an upstream.

    Raises:
        RouteUnknown: Always.
    """
    raise RouteUnknown("switched_off")


def user_id_of(call: Call) -> str:
    """Whom the path names, `usr_…`.

    Raises:
        RouteUnknown: Nobody.
    """
    user_id = call.parameters["id"]
    if not is_id("usr", user_id):
        raise RouteUnknown("user_missing")
    return user_id


@contextmanager
def translated() -> Iterator[None]:
    """Say in our terms what the records refuse."""
    try:
        yield
    except UserMissing as error:
        raise RouteUnknown(error.reason) from None
    except UserEnded as error:
        raise StateConflict(error.reason) from None
    except OwnAccount as error:
        raise OwnAccountRefused(error.reason) from None
    except NoAdministrator as error:  # judged by what was remembered of them, they still were
        raise PolicyDenied(error.reason) from None
    except DatabaseUnavailable as error:
        raise StoreUnavailable("database_unavailable") from error
