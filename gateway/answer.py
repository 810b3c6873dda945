"""An answer of our own: own endpoints, preflights and refusals. Plain bytes, so that every lane writes it alike."""

from dataclasses import dataclass
from http import HTTPStatus

import orjson

FieldLine = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, fields and body; Content-Length, Date and Connection are added when it is written.

    Attributes:
        close: The client's connection must not be used again.
    """

    status: int
    fields: tuple[FieldLine, ...] = ()
    body: bytes = b""
    close: bool = False

    def serialise(self, *, date: bytes, is_head: bool, close: bool, http10: bool = False) -> bytes:
        """Write the whole message.

        Args:
            date: IMF-fixdate (RFC 9110 §5.6.7).
            is_head: Leave the body out, keep its length.
            close: Announce that the connection ends.
            http10: The client speaks HTTP/1.0; keeping alive must be said.
        """
        lines = [b"HTTP/1.1 %d %b" % (self.status, HTTPStatus(self.status).phrase.encode("ascii"))]
        lines += [b"%b: %b" % field for field in self.fields]
        lines.append(b"Date: " + date)
        if self.status not in (204, 304):
            lines.append(b"Content-Length: %d" % len(self.body))
        if close:
            lines.append(b"Connection: close")
        elif http10:
            lines.append(b"Connection: keep-alive")
        return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if is_head else self.body)


NO_STORE = (b"Cache-Control", b"no-store")
NO_SNIFF = (b"X-Content-Type-Options", b"nosniff")


def json_answer(status: int, value: object, *fields: FieldLine, media_type: bytes = b"application/json") -> Answer:
    """Answer with JSON, never stored and never sniffed; the answer depends on who asks, so it varies on credentials."""
    fixed = ((b"Content-Type", media_type), NO_STORE, NO_SNIFF, (b"Vary", b"Authorization, Cookie, Origin"))
    return Answer(status, (*fixed, *fields), orjson.dumps(value))
