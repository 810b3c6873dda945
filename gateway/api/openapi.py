"""`GET /openapi.json`: OpenAPI 3.1 of the own endpoints, assembled from the shapes they answer with."""

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from gateway import __version__
from gateway.api.api_tokens import NewToken, Rotation, TokenChange
from gateway.api.documents import (
    ApiTokenDocument,
    ApiTokenList,
    CurrentUserDocument,
    NewApiTokenDocument,
    OrganizationDocument,
    ProblemDocument,
)

_DOCUMENTS = (
    CurrentUserDocument,
    OrganizationDocument,
    ApiTokenDocument,
    ApiTokenList,
    NewApiTokenDocument,
    ProblemDocument,
)
_BODIES = (NewToken, TokenChange, Rotation)
_SECURITY = {
    "session": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "sessionCookie": {"type": "apiKey", "in": "cookie", "name": "__session"},
    "apiToken": {"type": "http", "scheme": "bearer", "bearerFormat": "agt_…"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


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


_OBJECT = {"type": "object", "additionalProperties": True}
_BODY_PROBLEMS = {
    "413": _problem("The body, or what it would make, is too large."),
    "415": _problem("The body is not sent as application/json."),
    "422": _problem("The body is not what this endpoint takes; `errors` says where."),
}
_ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "`atk_…`, as listed.",
    "schema": {"type": "string", "pattern": "^atk_[0-9A-Za-z]{22}$"},
}
_NO_TOKEN = {"404": _problem("No API token of the caller's has this id.")}
_NOT_NOW = {"409": _problem("The token has ended, or there are as many as there may be.")}


def _operation(
    summary: str,
    operation_id: str,
    answers: Mapping[str, Any],
    *,
    description: str = "",
    body: Mapping[str, Any] | None = None,
    optional_body: bool = False,
    by_id: bool = False,
) -> dict[str, Any]:
    """Describe one method of a path."""
    operation: dict[str, Any] = {"summary": summary, "operationId": operation_id}
    if description:
        operation["description"] = description
    if by_id:
        operation["parameters"] = [_ID]
    if body is not None:
        operation["requestBody"] = {"required": not optional_body, "content": {"application/json": {"schema": body}}}
    operation["responses"] = {**answers, **_PROBLEMS, **(_BODY_PROBLEMS if body is not None else {})}
    return operation


def _current_user(prefix: str) -> dict[str, Any]:
    show = _operation("Who the caller is", "currentUser", {"200": _json("The caller.", _schema("CurrentUserDocument"))})
    merge = _operation(
        "Merge into the caller's settings",
        "mergeSettings",
        {"200": _json("All settings after the merge.", _OBJECT)},
        description="First level only; null deletes a key. API tokens need the scope `profile:write`.",
        body=_OBJECT,
    )
    return {"/users/current": {"get": show}, f"{prefix}/users/current/settings": {"patch": merge}}


def _api_tokens(prefix: str) -> dict[str, Any]:
    listed = f"{prefix}/users/current/api-tokens"
    needs = "A session, or an API token with the scope `tokens:manage`; not while somebody acts as the user."
    shown = {"200": _json("The token, without its secret.", _schema("ApiTokenDocument"))}
    made = {"201": _json("The token with its text, shown this once.", _schema("NewApiTokenDocument"))}
    items = {"200": _json("Those that live, newest first, then those that ended.", _schema("ApiTokenList"))}
    revealed = {"200": _json("The token with its text.", _schema("NewApiTokenDocument"))}
    gone = {"410": _problem("There is no secret to reveal any more.")}
    return {
        listed: {
            "get": _operation("List API tokens", "listApiTokens", items, description=needs),
            "post": _operation(
                "Make an API token", "createApiToken", made | _NOT_NOW, description=needs, body=_schema("NewToken")
            ),
        },
        f"{listed}/{{id}}": {
            "get": _operation("Show an API token", "showApiToken", shown | _NO_TOKEN, description=needs, by_id=True),
            "patch": _operation(
                "Rename or rescope an API token",
                "changeApiToken",
                shown | _NO_TOKEN | _NOT_NOW,
                description=needs,
                by_id=True,
                body=_schema("TokenChange"),
            ),
            "delete": _operation(
                "Revoke an API token",
                "revokeApiToken",
                {"204": {"description": "It is refused from now on."}, **_NO_TOKEN},
                description=needs,
                by_id=True,
            ),
        },
        f"{listed}/{{id}}/rotate": {
            "post": _operation(
                "Put a new API token in its place",
                "rotateApiToken",
                made | _NO_TOKEN | _NOT_NOW,
                description=needs + " Both are good for the overlap.",
                by_id=True,
                body=_schema("Rotation"),
                optional_body=True,
            ),
        },
        f"{listed}/{{id}}/reveal": {
            "post": _operation(
                "Reveal the token made at sign-up, once",
                "revealApiToken",
                revealed | _NO_TOKEN | gone,
                description=needs,
                by_id=True,
            ),
        },
    }


def openapi_document(prefix: str, *, organizations: bool = True) -> dict[str, Any]:
    """Assemble the document.

    Args:
        prefix: The setting `api.prefix`.
        organizations: The setting `api.organizations`.
    """
    paths = _current_user(prefix) | _api_tokens(prefix)
    if organizations:
        answer = {"200": _json("The organization.", _schema("OrganizationDocument"))}
        operation = _operation("The organization the caller acts in", "currentOrganization", answer)
        paths[f"{prefix}/organizations/current"] = {"get": operation}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Actorgate", "version": __version__, "description": "Own endpoints of the gateway."},
        "paths": paths,
        "components": {"schemas": _schemas(), "securitySchemes": _SECURITY},
        "security": [{name: []} for name in _SECURITY],
    }


def _schemas() -> dict[str, Any]:
    models = [(document, "serialization") for document in _DOCUMENTS] + [(body, "validation") for body in _BODIES]
    _, schemas = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    return dict(schemas["$defs"])
