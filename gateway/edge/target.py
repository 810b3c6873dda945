r"""The request target: only a plain origin-form target comes in, and it goes out as it came.

Rules and upstream must read one string the same way. So nothing is normalised here: what two programs could read
differently (dot segments, `//`, `;`, `\`, escapes of delimiters) is refused, and the rest is matched and forwarded
byte for byte. What a route may open (`allow_encoded`) is only flagged; `policy/routes.py` judges it once the route is
known.
"""

import re
from urllib.parse import unquote

from gateway.errors import TargetInvalid

# Printable ASCII without space, `%` and what the contract refuses: \ # " < > ^ { | } ; ? and backtick.
_PLAIN = rb"!$&'()*+,\-.0-9:=@A-Z\[\]_a-z~"
_QUERY = rb"\x21\x22\x24-\x7e"
ORDINARY = rb"((?=/)(?:/(?!\.\.?(?:[/? ]|\Z))[" + _PLAIN + rb"]++)*+/?)(\?[" + _QUERY + rb"]*+)?"
"""What most targets are, where they end or a blank follows; groups: path and query."""
_ORDINARY = re.compile(ORDINARY)
_PATH_OCTETS = re.compile(rb"[" + _PLAIN + rb"/%]*")
_QUERY_OCTETS = re.compile(rb"[" + _QUERY + rb"]*")
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# Control characters and `. \ # ;`: an upstream that decodes them would see another path than we judged.
_REFUSED_ESCAPE = re.compile(rb"%(?:[01][0-9a-f]|7f|2e|5c|23|3b)", re.IGNORECASE)
_ENCODED_SLASH = re.compile(rb"%2f", re.IGNORECASE)
_DOT_SEGMENT = re.compile(rb"/\.\.?(?:/|\Z)")


class Target:
    """A request target that passed; `raw == path + query`.

    Attributes:
        raw: As received; the bytes that are forwarded.
        path: The path, ASCII, escapes as received; begins with `/`. This string is what rules are matched with.
        query: With its leading `?`, byte for byte; empty when there is none.
        has_encoded_slash: The path holds `%2f`; only a route with `allow_encoded: [slash]` takes it.
        has_encoded_percent: The path holds `%25`; only a route with `allow_encoded: [percent]` takes it.
    """

    __slots__ = ("has_encoded_percent", "has_encoded_slash", "path", "query", "raw")

    def __init__(
        self,
        raw: bytes,
        path: str,
        query: bytes = b"",
        has_encoded_slash: bool = False,
        has_encoded_percent: bool = False,
    ) -> None:
        self.raw = raw
        self.path = path
        self.query = query
        self.has_encoded_slash = has_encoded_slash
        self.has_encoded_percent = has_encoded_percent

    @property
    def decoded_path(self) -> str:
        """The path with every escape decoded once, as a decoding upstream would see it.

        For comparison alone, never forwarded. Octets that are not UTF-8 become U+FFFD, so an overlong `%c0%ae` is no
        dot.
        """
        return unquote(self.path, errors="replace")


def parse_target(raw: bytes) -> Target:
    """Read a request target.

    Raises:
        TargetInvalid: Not origin-form (RFC 9112 §3.2.1), or a path or query the contract refuses.
    """
    match = _ORDINARY.fullmatch(raw)
    if match is not None:
        return Target(raw, match[1].decode("ascii"), match[2] or b"")
    return _parse_unusual(raw)


def _parse_unusual(raw: bytes) -> Target:
    """Find out what is wrong with a target, or that it only holds escapes."""
    if not raw.startswith(b"/"):
        raise TargetInvalid("target_not_origin_form")
    path, mark, query = raw.partition(b"?")
    if _QUERY_OCTETS.fullmatch(query) is None:
        raise TargetInvalid("query_octet_refused")
    if _PATH_OCTETS.fullmatch(path) is None:
        raise TargetInvalid("path_octet_refused")
    if _BROKEN_ESCAPE.search(path) is not None:
        raise TargetInvalid("path_escape_broken")
    if _REFUSED_ESCAPE.search(path) is not None:
        raise TargetInvalid("path_escape_refused")
    # Even where a route opens `%2f`, it must not hide an empty or a dot segment: read it as a slash here.
    opened = _ENCODED_SLASH.sub(b"/", path)
    if b"//" in opened:
        raise TargetInvalid("path_segment_empty")
    if _DOT_SEGMENT.search(opened) is not None:
        raise TargetInvalid("path_segment_dots")
    return Target(
        raw,
        path.decode("ascii"),
        mark + query,
        has_encoded_slash=len(opened) != len(path),
        has_encoded_percent=b"%25" in path,
    )


def decode_except_slash(path: str) -> str:
    """Decode every escape once but `%2f`, for routes whose upstream reads `%2f` as data."""
    return "%2F".join(unquote(part, errors="replace") for part in re.split("%2f", path, flags=re.IGNORECASE))
