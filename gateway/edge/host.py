"""The Host field: one host, perhaps with a port, and nothing else."""

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

from config.values import is_host
from gateway.errors import HostInvalid

_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,254})(?::([0-9]{0,5}))?")


@dataclass(frozen=True, slots=True)
class Host:
    """A Host field's value that passed.

    Attributes:
        raw: As received.
        name: Lower case, without port and trailing dot; an IPv6 address in brackets and its shortest form. This is
            what settings are compared with.
        port: 0 to 65535; None when absent or empty.
    """

    raw: bytes
    name: str
    port: int | None = None


# Few different hosts occur; a thousand short entries are all an attacker can make us keep. Refusals are not kept.
@lru_cache(maxsize=1024)
def parse_host(raw: bytes) -> Host:
    """Read `host [":" port]` (RFC 9110 §7.2, RFC 3986 §3.2.2).

    Narrower than the grammar: escapes and sub-delimiters in a name are legal there, but no real host has them, and
    upstreams paste this value into links.

    Raises:
        HostInvalid: Anything else, the empty host among it.
    """
    match = _HOST.fullmatch(raw)
    if match is None:
        raise HostInvalid("host_malformed")
    name = match[1].decode("ascii").lower()
    port = int(match[2]) if match[2] else None
    if not is_host(name) or (port is not None and port > 65535):
        raise HostInvalid("host_malformed")
    if name.startswith("["):
        return Host(raw, f"[{ipaddress.IPv6Address(name[1:-1]).compressed}]", port)
    return Host(raw, name.removesuffix("."), port)
