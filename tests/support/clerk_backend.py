"""A fake of Clerk's Backend API at its wire, with the shapes of Clerk's own description and the ways it can fail."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

Failure = Literal[
    "rate_limited", "failed", "hang", "slow_body", "garbage", "html", "array", "huge", "redirect", "reset"
]
SECRET_KEY = "sk_test_fake_backend"


@dataclass
class ClerkBackend:
    """Records what was asked.

    Attributes:
        url: With `/v1`, once running.
        asked: Raw request targets in order.
        headers: Of each request.
        failure: How to answer badly; None answers well.
        delay_s: Before every answer.
    """

    url: str = ""
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    organizations: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    failure: Failure | None = None
    retry_after: str = "2"
    delay_s: float = 0.0

    def add_user(self, clerk_id: str, *, name: tuple[str, str] = ("Alice", "Ng"), verified: bool = True) -> None:
        """Add a person with one e-mail address."""
        status = "verified" if verified else "unverified"
        self.users[clerk_id] = {
            "object": "user",
            "id": clerk_id,
            "username": None,
            "first_name": name[0],
            "last_name": name[1],
            "primary_email_address_id": "idn_1",
            "email_addresses": [
                {"id": "idn_0", "email_address": "old@example.com", "verification": None, "linked_to": []},
                {
                    "id": "idn_1",
                    "email_address": f"{name[0].lower()}@example.com",
                    "verification": {"status": status, "strategy": "email_code", "attempts": 1, "expire_at": 0},
                    "linked_to": [],
                },
            ],
            "a_field_of_tomorrow": {"nobody": ["knows"]},
        }

    def add_organization(self, clerk_id: str, name: str) -> None:
        """Add an organization."""
        self.organizations[clerk_id] = {"object": "organization", "id": clerk_id, "name": name, "slug": name.lower()}

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ClerkBackend"]:
        """Serve on 127.0.0.1."""
        app = web.Application()
        app.add_routes(
            [web.get("/v1/{kind:users|organizations}/{id}", self._answer), web.get("/elsewhere", self._answer)]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.raw_path)
        self.headers.append(request.headers)
        await asyncio.sleep(self.delay_s)
        if self.failure is not None:
            return await self._fail(request, self.failure)
        if request.headers.get("Authorization") != f"Bearer {SECRET_KEY}":
            return _errors(401, "authentication_invalid")
        store = self.users if request.match_info["kind"] == "users" else self.organizations
        found = store.get(request.match_info["id"])
        return _errors(404, "resource_not_found") if found is None else web.json_response(found)

    async def _fail(self, request: web.Request, failure: Failure) -> web.StreamResponse:
        match failure:
            case "rate_limited":
                return _errors(429, "too_many_requests", {"Retry-After": self.retry_after})
            case "failed":
                return _errors(500, "internal_clerk_error")
            case "hang":
                await asyncio.sleep(3600)
            case "garbage":
                return web.Response(body=b'{"object": "user", "first_na\xff', content_type="application/json")
            case "html":
                return web.Response(text="<h1>Bad gateway</h1>", content_type="text/html")
            case "array":
                return web.json_response([1, 2, 3])
            case "huge":
                return web.json_response({"first_name": "x" * 4_000_000})
            case "redirect":
                return web.Response(status=302, headers={"Location": "/elsewhere"})
            case "reset":
                assert request.transport is not None
                request.transport.abort()
            case "slow_body":
                response = web.StreamResponse()
                await response.prepare(request)
                while True:
                    await response.write(b" ")
                    await asyncio.sleep(0.02)
        return web.Response()


def _errors(status: int, code: str, headers: dict[str, str] | None = None) -> web.Response:
    document = {"errors": [{"message": code, "long_message": code, "code": code}], "clerk_trace_id": "trace"}
    return web.json_response(document, status=status, headers=headers)
