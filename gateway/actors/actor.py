"""The Actor: a principal as our records know it. Policy judges it; the upstream is told of it."""

from dataclasses import dataclass
from datetime import datetime
from math import inf

from gateway.credentials.kinds import CredentialKind
from gateway.errors import UserDeleted, UserDisabled
from gateway.verify.principal import Principal
from provisioning.records import ORGANIZATION_ADMIN, Role, Standing, Subject
from provisioning.subscription_status import next_change, plan_in_force, status_at

_ROLES = {  # whatever the person's own role is; a machine is no person
    CredentialKind.AGENT_TOKEN: Role.USER,
    CredentialKind.CLERK_API_KEY: Role.USER,
    CredentialKind.CLERK_OAUTH: Role.USER,
    CredentialKind.CLERK_M2M: Role.SYSTEM,
}


@dataclass(frozen=True, slots=True)
class Actor:
    """Who calls, in our own terms.

    Attributes:
        user_id: `usr_…`; empty for who is no user: a system token, a machine, an organization's API key.
        role: Of the user, in our records.
        organization_id: `org_…` of ours; every user has one.
        organization_role: Without `org:`; the owner of a personal organization is `admin`.
        organization_permissions: `org:feature:permission`, from the credential; none of a role that is over.
        principal: The proof this Actor rests on.
        subscription_status: Of the organization's subscription, as of when the Actor was made; empty: no organization.
        plan: The plan that counts; empty: none does.
        changes_at: Unix seconds: when the status changes by time alone, and this Actor is not true any more.
    """

    user_id: str
    role: Role
    organization_id: str
    organization_role: str
    organization_permissions: tuple[str, ...]
    principal: Principal
    subscription_status: str = ""
    plan: str = ""
    changes_at: float = inf


def subject_of(principal: Principal) -> Subject:
    """Say whom our records are asked for; nobody has a record of a machine."""
    organization = principal.organization
    if principal.kind is CredentialKind.CLERK_M2M:
        return Subject("")
    if principal.kind is CredentialKind.CLERK_API_KEY and principal.subject.startswith("org_"):
        return Subject("", principal.subject)
    if organization is None:
        return Subject(principal.subject, name=principal.name, email=principal.email)
    return Subject(
        principal.subject,
        organization.id,
        organization.slug,
        organization.role,
        principal.name,
        principal.email,
        principal.issued_at if principal.binding is None else None,
    )


def actor_of(principal: Principal, standing: Standing, now: datetime) -> Actor:
    """Judge what our records say of a person, and make the Actor of this moment.

    Raises:
        UserDeleted: A tombstone.
        UserDisabled: An operator disabled them, or they are banned at Clerk.
    """
    user = standing.user
    if user.deleted_at is not None:
        raise UserDeleted
    if user.disabled_at is not None:
        raise UserDisabled
    if user.banned_at is not None:
        raise UserDisabled("user_banned")
    subscription = standing.subscription
    organization_role, organization_permissions = _place_of(principal, standing)
    change = next_change(subscription, now)
    return Actor(
        user_id=user.id,
        role=_ROLES.get(principal.kind, user.role),
        organization_id=standing.organization.id,
        organization_role=organization_role,
        organization_permissions=organization_permissions,
        principal=principal,
        subscription_status=str(status_at(subscription, now)) if user.id else "",  # of who is no user it is not known
        plan=plan_in_force(subscription, now) or "",
        changes_at=inf if change is None else change.timestamp(),
    )


def _place_of(principal: Principal, standing: Standing) -> tuple[str, tuple[str, ...]]:
    """Say which role and permissions somebody has in the organization they act in.

    The token's, unless our records know of a later role: then that one, and which permissions came with the earlier one
    nobody can tell. An administrator may do everything, and keeps them.
    """
    organization = principal.organization
    if organization is None:
        return standing.organization_role, ()
    if not standing.outdates(organization.role, principal.issued_at):
        return organization.role, organization.permissions
    is_admin = standing.organization_role == ORGANIZATION_ADMIN
    return standing.organization_role, organization.permissions if is_admin else ()
