"""`X-Feature-Flags`: flags as a dictionary of RFC 9651. Pure.

Everything is written so that the strictest parser reads it. What has no form there is left out whole, and counted: an
upstream must never read half a value, nor a line that a name or a value broke.
"""

import json
import math
from collections.abc import Mapping

from config.flag_values import key_fits
from gateway.flags.provider import Json

CAP = 4096
"""Bytes of the field's value; beside the rest of the set it stays below what servers take of a head."""
_INTEGER_MAX = 999_999_999_999_999  # §3.3.1
_DECIMAL_MAX = 999_999_999_999.9995  # §3.3.2: twelve digits before the point, three after it


def write(flags: Mapping[str, Json]) -> tuple[bytes, tuple[str, ...]]:
    """Write a dictionary, and name those that are left out.

    Args:
        flags: In the order they are written. JSON objects and lists become a string that holds compact JSON.

    Returns:
        The field's value, printable ASCII of at most CAP bytes; and the names of flags that have no form there or
        found no room.
    """
    members: list[str] = []
    left_out: list[str] = []
    size = 0
    for name, value in flags.items():
        bare = _item(value) if key_fits(name) else None
        if bare is None:
            left_out.append(name)
            continue
        member = name if value is True else f"{name}={bare}"  # §4.1.2
        room = len(member) + (2 if members else 0)
        if size + room > CAP:
            left_out.append(name)
            continue
        size += room
        members.append(member)
    return ", ".join(members).encode("ascii"), tuple(left_out)


def _item(value: Json) -> str | None:
    """Write a bare item (§4.1.3.1); None: it has no form."""
    if isinstance(value, bool):
        return "?1" if value else "?0"
    if isinstance(value, int):
        return str(value) if abs(value) <= _INTEGER_MAX else None
    if isinstance(value, float):
        return _decimal(value)
    if isinstance(value, str):
        return _text(value)
    try:
        return _text(json.dumps(value, separators=(",", ":"), allow_nan=False))
    except (TypeError, ValueError):
        return None


def _decimal(value: float) -> str | None:
    """Three digits after the point, rounded half to even; a whole number keeps one (§4.1.5)."""
    if not math.isfinite(value) or abs(value) >= _DECIMAL_MAX:
        return None
    whole, _, fraction = f"{value:.3f}".partition(".")
    written = f"{whole}.{fraction.rstrip('0') or '0'}"
    return "0.0" if written == "-0.0" else written  # nothing is less than itself


def _text(value: str) -> str | None:
    """A String where it is printable ASCII (§4.1.6), else a Display String (§4.1.11)."""
    if value.isascii() and value.isprintable():
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    try:
        encoded = value.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return None
    return '%"' + "".join(_display(byte) for byte in encoded) + '"'


def _display(byte: int) -> str:
    return chr(byte) if 0x20 <= byte < 0x7F and byte not in b'%"' else f"%{byte:02x}"
