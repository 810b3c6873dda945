"""A request head read from its bytes: the one plain shape that needs no parser, and what its fields say. Pure.

`find_request_line` and `split_fields` know the strict grammar of RFC 9112 alone: CRLF, HTTP/1.1, no folding, no blank
before the colon. Whatever differs by a byte is not refused here but not read at all: aiohttp's parser is the judge of
the unusual (docs/decisions/013).
"""

import re
from collections.abc import Sequence
from typing import Final

from gateway.edge import slots
from gateway.edge.fields import Field, JudgedFields, connection_options, judge_fields
from gateway.edge.forwarded import Forwarded
from gateway.edge.host import Host, parse_host
from gateway.edge.target import ORDINARY, Target
from gateway.errors import CodingUnsupported, ExpectationFailed, HostInvalid, RequestMalformed

END_OF_HEAD: Final = b"\r\n\r\n"
_METHODS = rb"GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS"
_METHOD_WORDS = {word.encode("ascii"): word for word in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")}
_REQUEST_LINE = re.compile(rb"(" + _METHODS + rb") (/[!-~]*+) HTTP/1\.1\r\n")
_ORDINARY_LINE = re.compile(rb"(" + _METHODS + rb") (" + ORDINARY + rb") HTTP/1\.1\r\n")
_LINE = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+"
_FIELDS = re.compile(rb"(?:" + _LINE + rb"\r\n)++")
# What a plain head may begin with, cut anywhere: in its request line, in a line of its fields, or in a line's end.
_MORE_LINES = rb"(?:" + _LINE + rb"\r\n)*+(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]*+|" + _LINE + rb"\r?|\r)"
_MORE = re.compile(_MORE_LINES)
_BEGINNING = re.compile(
    rb"[A-Z]{0,7}+|(?:" + _METHODS + rb") (?:/[!-~]*+)?+(?: (?:H(?:T(?:T(?:P(?:/(?:1(?:\.(?:1\r?)?)?)?)?)?)?)?)?)?"
    rb"|(?:" + _METHODS + rb") /[!-~]*+ HTTP/1\.1\r\n" + _MORE_LINES
)
_LENGTH = re.compile(rb"[0-9]{1,18}")
TRACEPARENT = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")
"""Version 00 (Trace Context §3.2.2); groups: trace id, flags."""
_BEARER_LINE = re.compile(rb"\r\n[Aa]uthorization: Bearer ([A-Za-z0-9._~+/=-]++)(?=\r\n)")
_TRACE_LINE = re.compile(rb"\r\ntraceparent: (" + TRACEPARENT.pattern + rb")(?=\r\n)")
_LENGTH_LINE = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]{1,18})(?=\r\n)")
_NO_OPTIONS: frozenset[bytes] = frozenset()
_NOTHING_FORWARDED = Forwarded()
_FORWARDED_FIRST, _FORWARDED_END = slots.FORWARDED_FOR, slots.REQUEST_ID + 1


class Head:
    """A field section after judgement: all that can be said without the request line and the connection.

    Shared by all requests that bring the same bytes; nobody writes to it.

    Attributes:
        received: Field lines in order, values without surrounding blanks.
        fields: The same, judged.
        content_length: Bytes of the body, None when chunked or absent.
        chunked: The body comes in chunks.
        options: Lower-cased options of Connection.
        closes: `close` is among them.
        upgrade: The Upgrade field of a request that asks to switch protocols, else None.
        continue_wanted: The client waits for 100 before it sends the body.
        plain: Nothing here asks for more than an answer: no chunks, no upgrade, no `Expect`.
        passing: Lines for the upstream, each with its CRLF: Host, then those that pass as they came.
    """

    __slots__ = (
        "chunked",
        "closes",
        "content_length",
        "continue_wanted",
        "fields",
        "forwarded",
        "host",
        "options",
        "passing",
        "plain",
        "received",
        "upgrade",
    )

    def __init__(
        self,
        received: Sequence[Field],
        fields: JudgedFields,
        host: Host,
        forwarded: Forwarded,
        content_length: int | None,
        chunked: bool,
        options: frozenset[bytes],
        closes: bool,
        upgrade: bytes | None,
        continue_wanted: bool,
        plain: bool,
        passing: bytes,
    ) -> None:
        self.received = received
        self.fields = fields
        self.host = host
        self.forwarded = forwarded
        self.content_length = content_length
        self.chunked = chunked
        self.options = options
        self.closes = closes
        self.upgrade = upgrade
        self.continue_wanted = continue_wanted
        self.plain = plain
        self.passing = passing


class RequestLine:
    """A request line of the plain shape.

    Attributes:
        method: As sent.
        raw: The target as sent.
        target: The same judged; None when it is none of the ordinary ones: `target.parse_target` judges it then.
        end: The place behind the CRLF.
    """

    __slots__ = ("end", "method", "raw", "target")

    def __init__(self, method: str, raw: bytes, target: Target | None, end: int) -> None:
        self.method = method
        self.raw = raw
        self.target = target
        self.end = end


def find_request_line(data: bytes) -> RequestLine | None:
    """Read a request line of the plain shape; None when it is anything else.

    Args:
        data: Begins with the line.
    """
    match = _ORDINARY_LINE.match(data)
    if match is not None:
        method, raw, path, query = match.groups()
        return RequestLine(_METHOD_WORDS[method], raw, Target(raw, path.decode("ascii"), query or b""), match.end())
    match = _REQUEST_LINE.match(data)
    return RequestLine(_METHOD_WORDS[match[1]], match[2], None, match.end()) if match is not None else None


def split_fields(section: bytes) -> list[Field] | None:
    """Split a field section of the plain shape.

    Args:
        section: Field lines, each with its CRLF.

    Returns:
        Names and values, values without surrounding blanks; None when any line is not of the plain shape.
    """
    if _FIELDS.fullmatch(section) is None:
        return None
    lines = section.split(b"\r\n")
    lines.pop()
    fields = []
    for line in lines:
        name, _, value = line.partition(b":")
        fields.append((name, value.strip(b" \t")))
    return fields


def take_changing(section: bytes) -> tuple[bytes, bytes | None, bytes | None, int | None]:
    """Take out the lines that honest clients change from request to request, or that differ from user to user.

    Without them a section repeats, and is judged once. Only the first of its kind is taken, in the spelling clients
    use; whoever finds another in what is left has found a doubled field.

    Args:
        section: Field lines, each with a CRLF before it, and one at the end.

    Returns:
        What is left, in the same form; the token of `Authorization: Bearer`; the traceparent; the Content-Length.
    """
    bearer, trace, length = None, None, None
    at = section.find(b"uthorization: Bearer ")
    if at >= 0 and (match := _BEARER_LINE.match(section, at - 3)) is not None:
        bearer, section = match[1], section[: at - 3] + section[match.end() :]
    at = section.find(b"\r\ntraceparent: ")
    if at >= 0 and (match := _TRACE_LINE.match(section, at)) is not None:
        trace, section = match[1], section[:at] + section[match.end() :]
    at = section.find(b"ontent-")
    if at >= 0 and (match := _LENGTH_LINE.search(section, at - 3)) is not None:
        length, section = int(match[1]), section[: match.start()] + section[match.end() :]
    return section, bearer, trace, length


def may_become_plain(data: bytes, start: int = 0) -> bool:
    """Tell whether bytes without the end of a head can still become a plain one.

    Args:
        data: The head so far.
        start: Where a line begins up to which it was judged before; each line is then judged once.
    """
    return (_MORE if start else _BEGINNING).fullmatch(data, start) is not None


def judge_head(received: Sequence[Field]) -> Head:
    """Judge a request's field lines, and prepare those that go up.

    Raises:
        RequestMalformed: And its kin in `errors.py`: the first part that cannot stand.
    """
    fields = judge_fields(received)
    lifted = fields.lifted
    host_value = lifted[slots.HOST]
    if host_value is None:
        raise HostInvalid("host_missing")
    host = parse_host(host_value)
    forwarded = _forwarded(fields) if any(lifted[_FORWARDED_FIRST:_FORWARDED_END]) else _NOTHING_FORWARDED
    content_length, chunked = _framing(lifted[slots.CONTENT_LENGTH], lifted[slots.TRANSFER_ENCODING])
    options = connection_options(fields) if lifted[slots.CONNECTION] is not None else _NO_OPTIONS
    upgrade = lifted[slots.UPGRADE] if b"upgrade" in options else None
    expect = lifted[slots.EXPECT]
    if expect is not None and expect.lower() != b"100-continue":
        raise ExpectationFailed
    waits = expect is not None
    plain = not (chunked or waits or upgrade is not None)
    lines = b"\r\n".join((b"Host: " + host.raw, *fields.lines, b""))
    closes = b"close" in options
    return Head(
        received, fields, host, forwarded, content_length, chunked, options, closes, upgrade, waits, plain, lines
    )


def _forwarded(fields: JudgedFields) -> Forwarded:
    return Forwarded(
        for_=tuple(fields.all(slots.FORWARDED_FOR)),
        proto=fields.once(slots.FORWARDED_PROTO),
        host=fields.once(slots.FORWARDED_HOST),
        port=fields.once(slots.FORWARDED_PORT),
        request_id=fields.once(slots.REQUEST_ID),
    )


def _framing(length: bytes | None, coding: bytes | None) -> tuple[int | None, bool]:
    """Content-Length or chunks, never both, never a coding we would have to undo (RFC 9112 §6.1–6.3)."""
    if coding is not None:
        if length is not None:
            raise RequestMalformed("framing_conflict")
        if coding.lower() != b"chunked":
            raise CodingUnsupported
        return None, True
    if length is None:
        return None, False
    if _LENGTH.fullmatch(length) is None:
        raise RequestMalformed("content_length_invalid")
    return int(length), False
