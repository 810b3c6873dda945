"""Field hygiene: which of a client's field lines go up, and which are lifted out to be judged.

Every raw spelling of a name is judged once and remembered (bounded), so normalising costs nothing afterwards.
The upstream's answers have their own rules in `upstream/answer.py`.
"""

from collections.abc import Sequence

from gateway.edge import slots
from gateway.errors import CredentialMalformed, HostInvalid, RequestMalformed

Field = tuple[bytes, bytes]

# Any octet outside [a-z0-9] reads as `-` in some server or language: judge all spellings of a name as one.
_FOLD = bytes(c if chr(c).isascii() and chr(c).isalnum() else 0x2D for c in range(256))

IDENTITY_NAMES = (
    b"X-Actor-Id",
    b"X-Actor-Role",
    b"X-Actor-Auth",
    b"X-Actor-Scopes",
    b"X-Actor-Session-Id",
    b"X-Actor-Token-Id",
    b"X-Actor-Impersonator-Id",
    b"X-Organization-Id",
    b"X-Organization-Role",
    b"X-Organization-Permissions",
    b"X-Subscription-Status",
    b"X-Subscription-Plan",
    b"X-Feature-Flags",
    b"X-Actor-Assertion",
)
"""The identity header set, in the order upstreams receive it."""

# Names a client must never choose: ours, and those other gateways' upstreams believe.
_DROPPED_PREFIXES = (
    b"x-actor-",
    b"x-organization-",
    b"x-subscription-",
    b"x-forwarded-",
    b"x-original-",
    b"x-envoy-",
    b"x-clerk-",
    b"x-auth-request-",
    b"x-goog-iap-",
    b"x-goog-authenticated-user-",
    b"cf-access-",
    b"x-pomerium-",
    b"x-authentik-",
    b"x-consumer-",
)
_DROPPED = frozenset(
    {
        b"x-feature-flags",
        b"x-request-id",
        b"forwarded",
        b"x-real-ip",
        b"x-rewrite-url",
        b"remote-user",
        b"remote-groups",
        b"remote-email",
        b"remote-name",
    }
)
# Per-hop (RFC 9110 §7.6.1) and framing: we write our own.
_PER_HOP = frozenset(
    {
        b"keep-alive",
        b"te",
        b"trailer",
        b"proxy-authorization",
        b"proxy-authenticate",
        b"proxy-connection",
        b"http2-settings",
    }
)


_LIFTED = {
    b"host": slots.HOST,
    b"authorization": slots.AUTHORIZATION,
    b"x-api-key": slots.API_KEY,
    b"cookie": slots.COOKIE,
    b"connection": slots.CONNECTION,
    b"content-length": slots.CONTENT_LENGTH,
    b"transfer-encoding": slots.TRANSFER_ENCODING,
    b"upgrade": slots.UPGRADE,
    b"expect": slots.EXPECT,
    b"traceparent": slots.TRACEPARENT,
    b"tracestate": slots.TRACESTATE,
    b"x-forwarded-for": slots.FORWARDED_FOR,
    b"x-forwarded-proto": slots.FORWARDED_PROTO,
    b"x-forwarded-host": slots.FORWARDED_HOST,
    b"x-forwarded-port": slots.FORWARDED_PORT,
    b"x-request-id": slots.REQUEST_ID,
    b"origin": slots.ORIGIN,
    b"sec-fetch-site": slots.SEC_FETCH_SITE,
    b"accept": slots.ACCEPT,
    b"access-control-request-method": slots.REQUESTED_METHOD,
    b"access-control-request-headers": slots.REQUESTED_HEADERS,
    b"content-type": slots.CONTENT_TYPE,
    b"user-agent": slots.USER_AGENT,
    b"etag": slots.ETAG,
    b"content-location": slots.CONTENT_LOCATION,
    b"content-range": slots.CONTENT_RANGE,
    b"max-forwards": slots.MAX_FORWARDS,
    b"server": slots.SERVER,
}
_SINGLE = frozenset(
    {
        slots.HOST,
        slots.AUTHORIZATION,
        slots.API_KEY,
        slots.CONTENT_LENGTH,
        slots.TRANSFER_ENCODING,
        slots.UPGRADE,
        slots.EXPECT,
        slots.ORIGIN,
        slots.SEC_FETCH_SITE,
        slots.REQUESTED_METHOD,
        # Read by nobody here; but aiohttp's parser takes none of them twice, and both lanes must judge alike.
        slots.CONTENT_TYPE,
        slots.USER_AGENT,
        slots.ETAG,
        slots.CONTENT_LOCATION,
        slots.CONTENT_RANGE,
        slots.MAX_FORWARDS,
        slots.SERVER,
    }
)
_LISTS = frozenset({slots.COOKIE, slots.CONNECTION, slots.FORWARDED_FOR, slots.ACCEPT, slots.REQUESTED_HEADERS})
_IS_LIST = tuple(slot in _LISTS for slot in range(slots.COUNT))
_NOT_NOMINABLE = frozenset({b"host", b"authorization", b"cookie", b"transfer-encoding", b"x-api-key"})
_REMEMBERED = 4096

_judged_names: dict[bytes, int] = {}


def folded(name: bytes) -> bytes:
    """Fold a field name: `X_Actor_Id`, `X.Actor.Id` and `x-actor-id` are one name to many servers."""
    return name.lower().translate(_FOLD)


def is_dropped(name: bytes) -> bool:
    """Tell whether a client may never send this (folded) name upstream."""
    return name in _DROPPED or name in _PER_HOP or name.startswith(_DROPPED_PREFIXES)


def judge_name(name: bytes) -> int:
    """Judge one raw spelling of a field name, and remember the verdict."""
    norm = folded(name)
    slot = _LIFTED.get(norm)
    if slot is None:
        slot = slots.DROP if norm in _PER_HOP else slots.CLAIM if is_dropped(norm) else slots.PASS
    elif norm != name.lower():
        # A lifted name in another spelling (`X_Api_Key`, `Content_Length`) is nobody's honest field.
        slot = slots.CLAIM
    if len(_judged_names) < _REMEMBERED:
        _judged_names[name] = slot
    return slot


_NOTHING_DOUBLED: frozenset[int] = frozenset()


class JudgedFields:
    """A client's field lines after judgement.

    Mutable while it is filled, on the hot path; nobody writes to it afterwards.

    Attributes:
        lines: Lines that pass up, `Name: value` without CRLF, in order, duplicates kept.
        lifted: First value of each lifted field by its place (`edge/slots.py`), None when absent.
        lists: All values of lifted fields that may repeat; None while there are none.
        doubled: Lifted fields that came more than once and are not refused for it; their value is not to be trusted.
        claims: How many fields claimed what is ours to say, and were dropped (H02).
    """

    __slots__ = ("claims", "doubled", "lifted", "lines", "lists")

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.lifted: list[bytes | None] = [None] * slots.COUNT
        self.lists: dict[int, list[bytes]] | None = None
        self.doubled: frozenset[int] = _NOTHING_DOUBLED
        self.claims = 0

    def get(self, slot: int) -> bytes | None:
        """The value of a lifted field, None when absent."""
        return self.lifted[slot]

    def all(self, slot: int) -> Sequence[bytes]:
        """All values of a lifted list field, in order."""
        return self.lists.get(slot, ()) if self.lists is not None else ()

    def once(self, slot: int) -> bytes | None:
        """The value of a lifted field that came exactly once, else None."""
        return None if slot in self.doubled else self.lifted[slot]


def judge_fields(fields: Sequence[Field]) -> JudgedFields:
    """Judge a client's field lines once, before anything reads them.

    Args:
        fields: Names and values as received, values without surrounding blanks, in order.

    Raises:
        CredentialMalformed: Authorization or X-API-Key twice.
        HostInvalid: Host twice.
        RequestMalformed: Another field twice that decides about framing or origin.
    """
    judged = JudgedFields()
    lines, lifted, known = judged.lines, judged.lifted, _judged_names
    for name, value in fields:
        slot = known.get(name)
        if slot is None:
            slot = judge_name(name)
        if slot == 0:  # PASS; written as a number, here and below, because every line of every request comes by
            lines.append(name + b": " + value)
        elif slot > 1:  # DROP
            if lifted[slot] is None:
                lifted[slot] = value
            else:
                _double(judged, slot)
            if _IS_LIST[slot]:
                if judged.lists is None:
                    judged.lists = {}
                judged.lists.setdefault(slot, []).append(value)
            if slot >= 18:  # FIRST_THAT_PASSES
                lines.append(name + b": " + value)
        elif slot < 0:  # CLAIM
            judged.claims += 1
    if lifted[6] is not None:  # CONNECTION
        _drop_nominated(judged, fields)
    return judged


def _double(judged: JudgedFields, slot: int) -> None:
    if slot in _SINGLE:
        _refuse_double(slot)
    judged.doubled |= {slot}


def _refuse_double(slot: int) -> None:
    if slot in (slots.AUTHORIZATION, slots.API_KEY):
        raise CredentialMalformed("credential_field_doubled")
    if slot == slots.HOST:
        raise HostInvalid("host_doubled")
    raise RequestMalformed("field_doubled")


def connection_options(judged: JudgedFields) -> frozenset[bytes]:
    """The lower-cased options of all Connection fields (RFC 9110 §7.6.1)."""
    values = judged.all(slots.CONNECTION)
    if not values:
        return frozenset()
    return frozenset(option.strip(b" \t").lower() for value in values for option in value.split(b",")) - {b""}


def _drop_nominated(judged: JudgedFields, fields: Sequence[Field]) -> None:
    options = connection_options(judged) - {b"close", b"keep-alive", b"upgrade"}
    if not options:
        return
    nominated = {folded(option) for option in options}
    blocked = {name for name in nominated if name not in _NOT_NOMINABLE and not name.startswith(b"content-")}
    judged.lines[:] = [
        b"%b: %b" % (name, value)
        for name, value in fields
        if (slot := judge_name(name)) == slots.PASS or slot >= slots.FIRST_THAT_PASSES
        if folded(name) not in blocked
    ]
