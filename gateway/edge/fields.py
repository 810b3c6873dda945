"""Field hygiene: which of a client's field lines go up, and which are lifted out to be judged.

Every raw spelling of a name is judged once and remembered (bounded), so normalising costs nothing afterwards.
The upstream's answers have their own rules in `upstream/answer_fields.py`.
"""

from collections.abc import Sequence
from enum import IntEnum

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


class Slot(IntEnum):
    """What becomes of a field: PASS and DROP, or the place it is lifted into."""

    PASS = 0
    DROP = 1
    HOST = 2
    AUTHORIZATION = 3
    API_KEY = 4
    COOKIE = 5
    CONNECTION = 6
    CONTENT_LENGTH = 7
    TRANSFER_ENCODING = 8
    UPGRADE = 9
    EXPECT = 10
    TRACEPARENT = 11
    TRACESTATE = 12
    FORWARDED_FOR = 13
    FORWARDED_PROTO = 14
    FORWARDED_HOST = 15
    FORWARDED_PORT = 16
    REQUEST_ID = 17
    # From here on a field is read and passes up as well.
    ORIGIN = 18
    SEC_FETCH_SITE = 19
    ACCEPT = 20
    REQUESTED_METHOD = 21
    REQUESTED_HEADERS = 22
    CONTENT_TYPE = 23


_LIFTED = {
    b"host": Slot.HOST,
    b"authorization": Slot.AUTHORIZATION,
    b"x-api-key": Slot.API_KEY,
    b"cookie": Slot.COOKIE,
    b"connection": Slot.CONNECTION,
    b"content-length": Slot.CONTENT_LENGTH,
    b"transfer-encoding": Slot.TRANSFER_ENCODING,
    b"upgrade": Slot.UPGRADE,
    b"expect": Slot.EXPECT,
    b"traceparent": Slot.TRACEPARENT,
    b"tracestate": Slot.TRACESTATE,
    b"x-forwarded-for": Slot.FORWARDED_FOR,
    b"x-forwarded-proto": Slot.FORWARDED_PROTO,
    b"x-forwarded-host": Slot.FORWARDED_HOST,
    b"x-forwarded-port": Slot.FORWARDED_PORT,
    b"x-request-id": Slot.REQUEST_ID,
    b"origin": Slot.ORIGIN,
    b"sec-fetch-site": Slot.SEC_FETCH_SITE,
    b"accept": Slot.ACCEPT,
    b"access-control-request-method": Slot.REQUESTED_METHOD,
    b"access-control-request-headers": Slot.REQUESTED_HEADERS,
    b"content-type": Slot.CONTENT_TYPE,
}
_SINGLE = frozenset(
    {
        Slot.HOST,
        Slot.AUTHORIZATION,
        Slot.API_KEY,
        Slot.CONTENT_LENGTH,
        Slot.TRANSFER_ENCODING,
        Slot.UPGRADE,
        Slot.EXPECT,
        Slot.ORIGIN,
        Slot.SEC_FETCH_SITE,
        Slot.REQUESTED_METHOD,
    }
)
_LISTS = frozenset({Slot.COOKIE, Slot.CONNECTION, Slot.FORWARDED_FOR, Slot.ACCEPT, Slot.REQUESTED_HEADERS})
_NOT_NOMINABLE = frozenset({b"host", b"authorization", b"cookie", b"transfer-encoding", b"x-api-key"})
_REMEMBERED = 4096

_judged_names: dict[bytes, Slot] = {}


def folded(name: bytes) -> bytes:
    """Fold a field name: `X_Actor_Id`, `X.Actor.Id` and `x-actor-id` are one name to many servers."""
    return name.lower().translate(_FOLD)


def is_dropped(name: bytes) -> bool:
    """Tell whether a client may never send this (folded) name upstream."""
    return name in _DROPPED or name in _PER_HOP or name.startswith(_DROPPED_PREFIXES)


def judge_name(name: bytes) -> Slot:
    """Judge one raw spelling of a field name, and remember the verdict."""
    norm = folded(name)
    slot = _LIFTED.get(norm)
    if slot is None:
        slot = Slot.DROP if is_dropped(norm) else Slot.PASS
    elif norm != name.lower():
        # A lifted name in another spelling (`X_Api_Key`, `Content_Length`) is nobody's honest field.
        slot = Slot.DROP
    if len(_judged_names) < _REMEMBERED:
        _judged_names[name] = slot
    return slot


class JudgedFields:
    """A client's field lines after judgement.

    Mutable while it is filled, on the hot path; nobody writes to it afterwards.

    Attributes:
        lines: Lines that pass up, `Name: value` without CRLF, in order, duplicates kept.
        lifted: First value of each lifted field.
        lists: All values of lifted fields that may repeat.
        doubled: Lifted fields that came more than once and are not refused for it; their value is not to be trusted.
    """

    __slots__ = ("doubled", "lifted", "lines", "lists")

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.lifted: dict[int, bytes] = {}
        self.lists: dict[int, list[bytes]] = {}
        self.doubled: set[int] = set()

    def get(self, slot: Slot) -> bytes | None:
        """The value of a lifted field, None when absent."""
        return self.lifted.get(slot)

    def all(self, slot: Slot) -> Sequence[bytes]:
        """All values of a lifted list field, in order."""
        return self.lists.get(slot, ())

    def once(self, slot: Slot) -> bytes | None:
        """The value of a lifted field that came exactly once, else None."""
        return None if slot in self.doubled else self.lifted.get(slot)


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
    lines = judged.lines
    known = _judged_names
    for name, value in fields:
        slot = known.get(name)
        if slot is None:
            slot = judge_name(name)
        if slot is Slot.PASS:
            lines.append(b"%b: %b" % (name, value))
        elif slot is not Slot.DROP:
            _lift(judged, slot, name, value)
    if Slot.CONNECTION in judged.lists:
        _drop_nominated(judged, fields)
    return judged


def _lift(judged: JudgedFields, slot: Slot, name: bytes, value: bytes) -> None:
    if slot in _LISTS:
        judged.lists.setdefault(slot, []).append(value)
    if slot in judged.lifted:
        if slot in _SINGLE:
            _refuse_double(slot)
        judged.doubled.add(slot)
    else:
        judged.lifted[slot] = value
    if slot >= Slot.ORIGIN:
        judged.lines.append(b"%b: %b" % (name, value))


def _refuse_double(slot: Slot) -> None:
    if slot in (Slot.AUTHORIZATION, Slot.API_KEY):
        raise CredentialMalformed("credential_field_doubled")
    if slot is Slot.HOST:
        raise HostInvalid("host_doubled")
    raise RequestMalformed("field_doubled")


def connection_options(judged: JudgedFields) -> frozenset[bytes]:
    """The lower-cased options of all Connection fields (RFC 9110 §7.6.1)."""
    values = judged.all(Slot.CONNECTION)
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
        if (slot := judge_name(name)) is Slot.PASS or slot >= Slot.ORIGIN
        if folded(name) not in blocked
    ]
