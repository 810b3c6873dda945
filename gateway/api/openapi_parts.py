"""Pieces that the OpenAPI document of the own endpoints is put together from."""

from collections.abc import Mapping
from typing import Any


def schema(name: str) -> dict[str, str]:
    """Refer to a shape by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def json_of(description: str, shape: Mapping[str, Any]) -> dict[str, Any]:
    """Describe an answer that is JSON."""
    return {"description": description, "content": {"application/json": {"schema": dict(shape)}}}


def problem(description: str) -> dict[str, Any]:
    """Describe a refusal."""
    return {
        "description": description,
        "content": {"application/problem+json": {"schema": schema("ProblemDocument")}},
    }


PROBLEMS = {
    "400": problem("The request is malformed, or its credentials contradict each other."),
    "401": problem("No credential, or one that was checked and is bad."),
    "403": problem("Known, and not allowed."),
    "503": problem("Keys or records cannot be asked now; try again after Retry-After seconds."),
}


TEXT = {"type": "string"}
OBJECT = {"type": "object", "additionalProperties": True}
BODY_PROBLEMS = {
    "413": problem("The body, or what it would make, is too large."),
    "415": problem("The body is not sent as application/json."),
    "422": problem("The body is not what this endpoint takes; `errors` says where."),
}
FOR_ADMINISTRATORS = (
    "A session of a user with role ADMIN, or an API token of one with scope `admin`; not while somebody acts as them."
)
USER_ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "`usr_…`, as listed.",
    "schema": {"type": "string", "pattern": "^usr_[0-9A-Za-z]{22}$"},
}
NO_USER = {"404": problem("There is no such user.")}
STUCK = {"409": problem("A tombstone, or the caller would take their own rights away.")}


def operation(
    summary: str,
    operation_id: str,
    answers: Mapping[str, Any],
    *,
    description: str = "",
    body: Mapping[str, Any] | None = None,
    optional_body: bool = False,
) -> dict[str, Any]:
    """Describe one method of a path."""
    described: dict[str, Any] = {"summary": summary, "operationId": operation_id}
    if description:
        described["description"] = description
    if body is not None:
        described["requestBody"] = {"required": not optional_body, "content": {"application/json": {"schema": body}}}
    described["responses"] = {**answers, **PROBLEMS, **(BODY_PROBLEMS if body is not None else {})}
    return described
