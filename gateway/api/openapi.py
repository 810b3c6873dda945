"""`GET /openapi.json`: OpenAPI 3.1 of the own endpoints, assembled from the shapes they answer with."""

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from gateway import __version__
from gateway.api.documents import (
    CurrentUserDocument,
    KeySetDocument,
    OrganizationDocument,
    ProblemDocument,
    WebsocketTokenDocument,
    WebsocketTokenWish,
)

JWKS_PATH = "/.well-known/jwks.json"
_DOCUMENTS = (
    CurrentUserDocument,
    KeySetDocument,
    OrganizationDocument,
    ProblemDocument,
    WebsocketTokenDocument,
    WebsocketTokenWish,
)


def _schema(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": dict(schema)}}}


def _problem(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/problem+json": {"schema": _schema("ProblemDocument")}},
    }


_PROBLEMS = {
    "400": _problem("The request is malformed, or its credentials contradict each other."),
    "401": _problem("No credential, or one that was checked and is bad."),
    "403": _problem("Known, and not allowed."),
    "503": _problem("Keys or records cannot be asked now; try again after Retry-After seconds."),
}


def openapi_document(prefix: str, *, organizations: bool = True) -> dict[str, Any]:
    """Assemble the document.

    Args:
        prefix: The setting `api.prefix`.
        organizations: The setting `api.organizations`.
    """
    _, schemas = models_json_schema(
        [(document, "serialization") for document in _DOCUMENTS], ref_template="#/components/schemas/{model}"
    )
    any_object = {"type": "object", "additionalProperties": True}
    current = {
        "summary": "Who the caller is",
        "operationId": "currentUser",
        "responses": {"200": _json("The caller.", _schema("CurrentUserDocument")), **_PROBLEMS},
    }
    settings = {
        "summary": "Merge into the caller's settings",
        "description": "First level only; null deletes a key. API tokens need the scope `profile:write`.",
        "operationId": "mergeSettings",
        "requestBody": {"required": True, "content": {"application/json": {"schema": any_object}}},
        "responses": {
            "200": _json("All settings after the merge.", any_object),
            **_PROBLEMS,
            "413": _problem("The body, or the settings it would make, are too large."),
            "415": _problem("The body is not sent as application/json."),
            "422": _problem("The body is not a JSON object that can be kept."),
        },
    }
    websocket_token = {
        "summary": "A token to open a websocket with, or for an open one to live on",
        "description": "API tokens need the scope `tokens:mint`. The body may be left out.",
        "operationId": "createWebsocketToken",
        "requestBody": {
            "required": False,
            "content": {"application/json": {"schema": _schema("WebsocketTokenWish")}},
        },
        "responses": {
            "201": _json("The token.", _schema("WebsocketTokenDocument")),
            **_PROBLEMS,
            "404": _problem("The caller has no open websocket of this id in the process that answers."),
            "413": _problem("The body is too large."),
            "415": _problem("The body is not sent as application/json."),
            "422": _problem("The body says something else than what is taken."),
        },
    }
    organization = {
        "summary": "The organization the caller acts in",
        "operationId": "currentOrganization",
        "responses": {"200": _json("The organization.", _schema("OrganizationDocument")), **_PROBLEMS},
    }
    key_set = {
        "summary": "Public keys of what the gateway signs",
        "description": "A JWK set (RFC 7517), open to all. Keep it as long as Cache-Control says.",
        "operationId": "jwks",
        "security": [],
        "responses": {
            "200": _json("The keys.", _schema("KeySetDocument")),
            "304": {"description": "Unchanged since the answer whose ETag If-None-Match names."},
            "503": _PROBLEMS["503"],
        },
    }
    paths = {
        "/users/current": {"get": current},
        f"{prefix}/users/current/settings": {"patch": settings},
        f"{prefix}/users/current/websocket-token": {"post": websocket_token},
    }
    paths[JWKS_PATH] = {"get": key_set}
    if organizations:
        paths[f"{prefix}/organizations/current"] = {"get": organization}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Actorgate", "version": __version__, "description": "Own endpoints of the gateway."},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "session": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "sessionCookie": {"type": "apiKey", "in": "cookie", "name": "__session"},
            },
        },
        "security": [{"session": []}, {"sessionCookie": []}],
    }
