"""Reads the plain answer as it stands: a whole head in HTTP/1.1, a counted body, on a connection that is kept. Pure.

A server's answers repeat their field names in one order. So the second time a shape is seen, an expression is made of
it that takes the fields to relay out of the head in one step (docs/decisions/013).
"""

import re
from dataclasses import dataclass

from gateway.upstream.answer import ALLOW_ORIGIN, HEAD_CAP, TRANSFER_ENCODING, AnswerHead, Framing, judge_answer_name

_VALUE = rb"[\t\x20-\x7e\x80-\xff]*+\r\n"
_STATUS_LINE = rb"HTTP/1\.1 ([2-5][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*+)\r\n"
_PLAIN = re.compile(_STATUS_LINE + rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:" + _VALUE + rb")*+")
_COUNT = re.compile(rb" ?([0-9]{1,18})")
_NONE, _LENGTH = Framing.NONE, Framing.LENGTH  # read once: see edge/slots.py
_SHAPES = 64
"""Shapes of one upstream that are remembered."""

Plain = tuple[AnswerHead, int, int]
"""The head, the place where the body begins, and the body's bytes."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """Answers with these field names in this order; groups: status, reason, the lines that pass, the body's bytes."""

    expression: re.Pattern[bytes]
    has_cors: bool


class PlainAnswers:
    """Reads those of one upstream."""

    __slots__ = ("_latest", "_shapes")

    def __init__(self) -> None:
        self._latest: _Shape | None = None
        self._shapes: dict[tuple[bytes, ...], _Shape | None] = {}

    def read(self, data: bytes, *, is_head: bool) -> Plain | None:
        """Read an answer from its first bytes.

        Args:
            data: What the upstream sent first.
            is_head: The request's method was HEAD.

        Returns:
            None when the answer is of any other shape.
        """
        shape = self._latest
        if shape is not None and not is_head:
            match = shape.expression.match(data)
            if match is not None:
                status, reason, fields, length = match.groups()
                return AnswerHead(int(status), reason, fields, _LENGTH, shape.has_cors), match.end(), int(length)
        return self._read_slowly(data, is_head=is_head)

    def _read_slowly(self, data: bytes, *, is_head: bool) -> Plain | None:
        end = data.find(b"\r\n\r\n", 0, HEAD_CAP)
        match = _PLAIN.fullmatch(data, 0, end + 2) if end > 0 else None
        if match is None:
            return None
        lines = data[match.end(2) + 2 : end + 2].split(b"\r\n")
        lines.pop()
        kept, length, has_cors = [], None, False
        for line in lines:
            name, _, value = line.partition(b":")
            verdict = judge_answer_name(name)
            if verdict == 0:  # PASS
                kept.append(line)
            elif verdict == 2:  # CONTENT_LENGTH
                count = _COUNT.fullmatch(value)
                if count is None or length is not None:
                    return None
                length = int(count[1])
                kept.append(line)
            elif verdict == ALLOW_ORIGIN:
                has_cors = True
                kept.append(line)
            elif verdict == TRANSFER_ENCODING or (verdict != 1 and value != b" keep-alive"):  # DROP
                return None
        status = int(match[1])
        bodiless = is_head or status == 304
        if status == 204 or (length is None and not bodiless):
            return None
        if not bodiless:
            self._learn(lines, kept, has_cors=has_cors)
        fields = b"".join(line + b"\r\n" for line in kept)
        head = AnswerHead(status, match[2], fields, _NONE if bodiless else _LENGTH, has_cors)
        return head, end + 4, 0 if bodiless else length or 0

    def _learn(self, lines: list[bytes], kept: list[bytes], *, has_cors: bool) -> None:
        """Take the shape of these lines for the latest, and make its expression when it is seen a second time."""
        names = tuple(line.partition(b":")[0] for line in lines)
        if names not in self._shapes:
            if len(self._shapes) >= _SHAPES:
                self._shapes.clear()
            self._shapes[names] = None
            return
        shape = self._shapes[names]
        first = next(index for index, line in enumerate(lines) if line is kept[0])
        if shape is None and lines[first : first + len(kept)] == kept:  # those that pass stand together
            parts = [_expression_of(line, passes=line in kept) for line in lines]
            parts[first] = b"(" + parts[first]
            parts[first + len(kept) - 1] += b")"
            shape = _Shape(re.compile(_NOT_204 + _STATUS_LINE + b"".join(parts) + rb"\r\n"), has_cors)
            self._shapes[names] = shape
        self._latest = shape or self._latest


_NOT_204 = rb"(?!HTTP/1\.1 (?:204|304))"


def _expression_of(line: bytes, *, passes: bool) -> bytes:
    """An expression for every line with this name that has no say in the framing but what we read there."""
    name = line.partition(b":")[0]
    verdict = judge_answer_name(name)
    if verdict == 2:  # CONTENT_LENGTH
        return re.escape(name) + rb": ?([0-9]{1,18})\r\n"
    if not passes and verdict != 1:  # CONNECTION
        return re.escape(name) + rb": keep-alive\r\n"
    return re.escape(name) + rb":" + _VALUE
