"""Cross-origin resource sharing: which pages of other origins may read our answers (WHATWG Fetch §3.3).

The answer always names one allowed origin, never `*`: browsers refuse `*` with credentials, and so do we.
"""

import re
from collections.abc import Iterable, Sequence

from gateway.policy.origins import compile_origins, normalised_origin

AnswerFields = tuple[tuple[bytes, bytes], ...]

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
# Narrower than a token, which `*` is as well.
_METHOD = re.compile(rb"[A-Za-z0-9_-]{1,32}")
_METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")
_METHODS_VALUE = b", ".join(_METHODS)
_EXPOSED = b"X-Request-Id, Retry-After, RateLimit, RateLimit-Policy, WWW-Authenticate"
_NAMES_AT_MOST = 64
_PREFLIGHT_VARY = b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
# Browsers cap this anyway (Chrome at two hours); ten minutes keep a changed setting from lingering.
_MAX_AGE_S = b"600"


class Cors:
    """The origins that may read answers."""

    __slots__ = ("_origins",)

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = compile_origins(origins)

    def allows(self, origin: bytes | None) -> bool:
        """Whether an Origin field names an allowed origin."""
        return origin is not None and normalised_origin(origin) in self._origins

    def fields(self, origin: bytes | None) -> AnswerFields | None:
        """Fields for an answer of our own; None when the origin is absent or not allowed."""
        if origin is None or not self.allows(origin):
            return None
        return (
            (b"Access-Control-Allow-Origin", origin),
            (b"Access-Control-Allow-Credentials", b"true"),
            (
                b"Access-Control-Expose-Headers",
                b"X-Request-Id, Retry-After, RateLimit, RateLimit-Policy, WWW-Authenticate",
            ),
            (b"Vary", b"Origin"),
        )

    def preflight(
        self, origin: bytes | None, requested_method: bytes | None, requested_headers: Sequence[bytes] = ()
    ) -> AnswerFields | None:
        """Fields that answer a preflight; None when the origin is not allowed or the method is no method.

        Args:
            origin: The Origin field.
            requested_method: The Access-Control-Request-Method field.
            requested_headers: All Access-Control-Request-Headers fields; names that are no tokens are not echoed.
        """
        if origin is None or not self.allows(origin):
            return None
        if requested_method is None or _METHOD.fullmatch(requested_method) is None:
            return None
        known = requested_method in _METHODS
        names = _well_formed(requested_headers)
        allow_headers = ((b"Access-Control-Allow-Headers", b", ".join(names)),) if names else ()
        return (
            (b"Access-Control-Allow-Origin", origin),
            (b"Access-Control-Allow-Credentials", b"true"),
            (b"Access-Control-Allow-Methods", _METHODS_VALUE if known else _METHODS_VALUE + b", " + requested_method),
            *allow_headers,
            (b"Access-Control-Max-Age", _MAX_AGE_S),
            (b"Vary", _PREFLIGHT_VARY),
        )


def _well_formed(values: Sequence[bytes]) -> list[bytes]:
    names = (name.strip(b" \t") for name in b",".join(values).split(b","))
    # A lone `*` is a token, but in an answer it would mean every name.
    return [name for name in names if name != b"*" and _TOKEN.fullmatch(name) is not None][:_NAMES_AT_MOST]
