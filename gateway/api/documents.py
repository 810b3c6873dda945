"""Shapes of what own endpoints answer: camelCase JSON, times in ISO 8601 UTC with Z. `openapi.py` publishes them."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, cast

import orjson
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

from gateway.identity.minting import Minted
from provisioning.audit import ActorKind, Entry
from provisioning.new_tokens import MadeToken
from provisioning.records import ApiToken, Role, Standing, Subscription, User
from provisioning.subscription_status import (
    IN_FORCE,
    SubscriptionStatus,
    cancels_with_period,
    days_remaining,
    plan_name,
    status_at,
)


def _with_z(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Moment = Annotated[datetime, PlainSerializer(_with_z, return_type=str)]


def moment_of(seconds: float) -> datetime:
    """Unix seconds as a moment."""
    return datetime.fromtimestamp(seconds, UTC)


class Document(BaseModel):
    """Base of all shapes."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    def plain(self) -> dict[str, Any]:
        """The JSON object."""
        return self.model_dump(mode="json", by_alias=True)


class OrganizationDocument(Document):
    """One organization, as its member sees it."""

    id: str
    clerk_id: str | None = Field(description="Clerk's `org_…`; null for a personal organization.")
    name: str
    role: str = Field(description="Role of the caller in it, without `org:`.")
    created_at: Moment
    updated_at: Moment

    @classmethod
    def of(cls, standing: Standing, role: str | None = None) -> "OrganizationDocument":
        """Show an organization; `role` overrides the recorded one with what the credential proves now."""
        organization = standing.organization
        return cls(
            id=organization.id,
            clerk_id=organization.clerk_id,
            name=organization.name,
            role=role or standing.organization_role,
            created_at=organization.created_at,
            updated_at=organization.updated_at,
        )


class ApiTokenDocument(Document):
    """An API token, as its owner sees it; never its secret."""

    id: str
    name: str
    public_id: str = Field(description="The 12 characters behind `agt_`: finds a token in code and logs.")
    scopes: list[str]
    created_at: Moment
    expires_at: Moment | None = Field(description="Null: never.")
    last_used_at: Moment | None = Field(description="Some minutes behind at most; null: not used yet.")
    revoked_at: Moment | None

    @classmethod
    def of(cls, token: ApiToken) -> "ApiTokenDocument":
        """Show a token."""
        return cls(
            id=token.id,
            name=token.name,
            public_id=token.public_id,
            scopes=list(token.scopes),
            created_at=token.created_at,
            expires_at=token.expires_at,
            last_used_at=token.last_used_at,
            revoked_at=token.revoked_at,
        )


class ApiTokenList(Document):
    """API tokens: those that live, newest first, then those that ended lately."""

    items: list[ApiTokenDocument]


class NewApiTokenDocument(Document):
    """An API token with its text: the only answer that holds it."""

    id: str
    name: str
    token: str = Field(description="`agt_…`, shown this once.", repr=False)
    scopes: list[str]
    created_at: Moment
    expires_at: Moment | None = Field(description="Null: never.")

    @classmethod
    def of(cls, made: MadeToken) -> "NewApiTokenDocument":
        """Show a token with its text."""
        token = made.token
        return cls(
            id=token.id,
            name=token.name,
            token=made.text,
            scopes=list(token.scopes),
            created_at=token.created_at,
            expires_at=token.expires_at,
        )


class SubscriptionDocument(Document):
    """The subscription of the organization the caller acts in, at this moment."""

    status: SubscriptionStatus = Field(description="`none`: there is none, or it never began.")
    plan: str | None = Field(description="Also of one that is over; null: there never was one.")
    plan_name: str | None = Field(description="The same, made readable.")
    is_trial: bool = Field(description="Whether it is in its trial now.")
    trial_ends_at: Moment | None = Field(description="Also after it; null: no trial.")
    current_period_ends_at: Moment | None = Field(description="Up to when it is paid for, or free.")
    days_remaining: int | None = Field(
        description="Of the trial or period, the one that has begun included; 0: over; null: no end is known."
    )
    cancel_at_period_end: bool = Field(description="Whether it will end with the period, instead of going on.")
    can_manage: bool = Field(description="Whether the caller is an admin of the organization.")

    @classmethod
    def of(cls, subscription: Subscription | None, now: datetime, *, can_manage: bool) -> "SubscriptionDocument":
        """Show a subscription; None: the organization has none."""
        status = status_at(subscription, now)
        plan = subscription.plan or None if subscription is not None else None
        return cls(
            status=status,
            plan=plan,
            plan_name=plan_name(plan) if plan is not None else None,
            is_trial=status is SubscriptionStatus.TRIALING,
            trial_ends_at=subscription.trial_ends_at if subscription is not None else None,
            current_period_ends_at=subscription.current_period_end if subscription is not None else None,
            days_remaining=days_remaining(subscription, now),
            cancel_at_period_end=subscription is not None and status in IN_FORCE and cancels_with_period(subscription),
            can_manage=can_manage,
        )


class CurrentUserDocument(Document):
    """The caller."""

    id: str
    clerk_id: str
    name: str | None
    email: str | None
    role: Role
    is_admin: bool
    settings: dict[str, Any]
    organization: OrganizationDocument = Field(description="The one this credential acts in.")
    organizations: list[OrganizationDocument]
    created_at: Moment
    updated_at: Moment
    subscription: SubscriptionDocument = Field(description="Of that organization.")
    feature_flags: dict[str, Any] = {}
    websocket_token: str | None = Field(default=None, description="Opens websockets; null: none for this credential.")
    websocket_token_expires_at: Moment | None = None
    agent_token: str | None = Field(default=None, description="For programs that act as the caller; null likewise.")
    agent_token_expires_at: Moment | None = None
    api_tokens: list[ApiTokenDocument]

    @classmethod
    def of(
        cls,
        user: User,
        current: OrganizationDocument,
        organizations: list[OrganizationDocument],
        subscription: SubscriptionDocument,
        api_tokens: Iterable[ApiToken] = (),
        websocket: Minted | None = None,
        agent: Minted | None = None,
        flags: Mapping[str, Any] | None = None,
    ) -> "CurrentUserDocument":
        """Show a user, with the tokens minted for this caller."""
        return cls(
            id=user.id,
            clerk_id=user.clerk_id,
            name=user.name,
            email=user.email,
            role=user.role,
            is_admin=user.role is Role.ADMIN,
            settings=dict(user.settings),
            organization=current,
            organizations=organizations,
            subscription=subscription,
            feature_flags=dict(flags or {}),
            websocket_token=websocket.token if websocket is not None else None,
            websocket_token_expires_at=moment_of(websocket.expires_at) if websocket is not None else None,
            agent_token=agent.token if agent is not None else None,
            agent_token_expires_at=moment_of(agent.expires_at) if agent is not None else None,
            created_at=user.created_at,
            updated_at=user.updated_at,
            api_tokens=[ApiTokenDocument.of(token) for token in api_tokens],
        )


TARGET_KINDS = {"usr": "user", "org": "organization", "atk": "api_token", "sub": "subscription", "evt": "event"}


class AuditActorDocument(Document):
    """Who acted."""

    kind: ActorKind
    id: str | None = Field(description="`usr_…`, `atk_…`, or a name; null for the gateway itself.")


class AuditTargetDocument(Document):
    """What was acted on."""

    kind: str = Field(description="Told by the id: user, organization, api_token, subscription, event, other.")
    id: str


class AuditContextDocument(Document):
    """Where from."""

    address: str | None
    user_agent: str | None


class AuditEventDocument(Document):
    """One audit event."""

    id: str
    action: str
    occurred_at: Moment
    actor: AuditActorDocument
    impersonator: str | None = Field(description="Clerk's id of whoever acted in the actor's name, else null.")
    targets: list[AuditTargetDocument]
    context: AuditContextDocument
    request_id: str | None
    metadata: dict[str, Any]

    @classmethod
    def of(cls, entry: Entry) -> "AuditEventDocument":
        """Show an event."""
        return cls(
            id=entry.id,
            action=entry.action,
            occurred_at=entry.occurred_at,
            actor=AuditActorDocument(kind=cast(ActorKind, entry.actor_kind), id=entry.actor_id),
            impersonator=entry.impersonator_id,
            targets=[
                AuditTargetDocument(kind=TARGET_KINDS.get(target.partition("_")[0], "other"), id=target)
                for target in entry.targets
            ],
            context=AuditContextDocument(address=entry.address, user_agent=entry.user_agent),
            request_id=entry.request_id,
            metadata=orjson.loads(entry.metadata),
        )


class AuditEventList(Document):
    """A page of audit events, newest first."""

    items: list[AuditEventDocument]
    next_cursor: str | None = Field(description="Asks for the next page; null on the last.")


class FaultDocument(Document):
    """One thing that is wrong with a body or a query."""

    pointer: str = Field(description="JSON Pointer (RFC 6901); of a query `/` and the parameter's name.")
    detail: str


class WebsocketTokenDocument(Document):
    """A websocket token."""

    token: str
    expires_at: Moment

    @classmethod
    def of(cls, minted: Minted) -> "WebsocketTokenDocument":
        """Show a token."""
        return cls(token=minted.token, expires_at=moment_of(minted.expires_at))


class WebsocketTokenWish(BaseModel):
    """What a websocket token shall be for; all of it may be left out."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, strict=True)

    connection_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="`X-Actor-Connection-Id` of an open websocket, or the `jti` of the token it was opened with: "
        "it lives on as if it had been opened with the new token.",
    )
    path: str | None = Field(
        default=None, max_length=1024, pattern="^/[!-~]*$", description="The only path the token opens."
    )
    origin: str | None = Field(default=None, max_length=512, description="The only `Origin` that may bring it.")


class KeyDocument(Document):
    """One public key (RFC 7517, RFC 7518 §6.2)."""

    kty: Literal["EC"]
    crv: Literal["P-256"]
    x: str
    y: str
    kid: str
    alg: Literal["ES256"]
    use: Literal["sig"]


class KeySetDocument(Document):
    """Keys that sign now, did a while ago, or will soon."""

    keys: list[KeyDocument]


class ProblemDocument(Document):
    """A refusal or failure (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FaultDocument] = []
