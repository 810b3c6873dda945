"""Slack, PostHog and Stripe at their wire, as far as the outbox speaks with them, and the ways in which they fail."""

import asyncio
import hashlib
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import parse_qsl

import orjson
from aiohttp import web

from tests.support.ports import free_port

Failure = Literal["rejected", "refused", "failed", "rate_limited", "redirect", "hang", "close", "lost"]
"""`close` ends the connection before anything was done, `lost` after it."""

SLACK_PATH = "/services/T0/B0/secret"
PROJECT_KEY = "phc_of_these_tests"
STRIPE_KEY = "sk_test_of_these_tests"
PRICE = "price_trial"
_STATUS = {"rejected": 400, "refused": 404, "failed": 500, "rate_limited": 429}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request.

    Attributes:
        key: Its `Idempotency-Key`.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def key(self) -> str | None:
        return self.headers.get("Idempotency-Key")


@dataclass
class FakeReceiver:
    """What all of them have in common.

    Attributes:
        url: Stays the same over `down` and `up`.
        asked: Requests in order, also those that failed.
        failures: How the next requests fail, in order, None for one that does not; then they go well.
        failing: How every request fails; None: as `failures` say.
        retry_after: What a 429 says.
        delay_s: Before anything is done.
        most_at_once: Of requests with one key, or one body if they have none.
    """

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    failures: list[Failure | None] = field(default_factory=list)
    failing: Failure | None = None
    retry_after: str = "1"
    delay_s: float = 0.0
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self._port = free_port()
        self._runner: web.AppRunner | None = None
        self._under_way: Counter[object] = Counter()
        self.url = f"http://127.0.0.1:{self._port}"

    async def up(self) -> None:
        """Begin to answer."""
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()

    async def down(self) -> None:
        """Refuse every connection."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.up()
        try:
            yield
        finally:
            await self.down()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(request.method, request.path_qs, request.headers, await request.read())
        self.asked.append(asked)
        key = asked.key or asked.body
        self._under_way[key] += 1
        self.most_at_once = max(self.most_at_once, self._under_way[key])
        try:
            await asyncio.sleep(self.delay_s)
            return await self._fail_or_act(request, asked)
        finally:
            self._under_way[key] -= 1

    async def _fail_or_act(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        failure = self.failing or (self.failures.pop(0) if self.failures else None)
        match failure:
            case None:
                return self.act(asked)
            case "hang":
                await asyncio.sleep(3600)
            case "lost":
                self.act(asked)
            case "redirect":
                return web.Response(status=302, headers={"Location": "/elsewhere"})
            case "rejected" | "refused" | "failed" | "rate_limited":
                headers = {"Retry-After": self.retry_after} if failure == "rate_limited" else {}
                return web.Response(status=_STATUS[failure], headers=headers, text=failure)
            case "close":
                pass
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    def act(self, asked: Asked) -> web.Response:
        """Answer as the service does; each of them below has its own."""
        raise NotImplementedError


@dataclass
class FakeSlack(FakeReceiver):
    """One incoming webhook.

    Attributes:
        posted: Messages in order; Slack suppresses none.
        keys: Of each.
    """

    posted: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    @property
    def webhook_url(self) -> str:
        return f"{self.url}{SLACK_PATH}"

    def act(self, asked: Asked) -> web.Response:
        if asked.method != "POST" or asked.path != SLACK_PATH:
            return web.Response(status=404, text="no_service")
        message = _json(asked)
        if message is None or not asked.headers.get("Content-Type", "").startswith("application/json"):
            return web.Response(status=400, text="invalid_payload")
        if not message.get("text"):
            return web.Response(status=400, text="no_text")
        self.posted.append(message)
        self.keys.append(asked.key)
        return web.Response(text="ok")


@dataclass
class FakePosthog(FakeReceiver):
    """One project.

    Attributes:
        received: Every event, in order.
    """

    received: list[dict[str, Any]] = field(default_factory=list)

    @property
    def events(self) -> list[dict[str, Any]]:
        """What is left when the same are one, as PostHog defines the same (posthog.com/docs/data/events)."""
        same = ("uuid", "event", "timestamp", "distinct_id")
        return list({tuple(event[name] for name in same): event for event in self.received}.values())

    def names(self) -> list[str]:
        """What happened, in the order in which it was first told."""
        return [event["event"] for event in self.events]

    def act(self, asked: Asked) -> web.Response:
        document = _json(asked)
        if asked.path != "/batch/" or document is None:
            return web.json_response({"type": "validation_error"}, status=400)
        if document.get("api_key") != PROJECT_KEY:
            return web.json_response({"type": "authentication_error"}, status=401)
        for event in document["batch"]:
            if not event.get("event") or not event.get("distinct_id"):
                return web.json_response({"type": "validation_error"}, status=400)
            uuid.UUID(event["uuid"])
            datetime.fromisoformat(event["timestamp"])
        self.received += document["batch"]
        return web.json_response({"status": "Ok"})


@dataclass
class FakeStripe(FakeReceiver):
    """One account (API v1). Search finds nothing that was made since the last `index`.

    Attributes:
        customers: In the order in which they were made.
        subscriptions: Likewise.
        prices: Those that are there.
    """

    customers: list[dict[str, Any]] = field(default_factory=list)
    subscriptions: list[dict[str, Any]] = field(default_factory=list)
    prices: set[str] = field(default_factory=lambda: {PRICE})
    _answers: dict[str, tuple[bytes, int, dict[str, Any]]] = field(default_factory=dict)
    _indexed: int = 0

    def index(self) -> None:
        """Let search find all that was made so far: within a minute, says Stripe."""
        self._indexed = len(self.customers)

    def forget_keys(self) -> None:
        """A day goes by."""
        self._answers.clear()
        self.index()

    def posted(self, what: str) -> list[Asked]:
        """Requests that would make a customer or a subscription."""
        return [asked for asked in self.asked if asked.method == "POST" and asked.path == f"/v1/{what}"]

    def act(self, asked: Asked) -> web.Response:
        if asked.headers.get("Authorization") != f"Bearer {STRIPE_KEY}":
            return _stripe_error(401, "invalid_request_error")
        path, _, query = asked.path.removeprefix("/v1/").partition("?")
        if asked.method == "GET":
            return self._find(path, _form(query))
        if asked.key is None or len(asked.key) > 255:
            return _stripe_error(400, "invalid_request_error")
        digest = hashlib.sha256(asked.body).digest()
        if asked.key in self._answers:
            known, status, document = self._answers[asked.key]
            if known != digest:
                return _stripe_error(400, "idempotency_error")
            return web.json_response(document, status=status, headers={"Idempotent-Replayed": "true"})
        answer, document = self._make(path, _form(asked.body.decode()))
        if answer.status == 200:
            self._answers[asked.key] = digest, 200, document
        return answer

    def _make(self, path: str, form: Mapping[str, str]) -> tuple[web.Response, dict[str, Any]]:
        metadata = {name[9:-1]: value for name, value in form.items() if name.startswith("metadata[")}
        document: dict[str, Any] = {"metadata": metadata, "created": int(datetime.now(UTC).timestamp())}
        if path == "customers":
            document |= {"object": "customer", "id": f"cus_{len(self.customers)}", "email": form.get("email")}
            self.customers.append(document | {"name": form.get("name")})
        elif path == "subscriptions":
            known = {customer["id"] for customer in self.customers}
            if form.get("items[0][price]") not in self.prices or form.get("customer") not in known:
                return _stripe_error(400, "invalid_request_error"), {}
            if int(form["trial_end"]) <= datetime.now(UTC).timestamp():
                return _stripe_error(400, "invalid_request_error"), {}
            document |= {"object": "subscription", "id": f"sub_{len(self.subscriptions)}", "status": "trialing"}
            self.subscriptions.append(document | dict(form))
        else:
            return _stripe_error(404, "invalid_request_error"), {}
        return web.json_response(document), document

    def _find(self, path: str, query: Mapping[str, str]) -> web.Response:
        if path == "customers/search":
            wanted = query["query"].removeprefix("metadata['organization_id']:'").removesuffix("'")
            indexed = self.customers[: self._indexed]
            found = [one for one in indexed if one["metadata"].get("organization_id") == wanted]
        elif path == "subscriptions":
            found = [one for one in self.subscriptions if one["customer"] == query["customer"]]
        else:
            return _stripe_error(404, "invalid_request_error")
        return web.json_response({"object": "list", "data": list(reversed(found)), "has_more": False})


def _json(asked: Asked) -> dict[str, Any] | None:
    try:
        document = orjson.loads(asked.body)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def _form(text: str) -> dict[str, str]:
    return dict(parse_qsl(text, strict_parsing=bool(text)))


def _stripe_error(status: int, kind: str) -> web.Response:
    return web.json_response({"error": {"type": kind, "message": kind}}, status=status)
