"""The Actor: who calls, as the gateway knows them."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Organization:
    """Where the Actor acts.

    Attributes:
        id: `org_…` of the gateway's; empty for a system token.
        role: Without `org:`, such as `admin`.
        permissions: `org:feature:permission`.
    """

    id: str
    role: str
    permissions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who calls.

    Attributes:
        id: `usr_…`; `system:…` of a system token, Clerk's `mch_…` or `org_…` of a machine token without a user.
        role: `USER`, `ADMIN` or `SYSTEM`.
        auth: What they showed the gateway: `session`, `api_token`, …
        scopes: None: not limited by scopes.
        session_id: Clerk's, if there is one.
        token_id: `atk_…` of an API token, Clerk's id of a machine token, if it was one.
        impersonator_id: Who acts as this user, if somebody does.
        plan: Of the subscription, if known.
        flags: Feature flags.
        claims: All of the assertion.
    """

    id: str
    role: str
    auth: str
    organization: Organization
    scopes: frozenset[str] | None = None
    session_id: str | None = None
    token_id: str | None = None
    impersonator_id: str | None = None
    plan: str | None = None
    flags: Mapping[str, object] = field(default_factory=dict)
    claims: Mapping[str, object] = field(default_factory=dict, repr=False)

    def may(self, scope: str) -> bool:
        """Tell whether scopes allow this; permissions are another matter."""
        return self.scopes is None or scope in self.scopes

    @classmethod
    def of(cls, claims: Mapping[str, object]) -> "Actor":
        """Read verified claims.

        Raises:
            TypeError: One is not what the gateway writes.
            KeyError: One is missing.
        """
        organization, scopes, act = _mapping(claims["org"]), _texts(claims["scopes"]), claims.get("act")
        return cls(
            id=_text(claims["sub"]),
            role=_text(claims["role"]),
            auth=_text(claims["auth"]),
            organization=Organization(
                _text(organization["id"]), _text(organization["role"]), _texts(organization["permissions"])
            ),
            scopes=None if "*" in scopes else scopes,
            session_id=_optional(claims.get("sid")),
            token_id=_optional(claims.get("token_id")),
            impersonator_id=None if act is None else _text(_mapping(act)["sub"]),
            plan=_optional(claims.get("plan")),
            flags=_mapping(claims.get("flags") or {}),
            claims=claims,
        )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _optional(value: object) -> str | None:
    return None if value is None else _text(value)


def _texts(value: object) -> frozenset[str]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return frozenset(map(_text, value))


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value
