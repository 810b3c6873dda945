"""The part of Clerk's Backend API that the gateway asks: users, organizations, memberships, keys. Clerk's wire."""

import hmac
import secrets
from typing import NoReturn

import orjson
from aiohttp import web

from gateway.dev.clerk_shapes import (
    error_shape,
    find_organization,
    find_user,
    membership_shape,
    organization_shape,
    user_shape,
)
from gateway.dev.tokens import SigningKey

_MAX_PAGE = 500


class BackendApi:
    """Handlers under `/v1`, all for callers who know the secret key.

    Args:
        secret_key: `sk_test_…`, as the gateway sends it in `Authorization: Bearer`.
        key: Shown at `/v1/jwks`.
    """

    def __init__(self, secret_key: str, key: SigningKey) -> None:
        self._authorization = f"Bearer {secret_key}".encode()
        self._key = key

    def routes(self) -> list[web.RouteDef]:
        """List the routes for `Application.add_routes`."""
        return [
            web.get("/v1/jwks", self.jwks),
            web.get("/v1/users/{id}", self.user),
            web.get("/v1/users/{id}/organization_memberships", self.memberships),
            web.get("/v1/organizations/{id}", self.organization),
        ]

    async def jwks(self, request: web.Request) -> web.Response:
        """`GET /v1/jwks`."""
        self._authenticate(request)
        return web.json_response(self._key.jwks())

    async def user(self, request: web.Request) -> web.Response:
        """`GET /v1/users/{id}`: 200, 401, 404."""
        self._authenticate(request)
        persona = find_user(request.match_info["id"])
        return web.json_response(user_shape(persona)) if persona else _not_found("user")

    async def organization(self, request: web.Request) -> web.Response:
        """`GET /v1/organizations/{id or slug}`: 200, 401, 404."""
        self._authenticate(request)
        organization = find_organization(request.match_info["id"])
        if organization is None:
            _not_found("organization")
        with_count = request.query.get("include_members_count") == "true"
        return web.json_response(organization_shape(organization, with_members_count=with_count))

    async def memberships(self, request: web.Request) -> web.Response:
        """`GET /v1/users/{id}/organization_memberships`: one page (`limit` 1 to 500, default 10; `offset`)."""
        self._authenticate(request)
        persona = find_user(request.match_info["id"])
        if persona is None:
            _not_found("user")
        limit, offset = _number(request, "limit", 10), _number(request, "offset", 0)
        if not 1 <= limit <= _MAX_PAGE:
            _refuse(web.HTTPBadRequest, "form_param_value_invalid", "is invalid", "limit must be from 1 to 500.")
        page = persona.memberships[offset : offset + limit]
        shapes = [membership_shape(persona, membership) for membership in page]
        return web.json_response({"data": shapes, "total_count": len(persona.memberships)})

    def _authenticate(self, request: web.Request) -> None:
        presented = request.headers.get("Authorization", "").encode()
        if hmac.compare_digest(presented, self._authorization):
            return
        if presented:
            sentence = "The provided Clerk Secret Key is invalid. Make sure that your Clerk Secret Key is correct."
            _refuse(web.HTTPUnauthorized, "clerk_key_invalid", sentence, sentence)
        sentence = "Unable to authenticate the request, you need to supply an active session"
        _refuse(web.HTTPUnauthorized, "authentication_invalid", "Invalid authentication", sentence)


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        _refuse(web.HTTPBadRequest, "form_param_value_invalid", "is invalid", f"{name} must be a number.")
    return int(text)


def _not_found(what: str) -> NoReturn:
    _refuse(web.HTTPNotFound, "resource_not_found", "not found", f"No {what} was found with that id.")


def _refuse(error: type[web.HTTPError], code: str, message: str, long_message: str) -> NoReturn:
    text = orjson.dumps(error_shape(code, message, long_message, secrets.token_hex(16))).decode()
    raise error(text=text, content_type="application/json")
