"""Clerk's machine tokens as Clerk makes them: what its Backend API says of opaque ones, and the JWT forms signed."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from aiohttp import web

from tests.support.clerk_keys import ABSENT, mint_token

USER = "user_2xhFjEI5X2qWRvtV13BzSj8H6Dk"
ORGANIZATION = "org_2xhFjEI5X2qWRvtV13BzSj8H6Dk"
MACHINE = "mch_2xhFjEI5X2qWRvtV13BzSj8H6Dk"
GATEWAY_MACHINE = "mch_2yGkLpQ7Y3rXSwtU24CzTk9I7Em"
CLIENT = "client_2xhFjEI5X2qWRvtV13BzSj8H6Dk"
MACHINE_SECRET_KEY = "ak_machine_secret_key_of_the_gateway"
_MEMBERS = {
    "/v1/api_keys/verify": "secret",
    "/v1/oauth_applications/access_tokens/verify": "access_token",
    "/v1/m2m_tokens/verify": "token",
}
_numbers = count(1)


def _hex() -> str:
    return f"{next(_numbers):032x}"


@dataclass
class Question:
    """What was asked of `…/verify`."""

    path: str
    body: Any
    authorization: str | None
    version: str | None


@dataclass
class MachineDesk:
    """The three endpoints: what Clerk knows of tokens, and what it was asked.

    Attributes:
        documents: What a 200 says, by the token's text.
        reply: Answers instead, whatever is asked; None answers as Clerk does.
        held: Waited for before each answer; None: at once.
    """

    secret_key: str
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[Question] = field(default_factory=list)
    reply: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    held: Callable[[], Awaitable[object]] | None = None

    def routes(self) -> list[web.RouteDef]:
        """Of an application that serves them."""
        return [web.post(path, self._verify) for path in _MEMBERS]

    def api_key(self, subject: str = USER, **changes: Any) -> str:
        """Make an API key; gives its text."""
        token_id = _hex()
        document = {
            "object": "api_key",
            "id": f"ak_{token_id}",
            "type": "api_key",
            "subject": subject,
            "name": "MY_SERVICE_API_KEY",
            "description": None,
            "claims": {"foo": "bar"},
            "scopes": ["read", "write"],
            "revoked": False,
            "revocation_reason": None,
            "expired": False,
            "expiration": None,
            "created_by": USER,
            "last_used_at": None,
            "created_at": 1716883200000,
            "updated_at": 1716883200000,
        }
        return self._known(f"ak_secretsecretsecret/+{token_id}=", document, changes)

    def oauth(self, subject: str = USER, **changes: Any) -> str:
        """Make an opaque OAuth access token."""
        token_id = _hex()
        document = {
            "object": "clerk_idp_oauth_access_token",
            "id": f"oat_{token_id}",
            "client_id": CLIENT,
            "subject": subject,
            "scopes": ["read", "write"],
            "revoked": False,
            "revocation_reason": None,
            "expired": False,
            "expiration": None,
            "created_at": 1716883200,
            "updated_at": 1716883200,
        }
        return self._known(f"oat_secretsecretsecret{token_id}", document, changes)

    def m2m(self, subject: str = MACHINE, **changes: Any) -> str:
        """Make an opaque token of a machine."""
        token_id = _hex()
        document = {
            "object": "machine_to_machine_token",
            "id": f"mt_{token_id}",
            "subject": subject,
            "claims": None,
            "scopes": [GATEWAY_MACHINE],
            "revoked": False,
            "revocation_reason": None,
            "expired": False,
            "expiration": None,
            "last_used_at": None,
            "created_at": 1716883200000,
            "updated_at": 1716883200000,
        }
        return self._known(f"mt_secretsecretsecret{token_id}", document, changes)

    def _known(self, token: str, document: dict[str, Any], changes: dict[str, Any]) -> str:
        changed = document | changes
        self.documents[token] = {name: value for name, value in changed.items() if value is not ABSENT}
        return token

    async def _verify(self, request: web.Request) -> web.StreamResponse:
        try:
            body = json.loads(await request.read())
        except ValueError:
            body = None
        headers = request.headers
        self.asked.append(Question(request.path, body, headers.get("Authorization"), headers.get("Clerk-API-Version")))
        if self.held is not None:
            await self.held()
        if self.reply is not None:
            return await self.reply(request)
        return self._answer(request, body)

    def _answer(self, request: web.Request, body: Any) -> web.Response:
        member, presented = _MEMBERS[request.path], request.headers.get("Authorization")
        machines = request.path.startswith("/v1/m2m")
        by_machine = machines and presented == f"Bearer {MACHINE_SECRET_KEY}"
        if presented != f"Bearer {self.secret_key}" and not by_machine:
            return errors(401, "clerk_key_invalid")
        if not isinstance(body, dict) or list(body) != [member] or not isinstance(body[member], str):
            return errors(400, "bad_request")
        document = self.documents.get(body[member])
        # Asked by a machine, Clerk knows those tokens alone that were made for it.
        if document is None or (by_machine and GATEWAY_MACHINE not in document.get("scopes", ())):
            return errors(404, "resource_not_found")
        return web.json_response(document)


def errors(status: int, code: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error as Clerk tells it."""
    document = {"errors": [{"message": code, "long_message": code, "code": code}], "clerk_trace_id": "trace"}
    return web.json_response(document, status=status, headers=headers)


def mint_oauth(header: dict[str, Any] | None = None, **claims: Any) -> str:
    """An OAuth access token in the form of a JWT (RFC 9068), valid; arguments change or remove claims."""
    standard = {
        "sub": USER,
        "sid": ABSENT,
        "azp": ABSENT,
        "v": ABSENT,
        "client_id": CLIENT,
        "scope": "read:foo write:bar",
        "jti": "oat_2xKa9Bgv7NxMRDFyQw8LpZ3cTmU1vHjE",
    }
    return mint_token(header={"typ": "at+jwt", "cat": ABSENT} | (header or {}), **(standard | claims))


def mint_m2m(header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A token of a machine in the form of a JWT, valid; arguments change or remove claims."""
    standard = {
        "sub": MACHINE,
        "sid": ABSENT,
        "azp": ABSENT,
        "v": ABSENT,
        "aud": [GATEWAY_MACHINE],
        "scopes": GATEWAY_MACHINE,
        "jti": "mt_2xKa9Bgv7NxMRDFyQw8LpZ3cTmU1vHjE",
    }
    return mint_token(header={"cat": "cl_B7d4PD333AAA"} | (header or {}), **(standard | claims))
