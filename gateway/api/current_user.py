"""`GET /users/current`, `PATCH /users/current/settings` and `GET /organizations/current`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from gateway.actors.beliefs import Caller
from gateway.answer import Answer, json_answer
from gateway.api.documents import CurrentUserDocument, OrganizationDocument, SubscriptionDocument
from gateway.api.endpoints import Call
from gateway.credentials.kinds import CredentialKind
from gateway.errors import ContentInvalid, ContentTooLarge, StoreUnavailable, UserDeleted, VerifierUnavailable
from gateway.identity.minting import Minted, Minter
from provisioning.errors import DatabaseUnavailable, SettingsInvalid, SettingsTooLarge, UserMissing
from provisioning.memberships import Memberships
from provisioning.organizations import Organizations
from provisioning.records import ORGANIZATION_ADMIN, ApiToken, Standing, Subscription, User
from provisioning.tokens import Tokens
from provisioning.users import Users

_MINTED = (CredentialKind.WEBSOCKET_TOKEN, CredentialKind.AGENT_TOKEN)


@dataclass(frozen=True, slots=True)
class CurrentUser:
    """Answers about the caller."""

    users: Users
    organizations: Organizations
    memberships: Memberships
    tokens: Tokens
    minter: Minter

    async def show(self, call: Call) -> Answer:
        """Tell the caller who they are; from memory, without what is not remembered, while PostgreSQL is away."""
        caller = call.who
        user, standings, tokens = await self._records(caller)
        current = OrganizationDocument.of(caller.standing, caller.actor.organization_role)
        subscription = SubscriptionDocument.of(
            _subscription(caller, standings),
            datetime.now(UTC),
            can_manage=caller.actor.organization_role == ORGANIZATION_ADMIN,
        )
        others = [OrganizationDocument.of(standing) for standing in standings if standing.organization.id != current.id]
        websocket, agent = (self._minted(kind, caller) for kind in _MINTED)
        flags = caller.told.client
        document = CurrentUserDocument.of(
            user, current, [current, *others], subscription, tokens, websocket, agent, flags
        )
        return json_answer(200, document.plain())

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

    def _minted(self, kind: CredentialKind, caller: Caller) -> Minted | None:
        try:
            return self.minter.current(kind, caller)
        except VerifierUnavailable:
            return None  # who the caller is can be told without

    async def _records(self, caller: Caller) -> tuple[User, tuple[Standing, ...], tuple[ApiToken, ...]]:
        actor = caller.actor
        try:
            user = await self.users.get(actor.user_id)
            standings = await self.memberships.of_user(actor.user_id)
            tokens = await self.tokens.list_of(actor.user_id, actor.organization_id)
        except DatabaseUnavailable:
            return caller.standing.user, (), ()
        return user or caller.standing.user, standings, tokens


def _subscription(caller: Caller, standings: Sequence[Standing]) -> Subscription | None:
    """The one of the organization the caller acts in: as read just now, else as remembered."""
    for standing in standings:
        if standing.organization.id == caller.actor.organization_id:
            return standing.subscription
    return caller.standing.subscription
