"""Clerk's webhooks at their wire: events in Clerk's shapes, signed as Svix signs them."""

import base64
import hashlib
import hmac
import itertools
import json
import time
from dataclasses import dataclass, field
from typing import Any

from tests.support.wire import Answering, Reply, request

SECRET = "whsec_" + base64.b64encode(b"a-signing-secret-of-these-tests!").decode()  # not a secret
OTHER_SECRET = "whsec_" + base64.b64encode(b"the-secret-that-comes-after-this").decode()
INSTANCE = "ins_2testInstance"
TARGET = "/webhooks/clerk"
SETTINGS: dict[str, Any] = {"clerk": {"webhook_secrets": [SECRET]}}
_ids = itertools.count(1)


def signature(secret: str, delivery_id: str, sent_at: int, body: bytes) -> str:
    """Sign, written down once more so that the gateway's own is not compared with itself."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.new(key, f"{delivery_id}.{sent_at}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


def envelope(kind: str, data: Any, *, at_ms: int | None = None, **members: Any) -> dict[str, Any]:
    """An event as Clerk sends it."""
    return {
        "object": "event",
        "type": kind,
        "instance_id": INSTANCE,
        "timestamp": at_ms if at_ms is not None else int(time.time() * 1000),
        "event_attributes": {"http_request": {"client_ip": "198.51.100.7", "user_agent": "Mozilla/5.0"}},
        "data": data,
        **members,
    }


def user(clerk_id: str, updated_at: int, **members: Any) -> dict[str, Any]:
    """Clerk's User, with a verified primary address unless `email` is None."""
    email = members.pop("email", f"{clerk_id}@example.com")
    addresses = [{"id": "idn_1", "email_address": email, "verification": {"status": "verified"}}] if email else []
    standard = {
        "object": "user",
        "id": clerk_id,
        "first_name": "Alice",
        "last_name": "Ng",
        "username": None,
        "primary_email_address_id": "idn_1" if email else None,
        "email_addresses": addresses,
        "banned": False,
        "locked": False,
        "created_at": 1,
        "updated_at": updated_at,
    }
    return standard | members


def organization(clerk_id: str, updated_at: int, **members: Any) -> dict[str, Any]:
    """Clerk's Organization."""
    standard = {"object": "organization", "id": clerk_id, "name": "Acme Inc.", "slug": "acme", "updated_at": updated_at}
    return standard | members


def membership(person: str, place: str, updated_at: int, role: str = "org:member") -> dict[str, Any]:
    """Clerk's OrganizationMembership."""
    return {
        "object": "organization_membership",
        "id": "orgmem_1",
        "role": role,
        "organization": organization(place, 1),
        "public_user_data": {"user_id": person, "first_name": "Alice", "last_name": "Ng", "identifier": "alice"},
        "created_at": 1,
        "updated_at": updated_at,
    }


def session(kind: str, session_id: str, person: str) -> dict[str, Any]:
    """An event about a session."""
    data = {"object": "session", "id": session_id, "user_id": person, "status": kind.partition(".")[2], "updated_at": 1}
    return envelope(kind, data)


@dataclass
class Delivery:
    """One delivery, to be sent as often as one likes."""

    event: Any
    secret: str = SECRET
    id: str = field(default_factory=lambda: f"msg_{next(_ids)}")
    sent_at: int = field(default_factory=lambda: int(time.time()))

    @property
    def body(self) -> bytes:
        return self.event if isinstance(self.event, bytes) else json.dumps(self.event).encode()

    @property
    def lines(self) -> list[str]:
        """Its header lines."""
        signed = signature(self.secret, self.id, self.sent_at, self.body)
        return [
            "Content-Type: application/json",
            f"svix-id: {self.id}",
            f"svix-timestamp: {self.sent_at}",
            f"svix-signature: {signed}",
        ]

    async def send(self, gateway: Answering, target: str = TARGET) -> Reply:
        """Send it, as Svix does."""
        return await gateway.ask(request(target, *self.lines, method="POST", body=self.body))


async def send(gateway: Answering, kind: str, data: Any, **members: Any) -> str:
    """Send an event that is taken; gives the outcome."""
    reply = await Delivery(envelope(kind, data, **members)).send(gateway)
    assert reply.status == 200, reply
    return str(reply.json()["outcome"])
