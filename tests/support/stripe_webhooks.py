"""Stripe as far as webhooks go: objects of its API, events, its signature, and `GET /v1/subscriptions/{id}`.

Shapes are those of API version 2025-03-31 and later (periods on items, `parent` on invoices) unless a test says so.
"""

import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import orjson
from aiohttp import web

from tests.support.gateway import GatewayUnderTest
from tests.support.wire import Reply, request

SECRET = "whsec_of_these_tests"  # not a secret
KEY = "sk_test_of_these_tests"
PRICE = "price_pro"
TARGET = "/webhooks/stripe"
DAY_S = 86_400
_NUMBERS = count(1)


def now_s() -> int:
    """The wall clock in whole seconds."""
    return int(time.time())


def subscription(organization_id: str | None = None, **keys: Any) -> dict[str, Any]:
    """A subscription object: of the plan `pro`, paid for another month, unless the keys say otherwise."""
    price, end = keys.pop("price", {"id": PRICE}), keys.pop("period_end", now_s() + 30 * DAY_S)
    return {
        "id": "sub_stripe1",
        "object": "subscription",
        "customer": "cus_1",
        "status": "active",
        "created": now_s() - 60,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "ended_at": None,
        "trial_end": None,
        "items": {"object": "list", "data": [{"id": "si_1", "price": price, "current_period_end": end}]},
        "metadata": {"organization_id": organization_id} if organization_id is not None else {},
        "livemode": False,
        **keys,
    }


def invoice(organization_id: str | None = None, **keys: Any) -> dict[str, Any]:
    """An invoice of that subscription."""
    metadata = {"organization_id": organization_id} if organization_id is not None else {}
    details = {"subscription": "sub_stripe1", "metadata": metadata}
    return {
        "id": "in_1",
        "object": "invoice",
        "customer": "cus_1",
        "parent": {"type": "subscription_details", "subscription_details": details},
        **keys,
    }


def session(organization_id: str | None = None, **keys: Any) -> dict[str, Any]:
    """A completed Checkout session of that subscription."""
    return {
        "id": "cs_test_1",
        "object": "checkout.session",
        "mode": "subscription",
        "status": "complete",
        "payment_status": "paid",
        "customer": "cus_1",
        "subscription": "sub_stripe1",
        "metadata": {"organization_id": organization_id} if organization_id is not None else {},
        **keys,
    }


def event(kind: str, content: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """An event of its own about an object."""
    return {
        "id": f"evt_{next(_NUMBERS)}",
        "object": "event",
        "type": kind,
        "created": now_s(),
        "livemode": False,
        "data": {"object": content},
        **keys,
    }


def signature(body: bytes, secret: str = SECRET, signed_at: int | None = None) -> str:
    """The value of `Stripe-Signature`, as Stripe's documentation describes it."""
    moment = str(now_s() if signed_at is None else signed_at)
    digest = hmac.new(secret.encode(), moment.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={digest},v0={'0' * 64}"


class Stripe:
    """Answers at `url`, and sends webhooks.

    Attributes:
        subscriptions: By id; what is not in here is 404.
        status: Of its answers; None: it hangs up.
        asked: Ids it was asked for.
        keys: What it was asked with.
    """

    def __init__(self) -> None:
        self.url = ""
        self.subscriptions: dict[str, dict[str, Any]] = {}
        self.status: int | None = 200
        self.asked: list[str] = []
        self.keys: set[str | None] = set()

    @property
    def settings(self) -> dict[str, Any]:
        """The section `stripe` of a gateway that it sends to."""
        return {"secret_key": KEY, "price_id": PRICE, "api_url": self.url, "webhook_secrets": [SECRET]}

    async def send(self, gateway: GatewayUnderTest, document: dict[str, Any]) -> Reply:
        """Send an event, signed now."""
        body = orjson.dumps(document)
        return await self.send_raw(gateway, body, f"Stripe-Signature: {signature(body)}")

    async def send_raw(self, gateway: GatewayUnderTest, body: bytes, *lines: str) -> Reply:
        """Send any bytes."""
        content = "Content-Type: application/json; charset=utf-8"
        return await gateway.ask(request(TARGET, content, *lines, method="POST", body=body))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Tell of a subscription."""
        self.asked.append(request.match_info["id"])
        self.keys.add(request.headers.get("Authorization"))
        if self.status is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        found = self.subscriptions.get(self.asked[-1])
        if found is None:
            return web.json_response({"error": {"code": "resource_missing"}}, status=404)
        return web.json_response(found, status=self.status)


@asynccontextmanager
async def stripe_api() -> AsyncIterator[Stripe]:
    """Run one until the block ends."""
    stripe = Stripe()
    app = web.Application()
    app.router.add_get("/v1/subscriptions/{id}", stripe.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    stripe.url = f"http://{host}:{port}"
    try:
        yield stripe
    finally:
        await runner.cleanup()
