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
    KeySetDocument,
    NewApiTokenDocument,
    OrganizationDocument,
    ProblemDocument,
    WebsocketTokenDocument,
    WebsocketTokenWish,
)

_DOCUMENTS = (
    CurrentUserDocument,
    OrganizationDocument,
    ApiTokenDocument,
    ApiTokenList,
    NewApiTokenDocument,
    KeySetDocument,
    ProblemDocument,
    WebsocketTokenDocument,
)
JWKS_PATH = "/.well-known/jwks.json"
_BODIES = (NewToken, TokenChange, Rotation, WebsocketTokenWish)
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


_TEXT = {"type": "string"}
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
) -> dict[str, Any]:
    """Describe one method of a path."""
    operation: dict[str, Any] = {"summary": summary, "operationId": operation_id}
    if description:
        operation["description"] = description
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


_NEEDS = "A session, or an API token with the scope `tokens:manage`; not while somebody acts as the user."
_SHOWN = {"200": _json("The token, without its secret.", _schema("ApiTokenDocument"))}
_MADE = {"201": _json("The token with its text, shown this once.", _schema("NewApiTokenDocument"))}


def _api_tokens(prefix: str) -> dict[str, Any]:
    listed = f"{prefix}/users/current/api-tokens"
    items = {"200": _json("Those that live, newest first, then those that ended.", _schema("ApiTokenList"))}
    new = _schema("NewToken")
    return {
        listed: {
            "get": _operation("List API tokens", "listApiTokens", items, description=_NEEDS),
            "post": _operation("Make an API token", "createApiToken", _MADE | _NOT_NOW, description=_NEEDS, body=new),
        },
        **_one_api_token(f"{listed}/{{id}}"),
    }


def _one_api_token(path: str) -> dict[str, Any]:
    changed, gone = _SHOWN | _NO_TOKEN | _NOT_NOW, {"204": {"description": "It is refused from now on."}, **_NO_TOKEN}
    revealed = {"200": _json("The token with its text.", _schema("NewApiTokenDocument")), **_NO_TOKEN}
    revealed["410"] = _problem("There is no secret to reveal any more.")
    operations = {
        path: {
            "get": _operation("Show an API token", "showApiToken", _SHOWN | _NO_TOKEN, description=_NEEDS),
            "patch": _operation(
                "Rename or rescope an API token",
                "changeApiToken",
                changed,
                description=_NEEDS,
                body=_schema("TokenChange"),
            ),
            "delete": _operation("Revoke an API token", "revokeApiToken", gone, description=_NEEDS),
        },
        f"{path}/rotate": {
            "post": _operation(
                "Put a new API token in its place",
                "rotateApiToken",
                _MADE | _NO_TOKEN | _NOT_NOW,
                description=_NEEDS + " Both are good for the overlap.",
                body=_schema("Rotation"),
                optional_body=True,
            ),
        },
        f"{path}/reveal": {
            "post": _operation("Reveal the token made at sign-up", "revealApiToken", revealed, description=_NEEDS)
        },
    }
    for methods in operations.values():
        for operation in methods.values():
            operation["parameters"] = [_ID]
    return operations


def _leaked_tokens(prefix: str) -> dict[str, Any]:
    fields = ("Github-Public-Key-Identifier", "Github-Public-Key-Signature")
    find = {"type": "object", "required": ["token"], "properties": {"token": _TEXT, "type": _TEXT}}
    label = {"enum": ["true_positive", "false_positive"]}
    answer = {"type": "object", "properties": {"token_hash": _TEXT, "token_type": _TEXT, "label": label}}
    operation = _operation(
        "Report tokens found in public",
        "reportLeakedTokens",
        {"200": _json("For each find whether it was one of ours.", {"type": "array", "items": answer})},
        description="For a secret scanning service, which signs the body (ECDSA on P-256 with SHA-256).",
        body={"type": "array", "items": find},
    )
    operation["parameters"] = [{"name": name, "in": "header", "required": True, "schema": _TEXT} for name in fields]
    operation["security"] = []
    return {f"{prefix}/tokens/leaked": {"post": operation}}


def openapi_document(prefix: str, *, organizations: bool = True, leaks: bool = False) -> dict[str, Any]:
    """Assemble the document.

    Args:
        prefix: The setting `api.prefix`.
        organizations: The setting `api.organizations`.
        leaks: Whether reports of leaked tokens are taken.
    """
    paths = (
        _current_user(prefix)
        | _websocket_token(prefix)
        | _api_tokens(prefix)
        | (_leaked_tokens(prefix) if leaks else {})
    )
    paths[JWKS_PATH] = {"get": _key_set()}
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


def _websocket_token(prefix: str) -> dict[str, Any]:
    create = _operation(
        "A token to open a websocket with, or for an open one to live on",
        "createWebsocketToken",
        {
            "201": _json("The token.", _schema("WebsocketTokenDocument")),
            "404": _problem("The caller has no open websocket of this id in the process that answers."),
        },
        description="API tokens need the scope `tokens:mint`. The body may be left out.",
        body=_schema("WebsocketTokenWish"),
        optional_body=True,
    )
    return {f"{prefix}/users/current/websocket-token": {"post": create}}


def _key_set() -> dict[str, Any]:
    return {
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


def _schemas() -> dict[str, Any]:
    models = [(document, "serialization") for document in _DOCUMENTS] + [(body, "validation") for body in _BODIES]
    _, schemas = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    return dict(schemas["$defs"])
