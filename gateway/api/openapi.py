"""`GET /openapi.json`: OpenAPI 3.1 of the own endpoints, assembled from the shapes they answer with."""

from collections.abc import Iterable
from typing import Any, get_args

from pydantic.json_schema import models_json_schema

from gateway import __version__
from gateway.api.api_tokens import NewToken, Rotation, TokenChange
from gateway.api.audit_events import AuditQuery
from gateway.api.documents import (
    ApiTokenDocument,
    ApiTokenList,
    AuditEventDocument,
    AuditEventList,
    CurrentUserDocument,
    KeySetDocument,
    NewApiTokenDocument,
    OrganizationDocument,
    ProblemDocument,
    WebsocketTokenDocument,
    WebsocketTokenWish,
)
from gateway.api.listing import DEFAULT_LIMIT, MOST
from gateway.api.openapi_parts import FOR_ADMINISTRATORS as _FOR_ADMINISTRATORS
from gateway.api.openapi_parts import NO_USER as _NO_USER
from gateway.api.openapi_parts import OBJECT as _OBJECT
from gateway.api.openapi_parts import PROBLEMS as _PROBLEMS
from gateway.api.openapi_parts import STUCK as _STUCK
from gateway.api.openapi_parts import TEXT as _TEXT
from gateway.api.openapi_parts import USER_ID as _USER_ID
from gateway.api.openapi_parts import json_of as _json
from gateway.api.openapi_parts import operation as _operation
from gateway.api.openapi_parts import problem as _problem
from gateway.api.openapi_parts import schema as _schema
from gateway.api.openapi_sign_outs import sign_out_paths
from gateway.api.people import RoleChange
from gateway.api.people_documents import (
    MemberList,
    PersonDetailDocument,
    PersonDocument,
    PersonList,
    RepairDocument,
)
from gateway.api.sign_outs import SignOutDocument, SignOutWish
from provisioning.stripe_subscriptions import Outcome

_DOCUMENTS = (
    CurrentUserDocument,
    OrganizationDocument,
    ApiTokenDocument,
    ApiTokenList,
    NewApiTokenDocument,
    KeySetDocument,
    AuditEventDocument,
    AuditEventList,
    ProblemDocument,
    WebsocketTokenDocument,
    PersonDocument,
    PersonDetailDocument,
    PersonList,
    MemberList,
    RepairDocument,
    SignOutDocument,
)
JWKS_PATH = "/.well-known/jwks.json"
_BODIES = (NewToken, TokenChange, Rotation, WebsocketTokenWish, RoleChange, SignOutWish)
_SECURITY = {
    "session": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "sessionCookie": {"type": "apiKey", "in": "cookie", "name": "__session"},
    "apiToken": {"type": "http", "scheme": "bearer", "bearerFormat": "agt_…"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
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


def _stripe_webhooks(prefix: str) -> dict[str, Any]:
    return _webhook(
        f"{prefix}/webhooks/stripe",
        "An event of Stripe",
        "stripeWebhook",
        get_args(Outcome),
        ("Stripe-Signature",),
        "For Stripe, which signs the raw body with the secret of this endpoint and sends again on 5xx.",
    )


def _clerk_webhooks(prefix: str) -> dict[str, Any]:
    return _webhook(
        f"{prefix}/webhooks/clerk",
        "An event of Clerk's",
        "clerkWebhook",
        ("applied", "outdated", "duplicate", "ignored"),
        ("svix-id", "svix-timestamp", "svix-signature"),
        "Signed by Svix over the raw body. An answer other than 2xx is an invitation to send it again.",
    )


def _webhook(
    path: str, summary: str, operation_id: str, outcomes: Iterable[str], fields: Iterable[str], description: str
) -> dict[str, Any]:
    answer = {"type": "object", "properties": {"outcome": {"enum": list(outcomes)}}}
    operation = _operation(
        summary,
        operation_id,
        {"200": _json("It is on disk, or known, or has no effect here.", answer)},
        description=description,
        body=_OBJECT,
    )
    for status in ("401", "403", "415", "422"):
        del operation["responses"][status]
    operation["parameters"] = [{"name": name, "in": "header", "required": True, "schema": _TEXT} for name in fields]
    operation["security"] = []
    return {path: {"post": operation}}


_PAGE = [
    {"name": "cursor", "in": "query", "description": "`nextCursor` of the page before.", "schema": _TEXT},
    {
        "name": "limit",
        "in": "query",
        "description": "Most items in a page.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MOST, "default": DEFAULT_LIMIT},
    },
]


def _people(prefix: str) -> dict[str, Any]:
    person = {"200": _json("The user, as they are now.", _schema("PersonDocument"))}
    listed = {"200": _json("Who came last is first.", _schema("PersonList"))}
    detail = {"200": _json("The user and where they belong.", _schema("PersonDetailDocument")), **_NO_USER}
    changed = person | _NO_USER | _STUCK
    about: dict[str, Any] = {"description": _FOR_ADMINISTRATORS}
    search = {"name": "search", "in": "query", "schema": _TEXT}
    search["description"] = "Our id, Clerk's id, or how an e-mail address begins."
    one = f"{prefix}/admin/users/{{id}}"
    paths = {
        f"{prefix}/admin/users": {"get": _operation("List users", "listUsers", listed, **about)},
        one: {"get": _operation("Show a user", "showUser", detail, **about)},
        f"{one}/role": {
            "patch": _operation("Give a user a role", "setRole", changed, **about, body=_schema("RoleChange"))
        },
        f"{one}/disable": {"post": _operation("Refuse a user everything", "disableUser", changed, **about)},
        f"{one}/enable": {"post": _operation("Let a disabled user call again", "enableUser", changed, **about)},
    }
    for path, methods in paths.items():
        for operation in methods.values():
            operation["parameters"] = [_USER_ID] if path.startswith(one) else [search, *_PAGE]
    return paths


def _repair(prefix: str) -> dict[str, Any]:
    repaired = {"200": _json("What was there, and what was made.", _schema("RepairDocument")), **_NO_USER, **_STUCK}
    operation = _operation("Provision a user again", "repairUser", repaired, description=_FOR_ADMINISTRATORS)
    operation["parameters"] = [_USER_ID]
    return {f"{prefix}/users/{{id}}/debug/provision": {"post": operation}}


def _organization(prefix: str) -> dict[str, Any]:
    answer = {"200": _json("The organization.", _schema("OrganizationDocument"))}
    members = {"200": _json("The oldest membership is first.", _schema("MemberList"))}
    listing = _operation("Who is in the organization the caller acts in", "currentMembers", members)
    listing["parameters"] = _PAGE
    return {
        f"{prefix}/organizations/current": {
            "get": _operation("The organization the caller acts in", "currentOrganization", answer)
        },
        f"{prefix}/organizations/current/members": {"get": listing},
        f"{prefix}/organizations/current/audit-events": {"get": _audit_events()},
    }


def openapi_document(
    prefix: str,
    *,
    organizations: bool = True,
    leaks: bool = False,
    stripe: bool = False,
    clerk_webhooks: bool = False,
    admin: bool = True,
    debug: bool = False,
) -> dict[str, Any]:
    """Assemble the document.

    Args:
        prefix: The setting `api.prefix`.
        organizations: The setting `api.organizations`.
        leaks: Whether reports of leaked tokens are taken.
        stripe: Whether webhooks of Stripe are taken.
        clerk_webhooks: Whether Clerk's are.
        admin: The setting `api.admin`.
        debug: The setting `debug.enabled`.
    """
    paths = (
        _current_user(prefix)
        | _websocket_token(prefix)
        | _api_tokens(prefix)
        | (_leaked_tokens(prefix) if leaks else {})
        | (_stripe_webhooks(prefix) if stripe else {})
        | (_clerk_webhooks(prefix) if clerk_webhooks else {})
        | (_organization(prefix) if organizations else {})
        | (_people(prefix) if admin else {})
        | (_repair(prefix) if debug else {})
    )
    paths |= sign_out_paths(prefix, admin=admin)
    paths[JWKS_PATH] = {"get": _key_set()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Actorgate", "version": __version__, "description": "Own endpoints of the gateway."},
        "paths": paths,
        "components": {"schemas": _schemas(), "securitySchemes": _SECURITY},
        "security": [{name: []} for name in _SECURITY],
    }


def _audit_events() -> dict[str, Any]:
    operation = _operation(
        "What was done in the organization",
        "listAuditEvents",
        {
            "200": _json("Newest first.", _schema("AuditEventList")),
        },
        description="For administrators of the organization; API tokens need the scope `audit:read` as well.",
    )
    schema = AuditQuery.model_json_schema()["properties"]
    operation["parameters"] = [
        {"name": name, "in": "query", "required": False, "description": facts.pop("description"), "schema": facts}
        for name, facts in schema.items()
    ]
    return operation


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
