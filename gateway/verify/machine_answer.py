"""What Clerk's Backend API says of an opaque machine token, judged. Pure.

A 200 alone proves nothing: it comes for revoked and expired tokens too, and as `{"active": false}` (clerk/openapi-specs
bapi/2026-05-12, verifyApiKey, verifyOAuthAccessToken, verifyM2MToken). What does not say clearly that the token is good
is no answer, and nobody is told that their token is bad because of it.
"""

import math
from collections.abc import Mapping
from typing import Any

from gateway.credentials.kinds import CredentialKind
from gateway.errors import CredentialRejected
from gateway.verify.machine import MachineRules, Statement, is_id, machine_principal
from gateway.verify.principal import Principal

_OBJECTS = {
    CredentialKind.CLERK_API_KEY: "api_key",
    CredentialKind.CLERK_OAUTH: "clerk_idp_oauth_access_token",
    CredentialKind.CLERK_M2M: "machine_to_machine_token",
}
# Clerk gives milliseconds for API keys and machines, seconds for OAuth, and its examples mix them up. As seconds this
# is the year 5138, as milliseconds 1973: no token lived then, and `expired` is looked at besides.
_MILLISECONDS_FROM = 1e11


class AnswerMalformed(Exception):
    """It is no answer to the question."""


def read_answer(
    document: Mapping[str, Any], kind: CredentialKind, token: str, rules: MachineRules, now: float
) -> Principal:
    """Say who a token speaks for.

    Args:
        document: The body of a 200.
        kind: Of the token that was asked about.
        token: Its text, which must not come back as its id: ids are told to upstreams and logs.
        rules: Of the instance.
        now: Unix seconds.

    Raises:
        CredentialRejected: `machine_inactive`, `machine_revoked` or `machine_expired`; else as `machine_principal`.
        AnswerMalformed: Something that must be said is not, or is said in another way.
    """
    if document.get("active", True) is not True:
        raise CredentialRejected("machine_inactive")
    if document.get("object", _OBJECTS[kind]) != _OBJECTS[kind]:
        raise AnswerMalformed
    for flag, reason in (("revoked", "machine_revoked"), ("expired", "machine_expired")):
        value = document.get(flag)
        if value is True:
            raise CredentialRejected(reason)
        if value is not False:
            raise AnswerMalformed
    expires_at = _moment(document.get("expiration"))
    if expires_at <= now:
        raise CredentialRejected("machine_expired")
    scopes, token_id = document.get("scopes"), document.get("id")
    if not isinstance(scopes, list | None) or not is_id(token_id) or token_id == token:
        raise AnswerMalformed
    if not isinstance(document.get("subject"), str):
        raise AnswerMalformed
    client, organization = document.get("client_id"), document.get("org_id")
    statement = Statement(document["subject"], scopes or (), "", expires_at, token_id, client, organization)
    return machine_principal(statement, kind, rules)


def _moment(value: object) -> float:
    """Unix seconds of `expiration`; infinite for null."""
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise AnswerMalformed
    return value / 1000 if value >= _MILLISECONDS_FROM else float(value)
