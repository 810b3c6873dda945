"""What arrived, judged once: the first step of the pipeline. Pure."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.edge import slots
from gateway.edge.fields import Field, JudgedFields
from gateway.edge.forwarded import ClientView, ForwardingTrust
from gateway.edge.head import Head, judge_head
from gateway.edge.host import Host
from gateway.edge.target import Target, parse_target
from gateway.errors import MethodRefused, RequestMalformed, VersionUnsupported

_TRACEPARENT = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")
_WEIGHT = re.compile(rb"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


@dataclass(slots=True)  # not frozen: one per request on the hot path
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
        head: The fields' judgement, where the lane has it already.
    """

    method: str
    target: bytes
    fields: Sequence[Field]
    peer: str
    scheme: str
    request_id: str
    http10: bool = False
    version_known: bool = True
    head: Head | None = None


@dataclass(slots=True)  # not frozen: one per request on the hot path
class Arrived:
    """A request whose every part was judged."""

    incoming: Incoming
    head: Head
    target: Target
    view: ClientView

    @property
    def fields(self) -> JudgedFields:
        """The client's fields after judgement."""
        return self.head.fields

    @property
    def host(self) -> Host:
        """The host asked for."""
        return self.head.host

    @property
    def has_body(self) -> bool:
        """A body follows the head, possibly an empty chunked one."""
        return self.head.chunked or bool(self.head.content_length)

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
    head = incoming.head
    if head is None:
        head = judge_head(incoming.fields)
        if head.chunked and incoming.http10:
            raise RequestMalformed("framing_conflict")
    view = trust.read(incoming.peer, incoming.scheme, head.host, head.forwarded)
    if view.request_id is not None:
        incoming.request_id = view.request_id
    return Arrived(incoming, head, parse_target(incoming.target), view)


class _RandomHex:
    """Hex digits from the system's generator, fetched a page at a time: ids must not cost a system call each."""

    __slots__ = ("_at", "_digits")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Throw away what is left: after a fork two processes would hand out the same."""
        self._digits, self._at = "", 0

    def take(self, count: int) -> str:
        """The next `count` digits."""
        end = self._at + count
        if end > len(self._digits):
            self._digits, self._at, end = os.urandom(4096).hex(), 0, count
        start, self._at = self._at, end
        return self._digits[start:end]


_random_hex = _RandomHex()
os.register_at_fork(after_in_child=_random_hex.forget)


def new_request_id() -> str:
    """32 hex digits, unique."""
    return _random_hex.take(32)


def trace_lines(fields: JudgedFields) -> bytes:
    """The W3C trace context that goes up (Trace Context §3.2): the caller's trace with a span of ours, or a new trace.

    Returns:
        A `traceparent` line and, when it belongs to it, the caller's `tracestate`, each with its CRLF.
    """
    given = fields.lifted[slots.TRACEPARENT]
    match = _TRACEPARENT.fullmatch(given) if given is not None and slots.TRACEPARENT not in fields.doubled else None
    if match is None:
        digits = _random_hex.take(48)
        return f"traceparent: 00-{digits[:32]}-{digits[32:]}-00\r\n".encode("ascii")
    state = fields.once(slots.TRACESTATE)
    kept = b"tracestate: %b\r\n" % state if state else b""
    return b"traceparent: 00-%b-%b-%b\r\n%b" % (match[1], _random_hex.take(16).encode("ascii"), match[2], kept)
