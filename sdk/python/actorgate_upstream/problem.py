"""How a refusal is told: the same for all frameworks."""

import json

from actorgate_upstream.errors import AssertionRefused

_DETAIL = {
    "assertion_missing": "This application answers requests that come through its gateway.",
    "assertion_invalid": "The gateway's word on who calls is not valid.",
    "keys_unavailable": "Who calls cannot be checked now; try again.",
}


def problem(error: AssertionRefused) -> tuple[int, dict[str, str], bytes]:
    """Give status, fields and body (RFC 9457); the body says no more than the code does."""
    fields = {"Content-Type": "application/problem+json", "Cache-Control": "no-store"}
    if error.status == 401:
        fields["WWW-Authenticate"] = "ActorAssertion"
        title = "Unauthorized"
    else:
        fields["Retry-After"] = "1"
        title = "Service Unavailable"
    body = {"type": "about:blank", "title": title, "status": error.status, "code": error.code}
    return error.status, fields, json.dumps({**body, "detail": _DETAIL[error.code]}).encode()
