"""Spellings that reach further than one value: origins, hosts, methods, route paths, upstream addresses.

Each parser gives back the one normal form the rooms compare with, and its error says what to write instead. No error
repeats the value: a secret may have slipped into the wrong line.
"""

import re
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from config.values import is_host

# Token characters of RFC 9110 §5.6.2, upper case alone: methods are case-sensitive, and `get` is never GET.
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Z-]+")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_MACHINE_ID = re.compile(r"mch_[A-Za-z0-9_]{1,200}")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 §3.3
BUILT_IN_SCOPES = frozenset(
    {"profile:write", "tokens:manage", "tokens:mint", "audit:read", "admin", "rate-limit:unlimited"}
)
_LIMIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_UPSTREAM_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62})")
_PORT = re.compile(r"[0-9]{1,5}")
_PATH_REFUSED = set('\\#"<>^{|};`?%')
_DEFAULT_PORTS = {"http": 80, "https": 443}
_UNIX = "unix:"
_LONGEST_SOCKET_PATH = 107  # bytes; unix(7), less the zero at its end


def parse_route_path(text: str) -> str:
    """Read the path of a route: literal segments, `*` for one segment, `**` as the last for all below.

    The pattern is compared with a validated path, so what `edge/` refuses in a target could never match: it is
    refused here as well, lest a route seem to guard something.

    Raises:
        ValueError: Not of this grammar.
    """
    segments = _literal_segments(text)
    if "**" in segments[:-1]:
        raise ValueError("write ** only as the last segment, such as /files/**")
    if any("*" in segment and segment not in {"*", "**"} for segment in segments):
        raise ValueError("write * only as a whole segment, such as /files/*/meta")
    return text


def parse_path_prefix(text: str) -> str:
    """Read a prefix of paths, such as `/api`; empty for none.

    Raises:
        ValueError: Not a plain path, or with a slash at its end.
    """
    if text and ("*" in text or text.endswith("/") or not _literal_segments(text)):
        raise ValueError("write a plain path without a slash at its end, such as /api")
    return text


def _literal_segments(text: str) -> list[str]:
    if not text.startswith("/"):
        raise ValueError("write a path that starts with /, such as /reports/**")
    if any(not "!" <= character <= "~" or character in _PATH_REFUSED for character in text):
        raise ValueError('write printable ASCII without % \\ # " < > ^ { | } ; ? and backtick')
    segments = text[1:].split("/")
    if "" in segments[:-1] or {".", ".."} & set(segments):
        raise ValueError("write a path without empty segments (//) and without . or .. segments")
    return segments


def parse_method(text: str) -> str:
    """Read a method a route can match.

    Raises:
        ValueError: Not an upper-case token, or CONNECT or TRACE, which the gateway never forwards.
    """
    if _METHOD.fullmatch(text) is None:
        raise ValueError("write a method in upper case, such as GET")
    if text in {"CONNECT", "TRACE"}:
        raise ValueError("leave CONNECT and TRACE out: the gateway never forwards them")
    return text


def parse_limit_name(text: str) -> str:
    """Read the name of a rate limit, which clients are told.

    Raises:
        ValueError: It could not stand in a header field as it is.
    """
    if _LIMIT_NAME.fullmatch(text) is None:
        raise ValueError("write a name of letters, digits, . _ and -, such as api")
    return text


def parse_host_name(text: str) -> str:
    """Read a host without port; the result is lower case and has no trailing dot.

    Raises:
        ValueError: A port, a wildcard, or no host at all.
    """
    if not is_host(text):
        raise ValueError("write a host name alone, such as app.example.com: no scheme, path or wildcard")
    return text.lower().removesuffix(".")


def parse_host_value(text: str) -> str:
    """Read a `Host` value that is served; a port is left out, as it is of those that come.

    Raises:
        ValueError: A wildcard, or no host at all.
    """
    host, _, port = text.rpartition(":")
    return parse_host_name(host if _PORT.fullmatch(port) and is_host(host) else text)


def parse_origin(text: str) -> str:
    """Read a web origin as browsers write it (RFC 6454 §6.2): `scheme://host[:port]`, nothing behind.

    Raises:
        ValueError: Not an origin, `*`, `null`, or with a default port, which no browser sends.
    """
    parts = _split(text)
    if (
        parts is None
        or _SCHEME.fullmatch(parts.scheme) is None
        or text != f"{parts.scheme}://{parts.netloc}"
        or text != text.lower()
        or parts.port == _DEFAULT_PORTS.get(parts.scheme, 0)
    ):
        raise ValueError("write an origin as a browser sends it, such as https://app.example.com: no path, no slash")
    return text


def parse_public_url(text: str) -> str:
    """Read the gateway's own origin; a slash at its end stays as it is written.

    Raises:
        ValueError: Not an `http` or `https` origin.
    """
    if not parse_origin(text.removesuffix("/")).startswith(("http://", "https://")):
        raise ValueError("write an http:// or https:// origin, such as https://app.example.com")
    return text


def parse_web_url(text: str) -> str:
    """Read an absolute `http` or `https` address without user, query and fragment.

    Raises:
        ValueError: Anything else.
    """
    parts = _split(text)
    if parts is None or parts.scheme not in _DEFAULT_PORTS or parts.query or parts.fragment or "?" in text:
        raise ValueError("write an absolute address, such as https://clerk.example.com")
    return text


def parse_upstream_url(text: str) -> str:
    """Read where an upstream listens.

    Returns:
        `http://host:port` or `https://host:port`, the port always written, or `unix:/path`.

    Raises:
        ValueError: Something we do not dial.
    """
    if text.startswith(_UNIX):
        return _UNIX + _parse_socket_path(text.removeprefix(_UNIX))
    parts = _split(text)
    if (
        parts is None
        or parts.scheme not in _DEFAULT_PORTS
        or text.removesuffix("/").lower() != f"{parts.scheme}://{parts.netloc}".lower()
    ):
        raise ValueError("write http://host:port, https://host:port or unix:/path, without path, query or user")
    host = parts.netloc.rpartition(":")[0] if parts.port is not None else parts.netloc
    port = parts.port if parts.port is not None else _DEFAULT_PORTS[parts.scheme]
    return f"{parts.scheme}://{host.lower()}:{port}"


def _parse_socket_path(path: str) -> str:
    if not path.startswith("/") or path.startswith("//") or not path.isprintable() or path.endswith("/"):
        raise ValueError("write the whole path of the socket with one slash, such as unix:/run/app.sock")
    if len(path.encode("utf-8", "surrogateescape")) > _LONGEST_SOCKET_PATH:
        raise ValueError(f"write a path of at most {_LONGEST_SOCKET_PATH} bytes: a socket cannot have a longer one")
    return path


def _split(text: str) -> SplitResult | None:
    """Split an address whose authority is a plain host and port; None for anything else."""
    # `urlsplit` drops tabs and newlines and strips spaces: judge the text before it does.
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    host = parts.netloc.rpartition(":")[0] if port is not None else parts.netloc
    return parts if is_host(host) and port != 0 else None


def parse_scope(text: str) -> str:
    """Read a scope name (RFC 6749 §3.3): printable, no space, quote or backslash.

    Raises:
        ValueError: Not a scope.
    """
    if _SCOPE.fullmatch(text) is None:
        raise ValueError("write a scope without spaces, such as reports:read")
    return text


def parse_machine_id(text: str) -> str:
    """Read Clerk's id of a machine.

    Raises:
        ValueError: Not one.
    """
    if _MACHINE_ID.fullmatch(text) is None:
        raise ValueError("write the id of a machine at Clerk, mch_…")
    return text


def parse_upstream_name(text: str) -> str:
    """Read the name of an upstream; it becomes a metric label and an audience.

    Raises:
        ValueError: Empty, over 63 characters, or with other characters than letters, digits and `.`, `_`, `-`.
    """
    if _UPSTREAM_NAME.fullmatch(text) is None:
        raise ValueError("name an upstream with letters, digits, dots, dashes and underscores")
    return text


def one_or_more(value: object) -> object:
    """Let one text stand for a list of one."""
    return (value,) if isinstance(value, str) else value


RoutePath = Annotated[str, AfterValidator(parse_route_path)]
PathPrefix = Annotated[str, AfterValidator(parse_path_prefix)]
Method = Annotated[str, AfterValidator(parse_method)]
HostName = Annotated[str, AfterValidator(parse_host_name)]
HostValue = Annotated[str, AfterValidator(parse_host_value)]
Origin = Annotated[str, AfterValidator(parse_origin)]
PublicUrl = Annotated[str, AfterValidator(parse_public_url)]
WebUrl = Annotated[str, AfterValidator(parse_web_url)]
UpstreamUrl = Annotated[str, AfterValidator(parse_upstream_url)]
MachineId = Annotated[str, AfterValidator(parse_machine_id)]
Scope = Annotated[str, AfterValidator(parse_scope)]
UpstreamName = Annotated[str, AfterValidator(parse_upstream_name)]
Names = Annotated[
    tuple[str, ...],
    BeforeValidator(one_or_more),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
LimitName = Annotated[str, AfterValidator(parse_limit_name)]
WebUrls = Annotated[
    tuple[WebUrl, ...],
    BeforeValidator(one_or_more),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
