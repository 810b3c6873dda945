"""Where a sign-in may return to, and who may ask for one. Pure."""

import re
from collections.abc import Collection
from urllib.parse import urlsplit

_HOST = re.compile(r"(127\.0\.0\.1|localhost):[0-9]{1,5}", re.ASCII)
_PLAIN_URL = re.compile(r"[!-\[\]-~]+", re.ASCII)


def is_safe_return(url: str, origins: Collection[str]) -> bool:
    r"""Whether a browser sent to this URL arrives at one of the origins, and nowhere else.

    The URL must be absolute and begin with the origin and a slash, question mark or its end. Browsers skip tabs and
    line breaks and read `\` as `/`, so anything but visible ASCII without a backslash is refused.
    """
    if not _PLAIN_URL.fullmatch(url):
        return False
    return any(url == origin or url.startswith((f"{origin}/", f"{origin}?")) for origin in origins)


def is_loopback_host(host: str) -> bool:
    """Whether a Host field names this machine with a port.

    A name of an attacker's that resolves to 127.0.0.1 (DNS rebinding) would let their page read tokens from here.
    """
    return _HOST.fullmatch(host) is not None


def same_host(url: str, host: str) -> bool:
    """Whether the URL's host name (the port aside) is that of a Host field: only then do cookies reach it."""
    return urlsplit(url).hostname == host.rpartition(":")[0]


def is_own_post(origin: str | None, host: str) -> bool:
    """Whether a form was sent by a page of ours or by no browser at all (browsers name the `Origin` of every POST)."""
    return origin is None or origin == f"http://{host}"
