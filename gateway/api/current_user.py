"""`GET /users/current`, `PATCH /users/current/settings` and `GET /organizations/current`."""

from dataclasses import dataclass, replace

from gateway.actors.beliefs import Caller
from gateway.answer import Answer, json_answer
from gateway.api.documents import CurrentUserDocument, OrganizationDocument
from gateway.api.endpoints import Call
from gateway.errors import ContentInvalid, ContentTooLarge, StoreUnavailable, UserDeleted
from provisioning.errors import DatabaseUnavailable, SettingsInvalid, SettingsTooLarge, UserMissing
from provisioning.organizations import Organizations
from provisioning.records import Standing, User
from provisioning.users import Users


@dataclass(frozen=True, slots=True)
class CurrentUser:
    """Answers about the caller."""

    users: Users
    organizations: Organizations

    async def show(self, call: Call) -> Answer:
        """Tell the caller who they are; from memory, without what is not remembered, while PostgreSQL is away."""
        caller = call.who
        user, standings = await self._records(caller)
        current = OrganizationDocument.of(caller.standing, caller.actor.organization_role)
        others = [OrganizationDocument.of(standing) for standing in standings if standing.organization.id != current.id]
        return json_answer(200, CurrentUserDocument.of(user, current, [current, *others]).plain())

    async def merge_settings(self, call: Call) -> Answer:
        """Lay an object over the caller's settings, first level only; null deletes a key."""
        patch = await call.read_json()
        if not isinstance(patch, dict):
            raise ContentInvalid("object_expected")
        try:
            user = await self.users.merge_settings(call.who.actor.user_id, patch)
        except SettingsTooLarge:
            raise ContentTooLarge("settings_too_large") from None
        except SettingsInvalid:
            raise ContentInvalid("settings_invalid") from None
        except UserMissing:
            raise UserDeleted from None
        except DatabaseUnavailable as error:
            raise StoreUnavailable("database_unavailable") from error
        return json_answer(200, dict(user.settings))

    async def show_organization(self, call: Call) -> Answer:
        """Tell the caller about the organization they act in, never about another."""
        caller = call.who
        try:
            organization = await self.organizations.get(caller.actor.organization_id)
        except DatabaseUnavailable:
            organization = None
        standing = caller.standing if organization is None else replace(caller.standing, organization=organization)
        return json_answer(200, OrganizationDocument.of(standing, caller.actor.organization_role).plain())

    async def _records(self, caller: Caller) -> tuple[User, tuple[Standing, ...]]:
        try:
            user = await self.users.get(caller.actor.user_id)
            standings = await self.users.organizations_of(caller.actor.user_id)
        except DatabaseUnavailable:
            return caller.standing.user, ()
        return user or caller.standing.user, standings
