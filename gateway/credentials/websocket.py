"""Websocket tokens where browsers can carry them: `?token=` and the subprotocol pair `bearer, <token>`. Pure.

A browser's `WebSocket` sets no field, so its token travels in the URL or in `Sec-WebSocket-Protocol`. Both are read
with a real handshake alone (the pipeline sees to that), and what is found here is what is taken out again before the
request goes up: name and value of a parameter are judged decoded, so that no other spelling of `token` slips by, and
everything else stays byte for byte.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import unquote_to_bytes

from gateway.credentials.jwt_text import MAX_TOKEN_CHARS, parse_jwt
from gateway.credentials.kinds import Carrier, Credential, CredentialKind
from gateway.errors import CredentialMalformed, CredentialRejected

PARAMETER = b"token"
MARK = b"bearer"
PROTOCOL = b"sec-websocket-protocol"
_BLANKS = b" \t"
_SPELLING = re.compile(rb"[A-Za-z0-9._~+/=-]*")

Field = tuple[bytes, bytes]
IsOurs = Callable[[bytes], bool]
"""Judges the decoded value of a parameter `token`."""


def find_websocket_tokens(query: bytes, fields: Iterable[Field]) -> tuple[Credential, ...]:
    """Find the tokens of a handshake, the subprotocol's before the query's: it stays out of logs along the way.

    Args:
        query: Of the target, with its `?`.
        fields: Field lines of the request.

    Returns:
        At most one of each carrier. `token=` without a value is none.

    Raises:
        CredentialMalformed: A token twice in one carrier, `bearer` without a token behind it, or characters no token
            has.
    """
    found = []
    items = _items(fields)
    marks = [place for place, item in enumerate(items) if item.lower() == MARK]
    if marks:
        if len(marks) > 1 or marks[0] + 1 == len(items):
            raise CredentialMalformed("subprotocol_malformed")
        found.append(websocket_credential(Carrier.SUBPROTOCOL, items[marks[0] + 1]))
    values = [value for value in map(_token_of, query[1:].split(b"&")) if value]
    if len(values) > 1:
        raise CredentialMalformed("websocket_token_doubled")
    found += [websocket_credential(Carrier.QUERY, value) for value in values]
    return tuple(found)


def without_token(query: bytes, is_ours: IsOurs | None = None) -> bytes:
    """Take the parameter `token` out of a query; every other byte stays.

    Args:
        query: With its `?`; empty for none.
        is_ours: Which values go; None: all.

    Returns:
        The same, empty when no parameter is left.
    """
    parts = query[1:].split(b"&")
    kept = [part for part in parts if (token := _token_of(part)) is None or not (is_ours is None or is_ours(token))]
    if len(kept) == len(parts):
        return query
    return b"?" + b"&".join(kept) if kept else b""


def without_token_in_url(url: bytes, is_ours: IsOurs | None = None) -> bytes:
    """The same for a URL such as the one in `Referer`; what follows a `#` stays."""
    address, mark, fragment = url.partition(b"#")
    path, question, query = address.partition(b"?")
    return path + without_token(question + query, is_ours) + mark + fragment


def without_pair(values: Sequence[bytes]) -> list[bytes | None]:
    """Take the subprotocol pair out of field values.

    Args:
        values: Of all Sec-WebSocket-Protocol fields, in order; judged before (`find_websocket_tokens`).

    Returns:
        For each value what is left of its list, None when that is nothing; without a pair the same values.
    """
    lists = [value.split(b",") for value in values]
    spelled = [item.strip(_BLANKS) for items in lists for item in items]
    mark = next((place for place, item in enumerate(spelled) if item.lower() == MARK), None)
    if mark is None:
        return list(values)
    token = next((place for place in range(mark + 1, len(spelled)) if spelled[place]), mark)
    left: list[bytes | None] = []
    start = 0
    for value, items in zip(values, lists, strict=True):
        kept = [item for place, item in enumerate(items, start) if place not in (mark, token)]
        start += len(items)
        if len(kept) == len(items):
            left.append(value)
        else:
            left.append(b",".join(kept).strip(_BLANKS) if any(item.strip(_BLANKS) for item in kept) else None)
    return left


def without_tokens(fields: Iterable[Field]) -> list[Field]:
    """Take the pair out of field lines, and the parameter `token` out of `Referer`; other lines stay as they are."""
    fields = list(fields)
    offers = iter(without_pair([value for name, value in fields if name.lower() == PROTOCOL]))
    kept: list[Field] = []
    for name, value in fields:
        lowered = name.lower()
        if lowered == PROTOCOL:
            offer = next(offers)
            if offer is not None:
                kept.append((name, offer))
        else:
            kept.append((name, without_token_in_url(value) if lowered == b"referer" else value))
    return kept


def offers_mark_alone(fields: Iterable[Field]) -> bytes | None:
    """Give `bearer` as it was spelled when a pair was offered and nothing besides; None otherwise."""
    items = _items(fields)
    return items[0] if len(items) == 2 and items[0].lower() == MARK else None


def names_issuer(token: bytes, issuer: str) -> bool:
    """Tell whether text is a JWT that names this issuer; nothing of it is proven.

    Args:
        token: Any text.
        issuer: Exact `iss`.
    """
    if not token.startswith(b"ey") or token.count(b".") != 2:  # base64url of `{"`
        return False
    try:
        return parse_jwt(token.decode("latin-1")).payload.get("iss") == issuer
    except CredentialRejected:
        return False


def _items(fields: Iterable[Field]) -> list[bytes]:
    """All subprotocols offered, in order."""
    values = (value for name, value in fields if name.lower() == PROTOCOL)
    return [item for value in values for part in value.split(b",") if (item := part.strip(_BLANKS))]


def _token_of(part: bytes) -> bytes | None:
    """Decode the value of one `name=value`, if its name is ours; None for another name."""
    name, _, value = part.partition(b"=")
    if name != PARAMETER and unquote_to_bytes(name) != PARAMETER:
        return None
    return unquote_to_bytes(value)


def websocket_credential(carrier: Carrier, token: bytes) -> Credential:
    """Whatever stands there is judged as a websocket token: no session comes from a URL.

    Raises:
        CredentialMalformed: Characters no token has.
    """
    if len(token) > MAX_TOKEN_CHARS:
        return Credential(CredentialKind.WEBSOCKET_TOKEN, carrier, "", "token-too-long")
    if _SPELLING.fullmatch(token) is None:
        raise CredentialMalformed("websocket_token_malformed")
    return Credential(CredentialKind.WEBSOCKET_TOKEN, carrier, token.decode("ascii"))
