"""Values that settings are made of, each with the parser of its spelling."""

import ipaddress
import re
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator, WithJsonSchema

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|kB|MB|GB)?")
_BYTES = {None: 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Address(NamedTuple):
    """Where to listen or connect.

    Attributes:
        host: Name or IP without brackets.
        port: 0 lets the system choose (tests).
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_duration(value: object) -> float:
    """Read `250ms`, `10s`, `5m`, `1h`, `180d` or a plain number of seconds; the result is seconds, above 0.

    Raises:
        ValueError: Not a duration.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise ValueError("write a duration with its unit, such as 250ms, 10s, 5m, 1h or 180d")
        seconds = float(match[1]) * _SECONDS[match[2]]
    if not 0 < seconds < float("inf"):
        raise ValueError("write a duration above zero")
    return seconds


def parse_size(value: object) -> int:
    """Read `32 KiB`, `1 MB` or a plain number of bytes; the result is bytes, above 0.

    Raises:
        ValueError: Not a size.
    """
    match = _SIZE.fullmatch(str(value).strip()) if isinstance(value, str | int) else None
    if match is None or isinstance(value, bool) or int(match[1]) == 0:
        raise ValueError("write a size in bytes or with its unit, such as 32 KiB")
    return int(match[1]) * _BYTES[match[2]]


def parse_address(value: object) -> Address:
    """Read `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`.

    Raises:
        ValueError: Not host and port.
    """
    if isinstance(value, Address):
        return value
    host, _, port = value.strip().rpartition(":") if isinstance(value, str) else ("", "", "")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or not port.isascii() or not port.isdigit() or int(port) > 65535 or (":" in bare and bare == host):
        raise ValueError("write host:port, such as 127.0.0.1:8080 or [::1]:8080")
    return Address(bare, int(port))


def parse_network(value: object) -> Network:
    """Read `10.0.0.0/8`, `::1` (one address) and so on; host bits must be zero.

    Raises:
        ValueError: Not a network.
    """
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    try:
        return ipaddress.ip_network(str(value))
    except ValueError as error:
        raise ValueError(f"write a network such as 10.0.0.0/8 or 127.0.0.1/32 ({error})") from None


_TEXT = WithJsonSchema({"type": "string"})
Duration = Annotated[
    float, BeforeValidator(parse_duration), WithJsonSchema({"type": ["string", "number"], "examples": ["10s", "5m"]})
]
Size = Annotated[
    int, BeforeValidator(parse_size), WithJsonSchema({"type": ["string", "integer"], "examples": ["32 KiB"]})
]
ListenAddress = Annotated[
    Address, BeforeValidator(parse_address), WithJsonSchema({"type": "string", "examples": ["127.0.0.1:8080"]})
]
AnyNetwork = Annotated[Network, BeforeValidator(parse_network), _TEXT]
