"""What the query of a list may say, and the place in the list that it names."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from gateway.api.endpoints import Call
from gateway.errors import QueryInvalid
from provisioning.errors import CursorInvalid
from provisioning.pages import Place, place_of

DEFAULT_LIMIT = 50
MOST = 200
TEXT_LENGTH = 320


@dataclass(frozen=True, slots=True)
class Asked:
    """A page of a list.

    Attributes:
        after: Where the page before ended; None: the first one.
        limit: 1 to `MOST` rows.
        more: The list's own parameters, each at most `TEXT_LENGTH` characters.
    """

    after: Place | None
    limit: int
    more: Mapping[str, str]


def asked_page(call: Call, names: Iterable[str] = ()) -> Asked:
    """Read `cursor`, `limit` and a list's own parameters.

    What is not known is refused: a filter that is mistyped would show everything.

    Args:
        call: The request.
        names: The list's own parameters.

    Raises:
        QueryInvalid: A parameter twice, an unknown one, or one of the wrong shape.
    """
    found = _parameters(call.arrived.target.query)
    unknown = found.keys() - {"cursor", "limit", *names}
    if unknown:
        raise QueryInvalid("parameter_unknown")
    cursor, limit = found.pop("cursor", None), found.pop("limit", None)
    try:
        after = place_of(cursor) if cursor is not None else None
    except CursorInvalid as error:
        raise QueryInvalid(error.reason) from None
    if limit is not None and not (limit.isascii() and limit.isdigit() and len(limit) < 4 and 1 <= int(limit) <= MOST):
        raise QueryInvalid("limit_invalid")
    if any(len(text) > TEXT_LENGTH for text in found.values()):
        raise QueryInvalid("parameter_too_long")
    return Asked(after, int(limit) if limit is not None else DEFAULT_LIMIT, found)


def _parameters(query: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(query[1:].decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=10)
    except ValueError:  # not UTF-8 behind the escapes, or too many
        raise QueryInvalid("query_malformed") from None
    found = dict(pairs)
    if len(found) < len(pairs):
        raise QueryInvalid("parameter_doubled")
    return found
