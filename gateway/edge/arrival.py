"""What arrived, judged once: the first step of the pipeline. Pure."""

import os
import re
from collections.abc import Sequence
from typing import Final

from gateway.edge import slots
from gateway.edge.fields import Field, JudgedFields
from gateway.edge.forwarded import ClientView, ForwardingTrust
from gateway.edge.head import TRACEPARENT, Head, judge_head, take_changing
from gateway.edge.host import Host
from gateway.edge.recent_heads import Seen
from gateway.edge.target import Target, parse_target
from gateway.errors import MethodRefused, RequestMalformed, VersionUnsupported

_WEIGHT = re.compile(rb"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


class Incoming:
    """One request as a lane read it.

    Attributes:
        method: As sent.
        target: Request target, byte for byte.
        fields: Field lines in order, values without surrounding blanks.
        peer: IP address of the connection, empty on a unix socket.
        scheme: `http` or `https`, of the listener.
        request_id: Ours; a trusted proxy's takes its place during arrival.
        http10: HTTP/1.0; any other version than 1.0 and 1.1 is told by `version_known`.
        seen: What is known of the fields, where the lane has it already; then also the following.
        parsed: The target, where it was judged already; else None.
        section: The field section as it came, each line with a CRLF before it.
        traceparent: Well-formed, and the only one.
    """

    __slots__ = (
        "fields",
        "http10",
        "method",
        "parsed",
        "peer",
        "request_id",
        "scheme",
        "section",
        "seen",
        "target",
        "traceparent",
        "version_known",
    )

    def __init__(
        self,
        method: str,
        target: bytes,
        fields: Sequence[Field],
        peer: str,
        scheme: str,
        request_id: str,
        http10: bool = False,
        version_known: bool = True,
    ) -> None:
        self.method = method
        self.target = target
        self.fields = fields
        self.peer = peer
        self.scheme = scheme
        self.request_id = request_id
        self.http10 = http10
        self.version_known = version_known
        self.seen: Seen | None = None
        self.parsed: Target | None = None
        self.section = b""
        self.traceparent: bytes | None = None


class Arrived:
    """A request whose every part was judged."""

    __slots__ = ("head", "incoming", "target", "view")

    def __init__(self, incoming: Incoming, head: Head, target: Target, view: ClientView) -> None:
        self.incoming = incoming
        self.head = head
        self.target = target
        self.view = view

    @property
    def fields(self) -> JudgedFields:
        """The client's fields after judgement."""
        return self.head.fields

    @property
    def host(self) -> Host:
        """The host asked for."""
        return self.head.host

    @property
    def content_length(self) -> int | None:
        """Bytes of the body, None when chunked or absent."""
        seen = self.incoming.seen
        return self.head.content_length if seen is None or seen.content_length is None else seen.content_length

    @property
    def authorization(self) -> bytes | None:
        """The one Authorization field's value."""
        seen = self.incoming.seen
        if seen is None or seen.bearer is None:
            return self.head.fields.lifted[slots.AUTHORIZATION]
        return b"Bearer " + (take_changing(self.incoming.section)[1] or b"")

    @property
    def has_body(self) -> bool:
        """A body follows the head, possibly an empty chunked one."""
        return self.head.chunked or bool(self.content_length)

    @property
    def keep_alive(self) -> bool:
        """The client wants to keep the connection, and its framing leaves no doubt.

        After a chunked request the connection ends: should two readers ever disagree on where it stopped, nothing
        follows that one of them could take for another request (facts of smuggling: security cases S06, S07).
        """
        head = self.head
        if head.chunked:
            return False
        return b"keep-alive" in head.options if self.incoming.http10 else not head.closes


def wants_html(fields: Sequence[Field]) -> bool:
    """Tell a browser's navigation, which names text/html before any JSON; API clients send `*/*`, JSON, or nothing.

    Args:
        fields: As received: an answer is owed to requests too that could not be judged.
    """
    html = json = 0.0
    for name, value in fields:
        if name.lower() == b"accept":
            for part in value.lower().split(b","):
                media_type, weight = _weighed(part)
                if media_type == b"text/html":
                    html = max(html, weight)
                elif media_type in (b"application/json", b"application/problem+json"):
                    json = max(json, weight)
    return html > 0 and html >= json


def _weighed(part: bytes) -> tuple[bytes, float]:
    """Read one element of Accept with its weight (RFC 9110 §12.4.2); a weight that is none counts as 0."""
    media_type, *parameters = (piece.strip(b" \t") for piece in part.split(b";"))
    weight = next((text[2:] for text in parameters if text.startswith(b"q=")), b"1")
    return media_type, float(weight) if _WEIGHT.fullmatch(weight) else 0.0


def arrive(incoming: Incoming, trust: ForwardingTrust) -> Arrived:
    """Judge a request head.

    Raises:
        RequestMalformed: And its kin in `errors.py`: the first part that cannot stand.
    """
    if not incoming.version_known:
        raise VersionUnsupported
    if incoming.method in ("TRACE", "CONNECT"):
        raise MethodRefused
    if incoming.seen is not None:
        head = incoming.seen.head
    else:
        head = judge_head(incoming.fields)
        if head.chunked and incoming.http10:
            raise RequestMalformed("framing_conflict")
    view = trust.read(incoming.peer, incoming.scheme, head.host, head.forwarded)
    if view.request_id is not None:
        incoming.request_id = view.request_id
    target = incoming.parsed
    return Arrived(incoming, head, parse_target(incoming.target) if target is None else target, view)


class _RandomDigits:
    """Hex digits from the system's generator, fetched a page at a time: ids must not cost a system call each."""

    __slots__ = ("_at", "_page")

    def __init__(self) -> None:
        self._page = ""
        self._at = 0

    def take(self, count: int) -> str:
        start, end = self._at, self._at + count
        if end > len(self._page):
            self._page = os.urandom(4096).hex()
            start, end = 0, count
        self._at = end
        return self._page[start:end]

    def throw_away(self) -> None:
        self._page = ""


_digits: Final = _RandomDigits()
# After a fork two processes would hand out the same.
os.register_at_fork(after_in_child=_digits.throw_away)


def new_request_id() -> str:
    """32 hex digits, unique."""
    return _digits.take(32)


def trace_lines(fields: JudgedFields, given: bytes | None = None) -> bytes:
    """The W3C trace context that goes up (Trace Context §3.2): the caller's trace with a span of ours, or a new trace.

    Args:
        fields: As judged.
        given: The caller's traceparent, where it is not among them.

    Returns:
        A `traceparent` line and, when it belongs to it, the caller's `tracestate`, each with its CRLF.
    """
    if given is None and fields.lifted[slots.TRACEPARENT] is not None:
        given = fields.once(slots.TRACEPARENT)
    match = TRACEPARENT.fullmatch(given) if given is not None else None
    if match is None:
        return b"".join(
            (b"traceparent: 00-", _digits.take(32).encode("ascii"), b"-", _digits.take(16).encode("ascii"), b"-00\r\n")
        )
    state = fields.once(slots.TRACESTATE)
    kept = b"tracestate: %b\r\n" % state if state else b""
    return b"traceparent: 00-%b-%b-%b\r\n%b" % (match[1], _digits.take(16).encode("ascii"), match[2], kept)
