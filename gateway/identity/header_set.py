"""The identity header set as a block of field lines, built once per Actor and written as it stands.

Values are ASCII: anything else is percent-encoded as UTF-8 (RFC 3986 §2.1), so that no name, slug or permission can
break a line; a value over its cap is left empty rather than cut (an upstream must not read half a list).
"""

from urllib.parse import quote

from gateway.actors.actor import Actor
from gateway.edge.fields import IDENTITY_NAMES

VALUE_CAP = 8192
"""Bytes of one value; permissions of a large organization stay far below."""

# Everything printable but `%` passes as it is, so that decoding is never ambiguous.
_SAFE = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%")


def field_value(text: str) -> bytes:
    """Encode one value for a field line: printable ASCII, at most VALUE_CAP bytes, else empty."""
    plain = text.isascii() and text.isprintable() and "%" not in text
    encoded = text.encode("ascii") if plain else quote(text, safe=_SAFE).encode("ascii")
    return encoded.strip(b" ") if len(encoded) <= VALUE_CAP else b""


# The last of them is signed, and has rules of its own (`assertion.py`).
_NAMES, _ASSERTION = IDENTITY_NAMES[:-1], IDENTITY_NAMES[-1]


def _block(values: dict[bytes, str], flags: bytes = b"") -> bytes:
    written = {name: field_value(values.get(name, "")) for name in _NAMES}
    written[b"X-Feature-Flags"] = flags  # has a grammar of its own
    return b"".join(b"%b: %b\r\n" % line for line in written.items())


def identity_block(actor: Actor, flags: bytes = b"") -> bytes:
    """The whole set for one Actor but the assertion, CRLF after each line; unknown values are empty.

    Args:
        actor: Who calls.
        flags: The value of `X-Feature-Flags` (`flags/dictionary.py`).
    """
    principal = actor.principal
    scopes = "*" if principal.scopes is None else " ".join(principal.scopes)
    return _block(
        {
            b"X-Actor-Id": actor.user_id,
            b"X-Actor-Role": actor.role,
            b"X-Actor-Auth": principal.kind,
            b"X-Actor-Scopes": scopes,
            b"X-Actor-Session-Id": principal.session_id or "",
            b"X-Actor-Token-Id": principal.token_id or "",
            b"X-Actor-Impersonator-Id": principal.impersonator.subject if principal.impersonator else "",
            b"X-Organization-Id": actor.organization_id,
            b"X-Organization-Role": actor.organization_role,
            b"X-Organization-Permissions": " ".join(actor.organization_permissions),
            b"X-Subscription-Status": actor.subscription_status,
            b"X-Subscription-Plan": actor.plan,
        },
        flags,
    )


ANONYMOUS_BLOCK = _block({}) + _ASSERTION + b": \r\n"
"""The whole set with every value empty: what routes without a caller send."""
