"""From what happened here to what has to happen elsewhere. Pure."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from provisioning.outbox.effects import Effect, Topic
from provisioning.records import Organization, User


class Trial(Protocol):
    """What has to be known of a trial subscription."""

    @property
    def plan(self) -> str:
        """Its name in the settings."""
        ...

    @property
    def trial_ends_at(self) -> datetime | None:
        """Aware."""
        ...


@dataclass(frozen=True, slots=True)
class Announcements:
    """Makes effects of facts, for those who are to hear of them.

    Every effect's key is made of ids of what happened, so that the same fact, announced twice, is one effect.

    Attributes:
        topics: The receivers that are configured; for others nothing is made.
    """

    topics: frozenset[Topic] = frozenset()

    def new_user(self, user: User, organization: Organization, trial: Trial | None = None) -> tuple[Effect, ...]:
        """A person came for the first time, into this organization; `trial` began with them, if it did."""
        slack = {
            "userId": user.id,
            "name": user.name,
            "email": user.email,
            "organizationId": organization.id,
            "organizationName": organization.name,
            "plan": trial.plan if trial is not None else None,
        }
        posthog = self._event(
            "user_created",
            user,
            organization,
            user.created_at,
            {"organization_kind": "clerk" if organization.clerk_id else "personal"},
            person=_person(user) | {"created_at": _text(user.created_at)},
        )
        key = f"user_created:{user.id}"
        effects = (
            Effect("slack", "user_created", key, slack),
            Effect("posthog", "user_created", key, posthog, stream=user.id),
        )
        began = self.trial_started(user, organization, trial) if trial is not None else ()
        return (*self._wanted(*effects), *began)

    def profile_unknown(self, user: User) -> tuple[Effect, ...]:
        """A person was created without what only Clerk's Backend API knows."""
        payload = {"userId": user.id, "clerkId": user.clerk_id}
        return self._wanted(Effect("profile", "sync", f"profile:{user.id}", payload))

    def profile_known(self, user: User) -> tuple[Effect, ...]:
        """Name and e-mail address of a person came later."""
        payload = {"userId": user.id, "at": _text(user.updated_at), "person": _person(user)}
        return self._wanted(
            Effect("posthog", "profile", f"profile:{user.id}:{_text(user.updated_at)}", payload, stream=user.id)
        )

    def joined(
        self, user: User, organization: Organization, role: str, at: datetime | None = None
    ) -> tuple[Effect, ...]:
        """A person we knew gained an organization; `at`, aware: when, if not now."""
        moment = at or datetime.now(UTC)
        payload = self._event("organization_joined", user, organization, moment, {"role": role})
        key = f"organization_joined:{user.id}:{organization.id}"
        return self._wanted(Effect("posthog", "organization_joined", key, payload, stream=user.id))

    def trial_started(self, user: User, organization: Organization, subscription: Trial) -> tuple[Effect, ...]:
        """The trial of this organization began, once for ever; this person's coming began it."""
        ends_at = subscription.trial_ends_at
        facts = {"plan": subscription.plan, "trial_ends_at": _text(ends_at) if ends_at is not None else None}
        posthog = self._event("trial_started", user, organization, datetime.now(UTC), facts)
        stripe = {
            "organizationId": organization.id,
            "organizationName": organization.name,
            "userId": user.id,
            "email": user.email,
            "trialEndsAt": int(ends_at.timestamp()) if ends_at is not None else None,
        }
        return self._wanted(
            Effect("posthog", "trial_started", f"trial_started:{organization.id}", posthog, stream=user.id),
            Effect("stripe", "trial", f"trial:{organization.id}", stripe),
        )

    def login(self, user: User, organization_id: str, session_id: str, at: datetime) -> tuple[Effect, ...]:
        """A person began a Clerk session, `sess_…`, at this aware moment."""
        payload = {
            "userId": user.id,
            "at": _text(at),
            "organizationId": organization_id,
            "event": "login",
            "properties": {"session_id": session_id},
        }
        return self._wanted(Effect("posthog", "login", f"login:{session_id}", payload, stream=user.id))

    def usage(
        self,
        event: str,
        user_id: str,
        organization_id: str | None,
        at: datetime,
        *,
        count: int = 1,
        properties: Mapping[str, object] | None = None,
        key: str | None = None,
    ) -> tuple[Effect, ...]:
        """A person used what a route names.

        Args:
            event: Its name, such as `report_exported`.
            user_id: `usr_…`.
            organization_id: `org_…`, where they acted.
            at: Aware: when, or when the first of `count` was.
            count: How often.
            properties: Further facts, fit for JSON.
            key: What makes this one the same when it is announced again; None: it never is.
        """
        payload = {
            "userId": user_id,
            "at": _text(at),
            "organizationId": organization_id,
            "event": event,
            "properties": {**(properties or {}), "count": count},
        }
        return self._wanted(Effect("posthog", "usage", f"usage:{key or secrets.token_hex(16)}", payload))

    def _wanted(self, *effects: Effect) -> tuple[Effect, ...]:
        return tuple(effect for effect in effects if effect.topic in self.topics)

    def _event(
        self,
        name: str,
        user: User,
        organization: Organization,
        at: datetime,
        properties: Mapping[str, object],
        person: Mapping[str, object] | None = None,
    ) -> dict[str, object]:
        """Write down an event, and what PostHog is to know of whom it is about."""
        payload: dict[str, object] = {
            "userId": user.id,
            "at": _text(at),
            "organizationId": organization.id,
            "organization": {"name": organization.name},
            "event": name,
            "properties": properties,
        }
        return payload | ({"person": person} if person is not None else {})


NOBODY = Announcements()
"""Tells nobody of anything."""


def _person(user: User) -> dict[str, object]:
    facts = {"name": user.name, "email": user.email, "clerk_id": user.clerk_id}
    return {name: fact for name, fact in facts.items() if fact is not None}


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
