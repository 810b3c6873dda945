"""What arrived, judged once: the first step of the pipeline. Pure."""

import os
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.edge import slots
from gateway.edge.fields import Field, JudgedFields, connection_options, judge_fields
from gateway.edge.forwarded import ClientView, Forwarded, ForwardingTrust
from gateway.edge.host import Host, parse_host
from gateway.edge.target import Target, parse_target
from gateway.errors import (
    CodingUnsupported,
    ExpectationFailed,
    HostInvalid,
    MethodRefused,
    RequestMalformed,
    VersionUnsupported,
)

_TRACEPARENT = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_WEIGHT = re.compile(rb"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


@dataclass(slots=True)  # not frozen: one per request on the hot path
class Incoming:
    """One request as a lane read it.

    Attributes:
        method: As sent.
        target: Request target, byte for byte.
        fields: Field lines in order, values without surrounding blanks.
        http10: HTTP/1.0; any other version than 1.0 and 1.1 is told by `version_known`.
        peer: IP address of the connection, empty on a unix socket.
        scheme: `http` or `https`, of the listener.
        request_id: Ours; a trusted proxy's takes its place during arrival.
    """

    method: str
    target: bytes
    fields: Sequence[Field]
    peer: str
    scheme: str
    request_id: str
    http10: bool = False
    version_known: bool = True


@dataclass(slots=True)  # not frozen: one per request on the hot path
class Arrived:
    """A request whose every part was judged.

    Attributes:
        content_length: Bytes of the body, None when chunked or absent.
        chunked: The body comes in chunks.
        keep_alive: The client wants to keep the connection, and its framing leaves no doubt.
        upgrade: The Upgrade field of a request that asks to switch protocols, else None.
        continue_wanted: The client waits for 100 before it sends the body.
    """

    incoming: Incoming
    fields: JudgedFields
    target: Target
    host: Host
    view: ClientView
    content_length: int | None
    chunked: bool
    keep_alive: bool
    upgrade: bytes | None
    continue_wanted: bool

    @property
    def has_body(self) -> bool:
        """A body follows the head, possibly an empty chunked one."""
        return self.chunked or bool(self.content_length)


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
    fields = judge_fields(incoming.fields)
    host_value = fields.lifted[slots.HOST]
    if host_value is None:
        raise HostInvalid("host_missing")
    host = parse_host(host_value)
    forwarded = _forwarded(fields) if any(fields.lifted[_FORWARDED_FIRST:_FORWARDED_END]) else _NOTHING_FORWARDED
    view = trust.read(incoming.peer, incoming.scheme, host, forwarded)
    if view.request_id is not None:
        incoming.request_id = view.request_id
    target = parse_target(incoming.target)
    lifted = fields.lifted
    if lifted[slots.CONTENT_LENGTH] is None and lifted[slots.TRANSFER_ENCODING] is None:
        content_length, chunked = None, False
    else:
        content_length, chunked = _framing(fields, incoming)
    options = connection_options(fields) if lifted[slots.CONNECTION] is not None else _NO_OPTIONS
    # After a chunked request the connection ends: should two readers ever disagree on where it stopped, nothing follows
    # that one of them could take for another request (facts of smuggling: security cases S06, S07).
    keep_alive = not chunked and (b"keep-alive" in options if incoming.http10 else b"close" not in options)
    upgrade = lifted[slots.UPGRADE] if b"upgrade" in options else None
    expects = lifted[slots.EXPECT] is not None and _expects(fields)
    return Arrived(incoming, fields, target, host, view, content_length, chunked, keep_alive, upgrade, expects)


_NO_OPTIONS: frozenset[bytes] = frozenset()
_NOTHING_FORWARDED = Forwarded()
_FORWARDED_FIRST, _FORWARDED_END = slots.FORWARDED_FOR, slots.REQUEST_ID + 1


def _forwarded(fields: JudgedFields) -> Forwarded:
    return Forwarded(
        for_=tuple(fields.all(slots.FORWARDED_FOR)),
        proto=fields.once(slots.FORWARDED_PROTO),
        host=fields.once(slots.FORWARDED_HOST),
        port=fields.once(slots.FORWARDED_PORT),
        request_id=fields.once(slots.REQUEST_ID),
    )


def _framing(fields: JudgedFields, incoming: Incoming) -> tuple[int | None, bool]:
    """Content-Length or chunks, never both, never a coding we would have to undo (RFC 9112 §6.1–6.3)."""
    length, coding = fields.lifted[slots.CONTENT_LENGTH], fields.lifted[slots.TRANSFER_ENCODING]
    if coding is not None:
        if length is not None or incoming.http10:
            raise RequestMalformed("framing_conflict")
        if coding.lower() != b"chunked":
            raise CodingUnsupported
        return None, True
    if length is None:
        return None, False
    if _LENGTH.fullmatch(length) is None:
        raise RequestMalformed("content_length_invalid")
    return int(length), False


def _expects(fields: JudgedFields) -> bool:
    expect = fields.lifted[slots.EXPECT]
    if expect is None:
        return False
    if expect.lower() != b"100-continue":
        raise ExpectationFailed
    return True


# Ids tell requests apart and are no secrets, so they need not cost a system call each.
_random = random.Random(os.urandom(32))  # noqa: S311
os.register_at_fork(after_in_child=lambda: _random.seed(os.urandom(32)))


def new_request_id() -> str:
    """32 hex digits, unique; not a secret."""
    return f"{_random.getrandbits(128):032x}"


def trace_lines(fields: JudgedFields) -> bytes:
    """The W3C trace context that goes up (Trace Context §3.2): the caller's trace with a span of ours, or a new trace.

    Returns:
        A `traceparent` line and, when it belongs to it, the caller's `tracestate`, each with its CRLF.
    """
    given = fields.lifted[slots.TRACEPARENT]
    match = _TRACEPARENT.fullmatch(given) if given is not None and slots.TRACEPARENT not in fields.doubled else None
    if match is None:
        digits = f"{_random.getrandbits(192):048x}"
        return f"traceparent: 00-{digits[:32]}-{digits[32:]}-00\r\n".encode("ascii")
    span = _random.getrandbits(64) or 1
    state = fields.once(slots.TRACESTATE)
    kept = b"tracestate: %b\r\n" % state if state else b""
    return b"traceparent: 00-%b-%016x-%b\r\n%b" % (match[1], span, match[2], kept)
