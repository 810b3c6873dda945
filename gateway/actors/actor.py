"""The Actor: a principal as our records know it. Policy judges it; the upstream is told of it."""

from dataclasses import dataclass

from gateway.verify.principal import Principal
from provisioning.records import Role


@dataclass(frozen=True, slots=True)
class Actor:
    """Who calls, in our own terms.

    Attributes:
        user_id: `usr_…`.
        role: Of the user, in our records.
        organization_id: `org_…` of ours; every Actor has one.
        organization_role: Without `org:`; the owner of a personal organization is `admin`.
        organization_permissions: `org:feature:permission`, from the verified credential.
        principal: The proof this Actor rests on.
    """

    user_id: str
    role: Role
    organization_id: str
    organization_role: str
    organization_permissions: tuple[str, ...]
    principal: Principal
