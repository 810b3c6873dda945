"""Repair: what a known person lacks of what first sight makes, made again by hand."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from provisioning.audit import Event, Origin, append
from provisioning.database.pool import Connection
from provisioning.errors import UserEnded, UserMissing
from provisioning.first_sight import (
    PERSONAL_ROLE,
    READ_PERSONAL,
    FirstSight,
    may_start_trial,
    personal_organization,
)
from provisioning.memberships import put_membership
from provisioning.outbox.queue import enqueue
from provisioning.persons import take_turn
from provisioning.records import Organization, User
from provisioning.rows import USER_COLUMNS, user_of
from provisioning.subscriptions import started

_CLERK_ID = "SELECT clerk_id FROM users WHERE id = $1"
_LOCK_USER = f"SELECT {USER_COLUMNS} FROM users WHERE id = $1 FOR NO KEY UPDATE"  # noqa: S608 - column names of our own
_HAS_TOKEN = "SELECT EXISTS (SELECT FROM api_tokens WHERE user_id = $1)"

Step = Literal["found", "made", "off"]


@dataclass(frozen=True, slots=True)
class Repaired:
    """What one repair came to.

    Attributes:
        organization_id: The personal organization, `org_…`; None where there are none.
        steps: For each part of a person's records whether it was there, was made, or is switched off.
    """

    user_id: str
    organization_id: str | None
    steps: Mapping[str, Step]


async def repair(sight: FirstSight, user_id: str, origin: Origin) -> Repaired:
    """Make what a known person lacks of what first sight makes, all or nothing; again, it makes nothing.

    Memberships of Clerk's organizations are not looked at: each comes with a token that proves it. A first token is
    made for whoever has none, those that ended in the last 30 days counted. Nobody is announced once more.

    Args:
        sight: What first sight makes.
        user_id: `usr_…`.
        origin: Who asks, for the audit event.

    Raises:
        DatabaseUnavailable: PostgreSQL cannot be asked now.
        UserMissing: No such user.
        UserEnded: Only a tombstone.
    """
    steps: dict[str, Step] = dict.fromkeys(("organization", "membership", "apiToken", "trial"), "off")
    async with sight.database.transaction() as connection:
        user = await _lock_living(connection, user_id)
        organization = await _organization(sight, connection, user, steps)
        events: list[Event] = []
        if organization is not None:
            events += await _token(sight, connection, user, organization, steps, origin)
            events += await _trial(sight, connection, user, organization, steps, origin)
        organization_id = organization.id if organization is not None else None
        told: dict[str, Step] = {"user": "found", **steps}
        facts = {"organizationId": organization_id, "steps": told}
        await append(connection, Event("user.repaired", None, origin, (user.id,), facts), *events)
    return Repaired(user.id, organization_id, told)


async def _lock_living(connection: Connection, user_id: str) -> User:
    """Take the person's turn, and hold their row; two repairs of one person come one after the other."""
    clerk_id = await connection.fetchval(_CLERK_ID, user_id)
    if clerk_id is None:
        raise UserMissing
    await take_turn(connection, clerk_id)
    row = await connection.fetchrow(_LOCK_USER, user_id)
    assert row is not None  # noqa: S101 - rows of people are never deleted
    user = user_of(row)
    if user.deleted_at is not None:
        raise UserEnded
    return user


async def _organization(
    sight: FirstSight, connection: Connection, user: User, steps: dict[str, Step]
) -> Organization | None:
    if not sight.personal_organizations:
        return None
    known = await connection.fetchrow(READ_PERSONAL, user.id)
    organization = await personal_organization(connection, user)
    membership = await put_membership(connection, user.id, organization.id, PERSONAL_ROLE, None)
    steps["organization"] = "made" if known is None else "found"
    steps["membership"] = "made" if membership["before"] is None else "found"
    return organization


async def _token(
    sight: FirstSight,
    connection: Connection,
    user: User,
    organization: Organization,
    steps: dict[str, Step],
    origin: Origin,
) -> list[Event]:
    if sight.first_token is None:
        return []
    if await connection.fetchval(_HAS_TOKEN, user.id):
        steps["apiToken"] = "found"
        return []
    steps["apiToken"] = "made"
    return [await sight.first_token.insert(connection, user.id, organization.id, origin)]


async def _trial(
    sight: FirstSight,
    connection: Connection,
    user: User,
    organization: Organization,
    steps: dict[str, Step],
    origin: Origin,
) -> list[Event]:
    if sight.trials is None or not may_start_trial(user):
        return []
    trial = await sight.trials.start(connection, organization.id)
    steps["trial"] = "found" if trial is None else "made"
    if trial is None:
        return []
    await enqueue(connection, *sight.announcements.trial_started(user, organization, trial))
    return [started(trial, user.id, origin)]
