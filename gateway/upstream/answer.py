"""What an upstream answered, as values: the head we relay and how its body is delimited."""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from gateway.edge.fields import folded
from gateway.errors import GatewayError


class Framing(Enum):
    """How the upstream delimits the body (RFC 9112 §6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until_close"


@dataclass(slots=True)  # not frozen: one is made per answer on the hot path, and freezing doubles its cost
class AnswerHead:
    """Head of one final answer.

    Attributes:
        status: 200 to 599.
        reason: Reason phrase, may be empty.
        lines: Field lines to relay, `Name: value` without CRLF; per-hop, identity and framing fields are gone,
            but Content-Length stays where it describes the answer.
        framing: How the body arrives from the upstream.
        has_cors: The upstream sent an Access-Control-Allow-Origin of its own.
    """

    status: int
    reason: bytes
    lines: list[bytes]
    framing: Framing
    has_cors: bool


class AnswerSink(Protocol):
    """Where an answer goes; calls come in this order: head, body*, end, with flush after each read from upstream."""

    def head(self, head: AnswerHead) -> None:
        """Take the head; called once."""

    def body(self, data: bytes) -> None:
        """Take a piece of the body."""

    def end(self) -> None:
        """The answer is complete."""

    def flush(self) -> None:
        """Nothing more comes of this read: send what was held back to save writes."""

    def done(self) -> None:
        """The exchange is over and its connection given back; called once, after `end` and `flush`."""

    def failed(self, error: GatewayError) -> None:
        """The exchange broke; after `head` the client's connection can only be cut."""


# What becomes of a field of an upstream's answer: plain integers for the reason `edge/slots.py` gives.
PASS: Final = 0
DROP: Final = 1
CONTENT_LENGTH: Final = 2
TRANSFER_ENCODING: Final = 3
CONNECTION: Final = 4
ALLOW_ORIGIN: Final = 5

_PER_HOP = frozenset(
    {b"keep-alive", b"te", b"trailer", b"upgrade", b"proxy-authenticate", b"proxy-connection", b"proxy-authorization"}
)
# Ours to say, or meant for upstreams alone; the client must not learn them from an echo.
_OURS = (b"x-actor-", b"x-organization-", b"x-subscription-", b"x-forwarded-", b"x-clerk-")
_OURS_EXACT = frozenset({b"x-feature-flags", b"x-request-id", b"traceparent", b"forwarded"})
_READ = {
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"access-control-allow-origin": ALLOW_ORIGIN,
}
_REMEMBERED = 4096
judged_names: dict[bytes, int] = {}
"""Verdicts so far, by raw spelling; `judge_answer_name` fills it."""


def judge_answer_name(name: bytes) -> int:
    """Judge one raw spelling of an answer's field name; remembered, bounded."""
    verdict = judged_names.get(name)
    if verdict is None:
        norm = folded(name)
        verdict = _READ.get(name.lower(), PASS)
        if norm in _PER_HOP or norm in _OURS_EXACT or norm.startswith(_OURS):
            verdict = DROP
        if len(judged_names) < _REMEMBERED:
            judged_names[name] = verdict
    return verdict


NOT_NOMINABLE_ANSWER = frozenset({b"set-cookie", b"content-length", b"transfer-encoding", b"content-type"})
"""Fields an upstream's Connection cannot take away from its own answer (H13)."""


HEAD_CAP = 64 * 1024
"""Bytes of an answer's field section; far above what servers send, far below what would hurt."""
_PLAIN = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*+)\r\n"
    rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+"
)
_COUNT = re.compile(rb" ?([0-9]{1,18})")
_NONE, _LENGTH = Framing.NONE, Framing.LENGTH  # read once: see edge/slots.py


def read_plain_head(data: bytes, *, is_head: bool) -> tuple[AnswerHead, int, int] | None:
    """Read an answer's head that came whole, in HTTP/1.1, with one count of its body, on a connection to be kept.

    Args:
        data: What the upstream sent first.
        is_head: The request's method was HEAD.

    Returns:
        The head, the place where the body begins, and its bytes; None when the answer is of any other shape.
    """
    end = data.find(b"\r\n\r\n", 0, HEAD_CAP)
    match = _PLAIN.fullmatch(data, 0, end + 2) if end > 0 else None
    if match is None:
        return None
    lines: list[bytes] = []
    length: int | None = None
    has_cors = False
    first = match.end(2) + 2
    for line in data[first:end].split(b"\r\n") if first < end else ():
        colon = line.index(b":")
        verdict = judged_names.get(line[:colon])
        if verdict is None:
            verdict = judge_answer_name(line[:colon])
        if verdict == 0:  # PASS; a number, because every field of every answer comes by
            lines.append(line)
        elif verdict == 2:  # CONTENT_LENGTH
            count = _COUNT.fullmatch(line, colon + 1)
            if count is None or length is not None:
                return None
            length = int(count[1])
            lines.append(line)
        elif verdict == ALLOW_ORIGIN:
            has_cors = True
            lines.append(line)
        elif verdict != 1 and (verdict == TRANSFER_ENCODING or line[colon + 1 :] != b" keep-alive"):  # DROP
            return None
    status = int(match[1])
    if is_head or status == 304:
        return AnswerHead(status, match[2], lines, _NONE, has_cors), end + 4, 0
    if status == 204 or length is None:
        return None
    return AnswerHead(status, match[2], lines, _LENGTH, has_cors), end + 4, length
