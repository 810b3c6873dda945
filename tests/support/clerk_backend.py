"""A fake of Clerk's Backend API at its wire, with the shapes of Clerk's own description and the ways it can fail."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from tests.support.clerk_machines import MachineDesk
from tests.support.clerk_machines import errors as _errors

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
        revocable: How many sessions may still be revoked before the server begins to fail; None: any number.
        failure: How to answer badly; None answers well.
        delay_s: Before every answer.
        machines: The endpoints that know machine tokens.
    """

    url: str = ""
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    organizations: dict[str, dict[str, Any]] = field(default_factory=dict)
    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    revocable: int | None = None
    asked: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    failure: Failure | None = None
    retry_after: str = "2"
    delay_s: float = 0.0
    machines: MachineDesk = field(default_factory=lambda: MachineDesk(SECRET_KEY))

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

    def add_address(self, clerk_id: str, address: str, status: str | None) -> None:
        """Give a person one more address; status None: nobody began to verify it."""
        entries = self.users[clerk_id]["email_addresses"]
        verification = {"status": status, "strategy": "email_code"} if status is not None else None
        entries.append({"id": f"idn_{len(entries)}", "email_address": address, "verification": verification})

    def add_organization(self, clerk_id: str, name: str) -> None:
        """Add an organization."""
        self.organizations[clerk_id] = {"object": "organization", "id": clerk_id, "name": name, "slug": name.lower()}

    def add_session(self, session_id: str, clerk_id: str, *, status: str = "active", created_at: float = 1.0) -> None:
        """Add a session of a person; `created_at` in Unix seconds."""
        self.sessions[session_id] = {
            "object": "session",
            "id": session_id,
            "client_id": f"client_{session_id}",
            "user_id": clerk_id,
            "status": status,
            "created_at": int(created_at * 1000),
            "updated_at": int(created_at * 1000),
            "expire_at": int(created_at * 1000) + 7 * 86_400_000,
        }

    def statuses(self) -> dict[str, str]:
        """What became of each session."""
        return {session_id: session["status"] for session_id, session in self.sessions.items()}

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ClerkBackend"]:
        """Serve on 127.0.0.1."""
        app = web.Application()
        app.add_routes(self.machines.routes())
        app.add_routes(
            [
                web.get("/v1/{kind:users|organizations}/{id}", self._answer),
                web.get("/elsewhere", self._answer),
                web.get("/v1/sessions", self._list_sessions),
                web.post("/v1/sessions/{id}/revoke", self._revoke_session),
            ]
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

    async def _refusal(self, request: web.Request) -> web.StreamResponse | None:
        """Note the request; gives the answer when it is a bad one."""
        self.asked.append(request.raw_path)
        self.headers.append(request.headers)
        await asyncio.sleep(self.delay_s)
        if self.failure is not None:
            return await self._fail(request, self.failure)
        if request.headers.get("Authorization") != f"Bearer {SECRET_KEY}":
            return _errors(401, "authentication_invalid")
        return None

    async def _list_sessions(self, request: web.Request) -> web.StreamResponse:
        if (refusal := await self._refusal(request)) is not None:
            return refusal
        query = request.query
        if "user_id" not in query and "client_id" not in query:
            return _errors(422, "form_param_missing")
        offset, limit = int(query.get("offset", "0")), int(query.get("limit", "10"))
        fits = [
            session
            for session in self.sessions.values()
            if session["user_id"] == query.get("user_id") and query.get("status") in (None, session["status"])
        ]
        return web.json_response(fits[offset : offset + limit])

    async def _revoke_session(self, request: web.Request) -> web.StreamResponse:
        if (refusal := await self._refusal(request)) is not None:
            return refusal
        session = self.sessions.get(request.match_info["id"])
        if session is None:
            return _errors(404, "resource_not_found")
        if self.revocable is not None:
            if self.revocable == 0:
                return _errors(500, "internal_clerk_error")
            self.revocable -= 1
        session["status"] = "revoked"
        return web.json_response(session)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if (refusal := await self._refusal(request)) is not None:
            return refusal
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
