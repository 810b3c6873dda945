"""What an upstream answered, as values: the head we relay and how its body is delimited."""

from enum import Enum
from typing import Final, Protocol

from gateway.edge.fields import folded, is_dropped
from gateway.errors import GatewayError


class Framing(Enum):
    """How the upstream delimits the body (RFC 9112 §6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until_close"


class AnswerHead:
    """Head of one final answer.

    Attributes:
        status: 200 to 599.
        reason: Reason phrase, may be empty.
        fields: Field lines to relay, each with its CRLF; per-hop, identity and framing fields are gone, but
            Content-Length stays where it describes the answer.
        framing: How the body arrives from the upstream.
        has_cors: The upstream sent an Access-Control-Allow-Origin of its own.
    """

    __slots__ = ("fields", "framing", "has_cors", "reason", "status")

    def __init__(self, status: int, reason: bytes, fields: bytes, framing: Framing, has_cors: bool) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields
        self.framing = framing
        self.has_cors = has_cors


class AnswerSink(Protocol):
    """Where an answer goes: `whole`, or in this order head, body*, end, with flush after each read from upstream."""

    def whole(self, head: AnswerHead, body: bytes) -> None:
        """Take an answer that came at once, with a framing of `LENGTH` or `NONE`, and send it."""

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
        # What no client may say is ours to say, or meant for upstreams alone: clients must not learn it from an echo.
        if norm in _PER_HOP or norm == b"traceparent" or is_dropped(norm):
            verdict = DROP
        if len(judged_names) < _REMEMBERED:
            judged_names[name] = verdict
    return verdict


NOT_NOMINABLE_ANSWER = frozenset({b"set-cookie", b"content-length", b"transfer-encoding", b"content-type"})
"""Fields an upstream's Connection cannot take away from its own answer (H13)."""


HEAD_CAP = 64 * 1024
"""Bytes of an answer's field section; far above what servers send, far below what would hurt."""
