"""PostHog: who people are, which organization they act in, and what they did, by its batch endpoint.

PostHog takes two events for one when `uuid`, event, timestamp and distinct id are the same, so all four are made of
what was written down: nothing here depends on when, how often or beside what else an event is sent.
"""

import uuid
from collections.abc import Mapping, Sequence

import aiohttp
import orjson

from provisioning.outbox.effects import Delivery, Topic
from provisioning.outbox.receiver import ask

DEADLINE_S = 10.0
MOST = 100
GROUP_TYPE = "organization"
NAMESPACE = uuid.UUID("8f7a3c52-9b1e-5d64-a0c7-6e2f4d81b935")
"""Of our UUIDv5; it must never change."""


def events_of(key: str, payload: Mapping[str, object]) -> list[dict[str, object]]:
    """Write the events of one effect, those that say who it is first.

    Args:
        key: Of the effect.
        payload: `userId`, `at` (ISO 8601), `organizationId`; and any of `person` (properties to set), `organization`
            (the group's), `event` (the name) with `properties`.
    """
    events: list[dict[str, object]] = []

    def add(name: str, properties: Mapping[str, object]) -> None:
        events.append(
            {
                "uuid": str(uuid.uuid5(NAMESPACE, f"{key}/{name}")),
                "event": name,
                "distinct_id": payload["userId"],
                "timestamp": payload["at"],
                # The address of this request is ours, not the person's.
                "properties": {**properties, "$lib": "actorgate", "$geoip_disable": True},
            }
        )

    organization_id = payload.get("organizationId")
    groups: dict[str, object] = {"$groups": {GROUP_TYPE: organization_id}} if organization_id else {}
    if isinstance(person := payload.get("person"), Mapping):
        add("$identify", {"$set": person, **groups})
    if isinstance(organization := payload.get("organization"), Mapping):
        group = {"$group_type": GROUP_TYPE, "$group_key": organization_id, "$group_set": organization}
        add("$groupidentify", group)
    if isinstance(event := payload.get("event"), str):
        properties = payload.get("properties")
        add(event, {**(properties if isinstance(properties, Mapping) else {}), **groups})
    return events


class Posthog:
    """Sends events to one project."""

    topic: Topic = "posthog"

    def __init__(
        self,
        session: aiohttp.ClientSession,
        host: str,
        project_key: str,
        *,
        deadline_s: float = DEADLINE_S,
        most: int = MOST,
    ) -> None:
        """Settle where to send.

        Args:
            session: Belongs to the caller.
            host: Such as `https://us.i.posthog.com`.
            project_key: `phc_…`.
            deadline_s: For one batch.
            most: Effects in one batch.
        """
        self._session = session
        self._url = f"{host.rstrip('/')}/batch/"
        self._project_key = project_key
        self.deadline_s = deadline_s
        self.most = most

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Send all in one batch. No `sent_at`: PostHog would shift times by it, and those make an event the same."""
        batch = [event for delivery in deliveries for event in events_of(delivery.key, delivery.payload)]
        body = orjson.dumps({"api_key": self._project_key, "batch": batch})
        await ask(self._session, "POST", self._url, headers={"Content-Type": "application/json"}, body=body)
