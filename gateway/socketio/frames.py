"""A client's websocket frames (RFC 6455 §5), read as far as to judge each message by its beginning. Sans-io.

What may pass goes on as it came, masks and fragments and all, and is not kept: only the first bytes of a message are
held, and one whose whole content counts. Control frames pass between fragments. There is no extension: the handshake
went up without one, so a reserved bit is an error.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from gateway.socketio.packets import CONNECT_CAP, PREFIX_CAP, PacketRefused

_CONTINUATION, _TEXT, _BINARY, _CLOSE = 0, 1, 2, 8
_FINAL, _RESERVED, _CONTROL, _MASKED = 0x80, 0x70, 0x08, 0x80
_RAW_CAP = CONNECT_CAP + 16 * 1024
"""Bytes held of one message, frame heads among them: a flood of empty fragments is no message."""


class Verdict(Enum):
    """What becomes of a message."""

    PASS = "pass"
    HOLD = "hold"


Judge = Callable[[bytes, bool, bool], Verdict | None]
"""Given the beginning of a message, whether that is all of it, and whether it is binary; None: more is needed."""


@dataclass(frozen=True, slots=True)
class Held:
    """A message that goes nowhere before somebody looked at it.

    Attributes:
        text: Unmasked, its fragments joined.
    """

    text: bytes


class FrameReader:
    """Reads one direction of one websocket.

    Attributes:
        closed: A close frame went by: whatever follows is dropped.
    """

    __slots__ = (
        "_at",
        "_data",
        "_final",
        "_judge",
        "_key",
        "_left",
        "_opcode",
        "_raw",
        "_text",
        "_turn",
        "_verdict",
        "closed",
    )

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._data = b""
        self._at = 0  # of the first byte that was not read
        self._opcode: int | None = None  # of the message under way
        self._verdict: Verdict | None = None
        self._final = True  # of the frame under way, as the following
        self._left = 0
        self._key = b""
        self._turn = 0  # place in the key
        self._raw = bytearray()
        self._text = bytearray()
        self.closed = False

    @property
    def between(self) -> bool:
        """No frame that passes is under way."""
        return self._verdict is not Verdict.PASS or not self._left

    def feed(self, data: bytes) -> None:
        """Add bytes in the order they came."""
        if not self.closed:
            self._data, self._at = self._data[self._at :] + data, 0

    def take(self) -> bytes | Held | None:
        """What comes next: bytes that go up as they are, or a message that is held; None when more bytes are needed.

        Raises:
            PacketRefused: What no client may send; nothing is to be read after it.
        """
        while not self.closed:
            if self._left and self._at < len(self._data):
                taken = self._take_payload()
            elif not self._left and (head := self._head_size()):
                taken = self._take_head(head)
            else:
                return None
            if taken is not None:
                return taken
        self._data, self._at = b"", 0
        return None

    def _take_payload(self) -> bytes | Held | None:
        # Of a message that is not judged yet no more than the judge needs: the rest may be large, and passes.
        size = self._left if self._verdict is not None else min(self._left, PREFIX_CAP)
        piece = self._data[self._at : self._at + size]
        self._at += len(piece)
        self._left -= len(piece)
        if self._verdict is Verdict.PASS:
            self._end_frame()
            return piece
        self._raw += piece
        self._text += _masked(piece, self._key, self._turn)
        self._turn = (self._turn + len(piece)) % 4
        return self._weigh()

    def _take_head(self, size: int) -> bytes | Held | None:
        head = self._data[self._at : self._at + size]
        opcode, length = head[0] & 0x0F, _length(head)
        if head[0] & _RESERVED or not head[1] & _MASKED:
            raise PacketRefused("frame_malformed")
        if opcode & _CONTROL:
            return self._take_control(head, length)
        if opcode not in (_CONTINUATION, _TEXT, _BINARY) or (opcode == _CONTINUATION) != (self._opcode is not None):
            raise PacketRefused("frame_malformed")
        if self._opcode is None:
            self._opcode, self._verdict = opcode, None
        self._at += size
        self._final, self._left = bool(head[0] & _FINAL), length
        if self._verdict is Verdict.PASS:
            self._end_frame()
            return head
        self._key, self._turn = head[-4:], 0
        self._raw += head
        return self._weigh() if not length else None

    def _take_control(self, head: bytes, length: int) -> bytes:
        # A short length spelled long (RFC 6455 §5.2 forbids it) is refused too: servers read it, and `_head_size` does
        # not wait for what it counts, so the rest would be judged as frames that nobody else sees.
        if not head[0] & _FINAL or length > 125 or head[1] & 0x7F > 125 or head[0] & 0x0F > 10:
            raise PacketRefused("frame_malformed")
        start, self._at = self._at, self._at + len(head) + length
        self.closed = head[0] & 0x0F == _CLOSE
        return self._data[start : self._at]

    def _weigh(self) -> bytes | Held | None:
        """Judge the message under way by what is here of it."""
        if len(self._raw) > _RAW_CAP:
            raise PacketRefused("message_too_large")
        whole = self._final and not self._left
        if self._verdict is None:
            self._verdict = self._judge(bytes(self._text), whole, self._opcode == _BINARY)
        if self._verdict is Verdict.PASS:
            raw = bytes(self._raw)
            self._forget()
            self._end_frame()
            return raw
        if len(self._text) > CONNECT_CAP:
            raise PacketRefused("message_too_large")
        if self._verdict is Verdict.HOLD and whole:
            held = Held(bytes(self._text))
            self._forget()
            self._end_frame()
            return held
        return None

    def _forget(self) -> None:
        self._raw.clear()
        self._text.clear()

    def _end_frame(self) -> None:
        if self._final and not self._left:
            self._opcode = self._verdict = None

    def _head_size(self) -> int:
        """Bytes of the next frame's head, with its payload if it is a control frame's; 0 while they are not here."""
        here = len(self._data) - self._at
        if here < 2:
            return 0
        first, second = self._data[self._at], self._data[self._at + 1]
        short = second & 0x7F
        size = 2 + (8 if short == 127 else 2 if short == 126 else 0) + (4 if second & _MASKED else 0)
        wanted = size + short if first & _CONTROL and short < 126 else size
        return size if here >= wanted else 0


def _length(head: bytes) -> int:
    short = head[1] & 0x7F
    return short if short < 126 else int.from_bytes(head[2 : 10 if short == 127 else 4], "big")


def _masked(data: bytes, key: bytes, turn: int = 0) -> bytes:
    """Mask, or unmask (RFC 6455 §5.3), from a place in the key on."""
    size = len(data)
    keys = ((key[turn:] + key[:turn]) * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(keys, "big")).to_bytes(size, "big")


def client_text(text: bytes) -> bytes:
    """A text message as a client sends it."""
    return _client_frame(_TEXT, text)


def client_close(code: int) -> bytes:
    """A close frame as a client sends it."""
    return _client_frame(_CLOSE, code.to_bytes(2, "big"))


def server_text(text: bytes) -> bytes:
    """A text message as a server sends it."""
    return bytes((_FINAL | _TEXT,)) + _size(len(text), 0) + text


def _client_frame(opcode: int, payload: bytes) -> bytes:
    key = os.urandom(4)
    return bytes((_FINAL | opcode,)) + _size(len(payload), _MASKED) + key + _masked(payload, key)


def _size(length: int, mask: int) -> bytes:
    if length < 126:
        return bytes((mask | length,))
    if length < 65536:
        return bytes((mask | 126,)) + length.to_bytes(2, "big")
    return bytes((mask | 127,)) + length.to_bytes(8, "big")
