"""Slack: one message in a channel for every new user, by an incoming webhook."""

from collections.abc import Mapping, Sequence

import aiohttp
import orjson

from provisioning.outbox.effects import Delivery, Topic
from provisioning.outbox.receiver import ask

DEADLINE_S = 5.0


def escaped(text: str) -> str:
    """Take the meaning from Slack's control characters, and from no others (docs.slack.dev, formatting text)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def message_of(payload: Mapping[str, object]) -> dict[str, object]:
    """Write the message of a `user_created`.

    What people chose themselves is shown as it is: no formatting (`mrkdwn`), no mention, no preview of a link.
    """

    def shown(name: str) -> str:
        return escaped(str(payload.get(name) or "not known yet"))

    organization = f"{shown('organizationName')} ({shown('organizationId')})"
    lines = [f"New user: {shown('name')}, {shown('email')}", f"Organization: {organization}"]
    if payload.get("plan"):
        lines.append(f"Trial: {shown('plan')}")
    lines.append(f"Id: {shown('userId')}")
    return {"text": "\n".join(lines), "mrkdwn": False, "unfurl_links": False, "unfurl_media": False}


class Slack:
    """Posts to one incoming webhook. Slack itself knows no key: after a lost answer a message can come twice.

    The key goes along in `Idempotency-Key`, which Slack passes over and a relay in front of it can heed.
    """

    topic: Topic = "slack"
    most = 1

    def __init__(self, session: aiohttp.ClientSession, webhook_url: str, *, deadline_s: float = DEADLINE_S) -> None:
        """Settle where to post.

        Args:
            session: Belongs to the caller.
            webhook_url: A secret.
            deadline_s: For one message.
        """
        self._session = session
        self._webhook_url = webhook_url
        self.deadline_s = deadline_s

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Post each."""
        for delivery in deliveries:
            headers = {"Content-Type": "application/json", "Idempotency-Key": delivery.key}
            body = orjson.dumps(message_of(delivery.payload))
            await ask(self._session, "POST", self._webhook_url, headers=headers, body=body)
