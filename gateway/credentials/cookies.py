"""Cookie fields as bytes: read the few cookies that are Clerk's, and take them out of what goes up.

Read as Clerk reads them (clerk/javascript packages/backend/src/tokens/authenticateContext.ts, 3.16.7): cut at `;`, then
at the first `=`, trim, the first of a name wins, percent-decode the value last. `http.cookies` and aiohttp's own parser
disagree with that (quoted strings swallow `;`, an odd neighbour hides the rest), so gateway and backend could read
different tokens.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

_OURS = re.compile(rb"(?:__session|__client_uat|__refresh)(?:_[A-Za-z0-9_-]{8})?|__clerk_.*", re.DOTALL)
_ENCODED_RUN = re.compile(r"(?:%[0-9A-Fa-f]{2})+")


def find_cookies(values: Sequence[bytes], names: Collection[bytes]) -> dict[bytes, str]:
    """Read the named cookies out of all Cookie field values.

    Args:
        values: Field values in the order received.
        names: Names wanted, exact spelling.

    Returns:
        Percent-decoded values by name; a name that was not sent is absent. Bytes above 0x7f come as Latin-1.
    """
    found: dict[bytes, str] = {}
    for pair in _pairs(values):
        name, equals, value = pair.partition(b"=")
        name = name.strip()
        if equals and name in names and name not in found:
            found[name] = _percent_decoded(value.strip().decode("latin-1"))
    return found


def without_clerk(values: Sequence[bytes]) -> bytes | None:
    """Build the cookie string for the upstream: Clerk's cookies of any instance gone, all others byte for byte.

    Returns:
        One field value, or None when nothing is left and no Cookie field should be sent.
    """
    if any(b"__" in value for value in values):  # the usual case costs one scan
        values = [_without_ours(value) for value in values]
    return b"; ".join(value for value in values if value) or None


def without_doubled(values: Sequence[bytes]) -> bytes | None:
    """Build the cookie string for an upstream that gets Clerk's cookies as well: those that came more than once stay.

    Which of them counts, parsers differ on: the upstream could read another person's than was verified here.

    Returns:
        One field value, or None when nothing is left and no Cookie field should be sent.
    """
    if any(b"__" in value for value in values):
        times = Counter(_name(pair) for pair in _pairs(values))
        doubled = {name for name, count in times.items() if count > 1 and _OURS.fullmatch(name)}
        if doubled:
            values = [_without(value, doubled) for value in values]
    return b"; ".join(value for value in values if value) or None


def _without_ours(value: bytes) -> bytes:
    return b";".join([pair for pair in value.split(b";") if not _OURS.fullmatch(_name(pair))]).strip(b" \t;")


def _without(value: bytes, names: Collection[bytes]) -> bytes:
    return b";".join([pair for pair in value.split(b";") if _name(pair) not in names]).strip(b" \t;")


def _name(pair: bytes) -> bytes:
    # Of a pair without `=` it is the text: parsers differ on which half that is.
    return pair.partition(b"=")[0].strip()


def _pairs(values: Sequence[bytes]) -> Iterator[bytes]:
    for value in values:
        yield from value.split(b";")


def _percent_decoded(value: str) -> str:
    """Decode runs of `%xx` that are UTF-8; a run that is not stays as it came."""
    return _ENCODED_RUN.sub(_decoded_run, value) if "%" in value else value


def _decoded_run(match: re.Match[str]) -> str:
    try:
        return bytes.fromhex(match[0].replace("%", "")).decode()
    except UnicodeDecodeError:
        return match[0]
