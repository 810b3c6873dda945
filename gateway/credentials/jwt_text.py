"""The text of a JWT (RFC 7515 compact form), taken apart strictly and still unproven.

One spelling per token: canonical base64url, JSON objects without duplicate names, UTF-8. What this refuses, two readers
could take for two different tokens. `verify/session.py` judges what comes out.
"""

import base64
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from gateway.errors import CredentialRejected

MAX_TOKEN_CHARS = 16 * 1024
"""Longest token we read, in characters. A Clerk session token is about 800; the limit comes before any parsing."""

_BASE64URL = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class UnverifiedJwt:
    """What a token says of itself: nothing in it is proven.

    Attributes:
        header: Header parameters.
        payload: Claims.
        signed: What the signature is over (RFC 7515 §5.2).
        signature: Makes a secret of it.
    """

    header: Mapping[str, object]
    payload: Mapping[str, object] = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def parse_jwt(token: str) -> UnverifiedJwt:
    """Take a token apart.

    Raises:
        CredentialRejected: `token-too-long`; `token-invalid` when it is not one JWS in compact form;
            `token-verification-failed` when its payload is JSON, but no object (Clerk's word for it).
    """
    if len(token) > MAX_TOKEN_CHARS:
        raise CredentialRejected("token-too-long")
    if token.count(".") != 2:
        raise CredentialRejected("token-invalid")
    head, body, signature = token.split(".")
    try:
        header, payload = _parse_json(_decode_base64url(head)), _parse_json(_decode_base64url(body))
        signature_bytes = _decode_base64url(signature)
    except (ValueError, RecursionError):  # RecursionError: JSON nested deeper than the interpreter goes
        raise CredentialRejected("token-invalid") from None
    if not isinstance(header, dict):
        raise CredentialRejected("token-invalid")
    if not isinstance(payload, dict):
        raise CredentialRejected("token-verification-failed")
    return UnverifiedJwt(header, payload, token[: -len(signature) - 1].encode("ascii"), signature_bytes)


def _decode_base64url(part: str) -> bytes:
    """Decode base64url without padding; a second spelling of the same bytes is refused (RFC 4648 §3.5).

    Raises:
        ValueError: Not canonical base64url.
    """
    if _BASE64URL.fullmatch(part) is None:
        raise ValueError("not base64url")
    decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    # Only the last group can hide bits: write it again.
    rest = len(decoded) % 3
    if rest and not part.endswith(base64.urlsafe_b64encode(decoded[-rest:]).decode().rstrip("=")):
        raise ValueError("not canonical base64url")
    return decoded


def _parse_json(raw: bytes) -> object:
    """Parse JSON text strictly (RFC 8259): UTF-8, names unique, numbers finite.

    Raises:
        ValueError: Anything else; also for an integer of more digits than Python reads.
        RecursionError: Nested too deep.
    """
    return json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate name")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("number out of range")
    return number


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")
