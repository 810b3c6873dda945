"""Questions policy asks of a Principal: role, permission, feature, plan, fresh verification.

They answer as Clerk's `has()` does (clerk/javascript packages/shared/src/authorization.ts) and fail closed: what a
token does not say is not granted. AND over several questions is the caller's.
"""

from collections.abc import Sequence
from typing import Literal

from gateway.verify.principal import Principal

Factor = Literal["first_factor", "second_factor", "multi_factor"]

_LEVELS: dict[str, tuple[Factor, int]] = {
    "strict_mfa": ("multi_factor", 10),
    "strict": ("second_factor", 10),
    "moderate": ("second_factor", 60),
    "lax": ("second_factor", 1440),
}
_SCOPES = frozenset({"o", "u", "ou", "uo"})
_SCOPE_LETTERS = {"o": "o", "org": "o", "organization": "o", "u": "u", "user": "u"}


def has_role(principal: Principal, role: str) -> bool:
    """Tell whether this is the role in the active organization; `org:` may lead the question."""
    organization = principal.organization
    wanted = role.removeprefix("org:")
    return organization is not None and wanted != "" and organization.role == wanted


def has_permission(principal: Principal, permission: str) -> bool:
    """Tell whether the active organization grants `feature:permission`; `org:` may lead the question."""
    organization = principal.organization
    return organization is not None and f"org:{permission.removeprefix('org:')}" in organization.permissions


def has_feature(principal: Principal, feature: str) -> bool:
    """Tell whether the token names the feature: `name` in any scope, `org:name` or `user:name` in that scope alone."""
    return _has_entry(principal.features, feature)


def has_plan(principal: Principal, plan: str) -> bool:
    """Tell whether the token names the plan, asked for as in `has_feature`."""
    return _has_entry(principal.plans, plan)


def is_plan(held: str, plan: str) -> bool:
    """Tell whether the plan an organization has is the one asked for: `name`, or `name` in the organization's scope.

    Args:
        held: Of our records; empty: none.
        plan: As in `has_plan`.
    """
    scope, colon, name = plan.rpartition(":")
    return held != "" and name == held and (not colon or _SCOPE_LETTERS.get(scope) == "o")


def is_reverified(level: str, factor_ages: tuple[int, int] | None) -> bool:
    """Tell whether factors were verified recently enough for one of Clerk's levels; an unknown level never is.

    Args:
        level: `lax`, `moderate`, `strict` or `strict_mfa`.
        factor_ages: Minutes since first and second factor, -1 when never; None when the token does not say.
    """
    known = _LEVELS.get(level)
    return known is not None and is_fresh(known[0], known[1], factor_ages)


def is_fresh(factor: Factor, after_minutes: int, factor_ages: tuple[int, int] | None) -> bool:
    """Tell whether `factor` was verified less than `after_minutes` ago.

    A person without a second factor (-1) is judged by the first.
    """
    if factor_ages is None:
        return False
    first, second = (-1 < age < after_minutes for age in factor_ages)
    has_second = factor_ages[1] != -1
    match factor:
        case "first_factor":
            return first
        case "second_factor":
            return second if has_second else first
        case "multi_factor":
            return first and (second or not has_second)


def _has_entry(entries: Sequence[str], question: str) -> bool:
    """Look for `[scope:]name` among entries like `o:reports`, `u:beta`, `uo:x`; one without a scope counts for none."""
    scope, colon, name = question.rpartition(":")
    letter = _SCOPE_LETTERS.get(scope) if colon else None
    if not name or (colon and letter is None):
        return False
    return any(
        held == name and scopes in _SCOPES and (letter is None or letter in scopes)
        for scopes, _, held in (entry.partition(":") for entry in entries)
    )
