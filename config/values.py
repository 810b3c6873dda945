"""Values that settings are made of, each with the parser of its spelling."""

import ipaddress
import re
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator, WithJsonSchema

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST_S = 100 * 365 * 86400.0
_SIZE = re.compile(r"([0-9]{1,15})\s*(B|KiB|MiB|GiB|kB|MB|GB)?")
_HOST = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?")
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
        ValueError: Not a duration, zero, negative, or over a hundred years.
    """
    seconds = parse_tolerance(value)
    if seconds == 0:
        raise ValueError("write a duration above zero")
    return seconds


def parse_tolerance(value: object) -> float:
    """Read a duration that may be zero, such as a leeway.

    Raises:
        ValueError: Not a duration, negative, or over a hundred years.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 <= value <= _LONGEST_S:  # NaN and integers too large for a float end here as well
            raise ValueError("write a duration that is not negative and under a hundred years")
        return float(value)
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a duration with its unit, such as 250ms, 10s, 5m, 1h or 180d")
    return parse_tolerance(float(match[1]) * _SECONDS[match[2]])


def parse_life(value: object) -> float | None:
    """Read how long something lives: a duration as `parse_duration` reads it, or `never` for without end (None).

    Raises:
        ValueError: Neither.
    """
    if value is None or (isinstance(value, str) and value.strip() == "never"):
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ValueError(f"{error}, or never for one without end") from error


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
    if not is_host(host) or re.fullmatch(r"[0-9]{1,5}", port) is None or int(port) > 65535:
        raise ValueError("write host:port, such as 127.0.0.1:8080 or [::1]:8080")
    return Address(host.strip("[]"), int(port))


def is_host(text: str) -> bool:
    """Whether `text` is a host name, an IPv4 address, or an IPv6 address in brackets (RFC 3986 §3.2.2)."""
    if not text.startswith("["):
        return len(text) <= 253 and _HOST.fullmatch(text) is not None
    try:
        return text.endswith("]") and "%" not in text and bool(ipaddress.IPv6Address(text[1:-1]).packed)
    except ValueError:
        return False


def parse_network(value: object) -> Network:
    """Read `10.0.0.0/8`, `::1` (one address) and so on; host bits must be zero.

    Raises:
        ValueError: Not a network. The text does not repeat the value.
    """
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    if isinstance(value, str):
        try:
            return ipaddress.ip_network(value)
        except ValueError:
            pass
    raise ValueError("write a network such as 10.0.0.0/8 or 127.0.0.1/32, with zeros after the prefix")


def parse_digest(value: object) -> str:
    """Read a SHA-256 in hex; the result is lower-case.

    Raises:
        ValueError: Not 64 hexadecimal digits. The text does not repeat the value: it may be the token itself.
    """
    if not isinstance(value, str) or re.fullmatch(r"[0-9A-Fa-f]{64}", value.strip()) is None:
        raise ValueError("write the SHA-256 of the token as 64 hexadecimal digits, never the token itself")
    return value.strip().lower()


_TEXT = WithJsonSchema({"type": "string"})
Duration = Annotated[
    float, BeforeValidator(parse_duration), WithJsonSchema({"type": ["string", "number"], "examples": ["10s", "5m"]})
]
Tolerance = Annotated[
    float, BeforeValidator(parse_tolerance), WithJsonSchema({"type": ["string", "number"], "examples": ["5s", "0s"]})
]
Life = Annotated[
    float | None,
    BeforeValidator(parse_life),
    WithJsonSchema({"type": ["string", "number", "null"], "examples": ["180d", "never"]}),
]
Size = Annotated[
    int, BeforeValidator(parse_size), WithJsonSchema({"type": ["string", "integer"], "examples": ["32 KiB"]})
]
ListenAddress = Annotated[
    Address, BeforeValidator(parse_address), WithJsonSchema({"type": "string", "examples": ["127.0.0.1:8080"]})
]
Digest = Annotated[str, BeforeValidator(parse_digest), _TEXT]
AnyNetwork = Annotated[Network, BeforeValidator(parse_network), _TEXT]
