"""Claims of a session token, read into a Principal. Pure; the signature was checked before.

Clerk's claims come in two versions, told apart by `v` alone (Clerk docs, sessions/session-tokens; clerk/javascript
packages/shared/src/jwtPayloadParser.ts). Ids, roles and permissions end in header lines, so anything but visible ASCII
is refused here, where a token can still be refused.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import NewType

from gateway.credentials.kinds import Carrier, CredentialKind
from gateway.errors import CredentialRejected
from gateway.verify.principal import ClerkOrganization, Impersonator, Principal

VerifiedClaims = NewType("VerifiedClaims", Mapping[str, object])
"""Claims whose signature, issuer and times were checked (`session.py`)."""

_VISIBLE = re.compile(r"[!-~]{1,255}", re.ASCII)
_MASK = re.compile(r"[0-9]{1,1024}", re.ASCII)
_ORGANIZATION_SCOPES = frozenset({"o", "ou", "uo"})
_MAX_PROFILE_CHARS = 320  # the longest e-mail address (RFC 3696 erratum 1690); no name needs more


def read_principal(
    claims: VerifiedClaims, carrier: Carrier, name_claims: Sequence[str] = (), email_claims: Sequence[str] = ()
) -> Principal:
    """Say who verified claims speak for.

    Args:
        claims: Must have `sub`, `iss` and `exp` of the right types.
        carrier: Where the token was carried.
        name_claims: Claims that may hold the person's name; the first usable one counts.
        email_claims: The same for the e-mail address.

    Raises:
        CredentialRejected: `token-verification-failed`: an id no header line can carry, an unknown `v`, or an `act`
            or organization of another shape than Clerk's.
    """
    version = claims.get("v", 1)
    if type(version) is not int or version not in (1, 2):  # bool is an int in Python, not in JSON
        raise CredentialRejected("token-verification-failed")
    expires_at = claims["exp"]
    if not isinstance(expires_at, int | float):
        raise CredentialRejected("token-verification-failed")
    issued_at = claims.get("iat")
    return Principal(
        kind=CredentialKind.SESSION,
        carrier=carrier,
        issuer=str(claims["iss"]),
        subject=_id(claims["sub"]),
        expires_at=float(expires_at),
        session_id=_optional_id(claims.get("sid")),
        organization=_organization_v2(claims) if version == 2 else _organization_v1(claims),
        impersonator=_impersonator(claims.get("act")),
        # Clerk knows `active` and `pending`; a status we do not know is no active session.
        pending=claims.get("sts") not in (None, "active"),
        features=_entries(claims.get("fea")),
        plans=_entries(claims.get("pla")),
        factor_ages=_factor_ages(claims.get("fva")),
        name=_profile(claims, name_claims),
        email=_profile(claims, email_claims, _is_address),
        issued_at=float(issued_at) if isinstance(issued_at, int | float) else None,  # its range was checked
    )


def _id(value: object) -> str:
    if not isinstance(value, str) or _VISIBLE.fullmatch(value) is None:
        raise CredentialRejected("token-verification-failed")
    return value


def _optional_id(value: object) -> str | None:
    return None if value is None else _id(value)


def _organization_v1(claims: VerifiedClaims) -> ClerkOrganization | None:
    """`org_id`, `org_slug`, `org_role` (`org:admin`), `org_permissions`; an `o` claim means nothing here."""
    if claims.get("org_id") is None:
        return None
    listed = claims.get("org_permissions")
    permissions = tuple(p for p in listed if _is_visible(p)) if isinstance(listed, list) else ()
    return ClerkOrganization(
        _id(claims["org_id"]), _slug(claims.get("org_slug")), _role(claims.get("org_role")), permissions
    )


def _organization_v2(claims: VerifiedClaims) -> ClerkOrganization | None:
    """`o: {id, slg, rol, per, fpm}`; `org_*` claims mean nothing here."""
    active = claims.get("o")
    if active is None:
        return None
    if not isinstance(active, dict):
        raise CredentialRejected("token-verification-failed")
    permissions = decode_permissions(claims.get("fea"), active.get("per"), active.get("fpm"))
    return ClerkOrganization(_id(active.get("id")), _slug(active.get("slg")), _role(active.get("rol")), permissions)


def decode_permissions(features: object, names: object, masks: object) -> tuple[str, ...]:
    """Decode `fea`, `o.per` and `o.fpm` into full permission names.

    Mask i belongs to a feature, and its bit b (from the lowest) grants `names[b]`. Which feature is disputed: Clerk's
    documentation and most SDKs count every entry of `fea`, the JavaScript SDK those of the organization only. They
    agree while organization features come first; where they differ, only what both grant is granted.

    Returns:
        `org:feature:permission` in the token's order. Empty when any part is missing or malformed: a mask that cannot
        be read leaves the place of all others in doubt.
    """
    if not (isinstance(features, str) and isinstance(names, str) and isinstance(masks, str)):
        return ()
    entries = [entry.strip().split(":") for entry in features.split(",")]
    texts = masks.split(",")
    if any(len(entry) != 2 for entry in entries) or not all(_MASK.fullmatch(text) for text in texts):
        return ()
    per, bits = [name.strip() for name in names.split(",")], [int(text) for text in texts]
    documented = _granted(entries, per, bits)
    scripted = frozenset(_granted([entry for entry in entries if entry[0] in _ORGANIZATION_SCOPES], per, bits))
    return tuple(permission for permission in documented if permission in scripted)


def _granted(entries: Sequence[Sequence[str]], per: Sequence[str], bits: Sequence[int]) -> list[str]:
    """Name what masks grant, entry by entry; bits beyond `per` and masks beyond `entries` grant nothing."""
    granted = [
        f"org:{feature}:{name}"
        for (scope, feature), mask in zip(entries, bits, strict=False)
        if scope in _ORGANIZATION_SCOPES
        for place, name in enumerate(per)
        if mask >> place & 1 and feature and name
    ]
    return [permission for permission in dict.fromkeys(granted) if _is_visible(permission)]


def _is_visible(value: object) -> bool:
    """True for text that stays one word in a header line; other permissions are not granted."""
    return isinstance(value, str) and _VISIBLE.fullmatch(value) is not None


def _role(value: object) -> str:
    """The role without `org:`. A token without one gives the empty role, which no rule matches."""
    return "" if value is None else _id(value).removeprefix("org:")


def _slug(value: object) -> str | None:
    return value if isinstance(value, str) and _VISIBLE.fullmatch(value) else None


def _impersonator(value: object) -> Impersonator | None:
    """`act: {iss, sid, sub}` (RFC 8693 §4.1). A malformed one is refused: dropping it would hide the impersonation."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise CredentialRejected("token-verification-failed")
    return Impersonator(_id(value.get("sub")), _optional_id(value.get("sid")))


def _entries(value: object) -> tuple[str, ...]:
    """Split `fea` or `pla`; entries that are no single word mean nothing."""
    if not isinstance(value, str):
        return ()
    return tuple(entry for entry in map(str.strip, value.split(",")) if _is_visible(entry))


def _factor_ages(value: object) -> tuple[int, int] | None:
    """`fva`: two whole numbers of minutes, -1 for never; anything else counts as never verified."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    first, second = value
    if type(first) is not int or type(second) is not int or first < -1 or second < -1:
        return None
    return first, second


def _profile(claims: VerifiedClaims, names: Sequence[str], fits: Callable[[str], bool] = bool) -> str | None:
    """Give the first claim that is text a database and a log line can hold, and that fits."""
    for name in names:
        value = claims.get(name)
        text = value.strip() if isinstance(value, str) else ""
        plain = not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)
        if 0 < len(text) <= _MAX_PROFILE_CHARS and plain and fits(text):
            return text
    return None


def _is_address(text: str) -> bool:
    """Tell whether text looks like one e-mail address; one `@` only, so that no suffix can pose as the domain."""
    local, _, domain = text.partition("@")
    return local != "" and domain != "" and "@" not in domain and not any(map(str.isspace, text))
