"""Cookies as Clerk's front end sets them for a development instance. Pure, but for the random dev-browser id.

Cookies know no ports: what the issuer sets at `127.0.0.1:5555` a browser also sends to the gateway at `127.0.0.1:8080`.
"""

import secrets
from collections.abc import Mapping

from aiohttp import web

YEAR_S = 365 * 86400


def session_cookies(suffix: str, token: str, issued_at: int) -> Mapping[str, str]:
    """Name the cookies of a signed-in browser and their values.

    Each has a twin with the instance's suffix. `__client_uat` must not lie after the token's `iat`, or the session
    counts as stale; on test instances a session without the dev-browser cookie counts for nothing.
    """
    plain = {
        "__session": token,
        "__client_uat": str(issued_at),
        "__clerk_db_jwt": f"dvb_{secrets.token_urlsafe(20)}",
    }
    return plain | {f"{name}_{suffix}": value for name, value in plain.items()}


def set_signed_in(response: web.StreamResponse, suffix: str, token: str, issued_at: int) -> None:
    """Sign the browser in. `__session` is readable by scripts and ends with the browser, both as at Clerk."""
    for name, value in session_cookies(suffix, token, issued_at).items():
        life_s = None if name.startswith("__session") else YEAR_S
        response.set_cookie(name, value, path="/", samesite="Lax", max_age=life_s)


def set_signed_out(response: web.StreamResponse, suffix: str) -> None:
    """Sign the browser out: the sessions go, `__client_uat` says 0, the browser keeps its own id."""
    for name in ("__session", f"__session_{suffix}"):
        response.del_cookie(name, path="/", samesite="Lax")
    for name in ("__client_uat", f"__client_uat_{suffix}"):
        response.set_cookie(name, "0", path="/", samesite="Lax", max_age=YEAR_S)
