"""The rules of Clerk's machine tokens, of both forms: for whom they may speak, for whom they are made. Pure.

Source: clerk/javascript packages/backend/src/tokens/verify.ts and jwt/verifyMachineJwt.ts, @clerk/backend 3.25.0. The
JWT forms are judged as sessions are (`session.py`), authorized parties aside: no browser made them. Stricter than
Clerk's library: `iss` always, the subject's class, a category of another use on an OAuth token, and scopes, of which
those that mean something here are Clerk's to give to nobody.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from config.grammar import BUILT_IN_SCOPES
from config.model import Clerk
from gateway.credentials.jwt_text import UnverifiedJwt
from gateway.credentials.kinds import Carrier, CredentialKind
from gateway.credentials.machine import OAUTH_TYPES
from gateway.errors import CredentialRejected
from gateway.verify.principal import Principal
from gateway.verify.session import (
    CATEGORY_MACHINE,
    CATEGORY_SESSION,
    CATEGORY_TEMPLATE,
    SessionRules,
    check_claims,
    key_id,
)

_SUBJECTS = {
    CredentialKind.CLERK_API_KEY: re.compile(r"(?:user|org)_[A-Za-z0-9_]{1,200}"),
    CredentialKind.CLERK_OAUTH: re.compile(r"user_[A-Za-z0-9_]{1,200}"),
    CredentialKind.CLERK_M2M: re.compile(r"mch_[A-Za-z0-9_]{1,200}"),
}
# OAuth tokens are known by `typ`, and Clerk's library looks at no category of theirs. These would be another use.
_NO_OAUTH = frozenset({CATEGORY_SESSION, CATEGORY_TEMPLATE, CATEGORY_MACHINE})
_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,255}")  # RFC 6749 §3.3
# `*` tells upstreams that nothing is limited. The others open own endpoints, and are given here alone.
_NOT_CLERKS = frozenset({"*", *BUILT_IN_SCOPES})


@dataclass(frozen=True, slots=True)
class MachineRules:
    """What machine tokens of one instance must say.

    Attributes:
        jwt: Rules of the JWT forms.
        oauth_clients: The OAuth applications (`client_…`) whose tokens are taken; empty: all of the instance.
        machine_id: The machine (`mch_…`) that tokens of machines must be made for; None: any.
    """

    jwt: SessionRules
    oauth_clients: frozenset[str] = frozenset()
    machine_id: str | None = None

    @classmethod
    def of(cls, clerk: Clerk) -> "MachineRules":
        """Take the rules out of loaded settings."""
        return cls.beside(SessionRules.of(clerk), frozenset(clerk.oauth_clients), clerk.machine_id)

    @classmethod
    def beside(
        cls, sessions: SessionRules, oauth_clients: frozenset[str] = frozenset(), machine_id: str | None = None
    ) -> "MachineRules":
        """Make them of the rules for sessions."""
        return cls(replace(sessions, authorized_parties=()), oauth_clients, machine_id)


@dataclass(frozen=True, slots=True)
class Statement:
    """What a machine token says, whichever way it was checked.

    Attributes:
        subject: Of any class; absent or no text counts as none.
        scopes: As they stand there.
        issuer: Empty where Clerk was asked.
        expires_at: Unix seconds; infinite: it does not end.
        token_id: Clerk's id of it.
        client: The OAuth application it was made for.
        organization: Clerk's organization it was granted for; None: none.
    """

    subject: object
    scopes: Iterable[object]
    issuer: str
    expires_at: float
    token_id: object
    client: object = None
    organization: object = None


def machine_key_id(token: UnverifiedJwt, kind: CredentialKind, rules: MachineRules) -> str:
    """Judge the header of a JWT form and say which key must have signed.

    Raises:
        CredentialRejected: `token-invalid` for a token of another use; else as `session.key_id`.
    """
    category = token.header.get("cat")
    if kind is CredentialKind.CLERK_OAUTH:
        if isinstance(category, str) and category in _NO_OAUTH:
            raise CredentialRejected("token-invalid")
        return key_id(token, rules.jwt, types=OAUTH_TYPES)
    if kind is not CredentialKind.CLERK_M2M or ("cat" in token.header and category != CATEGORY_MACHINE):
        raise CredentialRejected("token-invalid")
    return key_id(token, rules.jwt, by_machine=True)


def read_machine(token: UnverifiedJwt, kind: CredentialKind, rules: MachineRules, now: float) -> Principal:
    """Judge the claims of a JWT form whose signature was checked, and say who it speaks for.

    Raises:
        CredentialRejected: `machine_impersonation`; else as `session.check_claims` and `machine_principal`.
    """
    claims = check_claims(token, rules.jwt, Carrier.HEADER, now)
    if claims.get("act") is not None:  # Clerk describes none on these; to leave it out would hide somebody
        raise CredentialRejected("machine_impersonation")
    expires_at = claims["exp"]
    statement = Statement(
        claims["sub"],
        _scopes_of(claims, kind),
        str(claims["iss"]),
        float(expires_at) if isinstance(expires_at, int | float) else 0.0,
        claims.get("jti"),
        claims.get("client_id"),
        claims.get("org_id") or claims.get("o"),
    )
    return machine_principal(statement, kind, rules)


def machine_principal(statement: Statement, kind: CredentialKind, rules: MachineRules) -> Principal:
    """Judge for whom a machine token speaks and for whom it is made, and say so.

    Raises:
        CredentialRejected: `machine_subject`, of a class that this kind does not speak for; `machine_client`, made for
            another application; `machine_organization`, granted for an organization; `machine_audience`, made for other
            machines; `token-verification-failed`, an id that is none.
    """
    subject, token_id = statement.subject, statement.token_id
    if not isinstance(subject, str) or _SUBJECTS[kind].fullmatch(subject) is None:
        raise CredentialRejected("machine_subject")
    if token_id is not None and not is_id(token_id):
        raise CredentialRejected("token-verification-failed")
    if kind is CredentialKind.CLERK_OAUTH:
        client = statement.client if isinstance(statement.client, str) else ""
        if rules.oauth_clients and client not in rules.oauth_clients:
            raise CredentialRejected("machine_client")
        if statement.organization:
            # It says no role there that could be believed, and any other organization would be the wrong one.
            raise CredentialRejected("machine_organization")
    scopes = kept_scopes(statement.scopes)
    if kind is CredentialKind.CLERK_M2M and rules.machine_id is not None and rules.machine_id not in scopes:
        raise CredentialRejected("machine_audience")
    return Principal(
        kind=kind,
        carrier=Carrier.HEADER,
        issuer=statement.issuer,
        subject=subject,
        expires_at=statement.expires_at,
        scopes=scopes,
        token_id=token_id if isinstance(token_id, str) else None,
    )


def is_id(value: object) -> bool:
    """Tell whether this can be an id of Clerk's."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def kept_scopes(scopes: Iterable[object]) -> tuple[str, ...]:
    """Give the scopes that a token of Clerk's can carry here, each once; what is no scope narrows nothing by going."""
    texts = (scope for scope in scopes if isinstance(scope, str))
    return tuple(dict.fromkeys(text for text in texts if text not in _NOT_CLERKS and _SCOPE.fullmatch(text)))


def _scopes_of(claims: Mapping[str, object], kind: CredentialKind) -> list[object]:
    """`scp`, a list, else `scope`, words, of OAuth; `scopes`, words, else `aud` of machines."""
    first, second = ("scp", "scope") if kind is CredentialKind.CLERK_OAUTH else ("scopes", "aud")
    value = claims[first] if claims.get(first) is not None else claims.get(second)
    if isinstance(value, str):
        return list(value.split(" "))
    return value if isinstance(value, list) else []
