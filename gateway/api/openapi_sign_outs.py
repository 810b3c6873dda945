"""What `GET /openapi.json` says of ending sessions."""

from typing import Any

from gateway.api.openapi_parts import FOR_ADMINISTRATORS, NO_USER, STUCK, USER_ID, json_of, operation, schema

_ABOUT = (
    "Every session that began before ends, with whatever was minted for it; websockets close with 4401. A session "
    "alone may ask, and not while somebody acts as the user."
)


def sign_out_paths(prefix: str, *, admin: bool) -> dict[str, Any]:
    """Describe them.

    Args:
        prefix: The setting `api.prefix`.
        admin: The setting `api.admin`.
    """
    done = {"200": json_of("What has ended, and what has not yet.", schema("SignOutDocument"))}
    wish = schema("SignOutWish")
    own = operation("Sign out everywhere", "signOutEverywhere", done, description=_ABOUT, body=wish, optional_body=True)
    paths = {f"{prefix}/users/current/sign-out-everywhere": {"post": own}}
    if admin:
        theirs = operation(
            "End all sessions of a user",
            "revokeUser",
            {**done, **NO_USER, **STUCK},
            description=FOR_ADMINISTRATORS,
            body=wish,
            optional_body=True,
        )
        theirs["parameters"] = [USER_ID]
        paths[f"{prefix}/admin/users/{{id}}/revoke"] = {"post": theirs}
    return paths
