"""Websocket frames (RFC 6455 §5.2), read only as far as to know where one ends. Sans-io.

A close frame of ours must not land inside a frame of the upstream's. Nothing else of a message is looked at: no
payload, no masks, no fragments' order.
"""

_LONGEST_HEAD = 14
_CLOSE = 0x8
_CONTROL, _FINAL = 0x08, 0x80


class FrameTracker:
    """Follows one direction of a tunnel.

    Attributes:
        closed: The head of a close frame went by: nothing may follow that frame.
        unfinished: A message is under way of which a later fragment is to come: no other message may begin.
    """

    __slots__ = ("_head", "_left", "closed", "unfinished")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self.closed = self.unfinished = False

    @property
    def between(self) -> bool:
        """No frame is under way."""
        return not self._left and not self._head

    def advance(self, data: bytes, *, to_boundary: bool = False) -> int:
        """Follow bytes in the order they go.

        Args:
            data: The next bytes of this direction.
            to_boundary: Stop at the first end of a frame.

        Returns:
            How many bytes were followed: all, or those up to the boundary.
        """
        at, end, left = 0, len(data), self._left
        while at < end:
            if left:
                pass
            elif not self._head and at + 1 < end and (size := data[at + 1]) < 126:
                # A short unmasked frame, in place: a flood of empty ones must not hold the loop for long.
                self._note(data[at])
                at, left = at + 2, size
            else:
                at, left = self._take_head(data, at)
            if left > end - at:
                at, left = end, left - (end - at)
            else:
                at, left = at + left, 0
            if to_boundary and not left and not self._head:
                break
        self._left = left
        return at

    def _note(self, first: int) -> None:
        """Note what a frame's first byte says."""
        if first & _CONTROL:
            self.closed = self.closed or first & 0x0F == _CLOSE
        else:
            self.unfinished = not first & _FINAL

    def _take_head(self, data: bytes, at: int) -> tuple[int, int]:
        """Read a frame's head, or keep what there is of it; gives the place behind it and the payload's size."""
        known = len(self._head)
        head = self._head + data[at : at + _LONGEST_HEAD - known]
        size = _head_size(head)
        if len(head) < size:
            self._head = head
            return len(data), 0
        self._head = b""
        self._note(head[0])
        return at + size - known, _payload_size(head)


def _head_size(head: bytes) -> int:
    """Bytes of a frame's head, told by its second one; 2 as long as that is missing."""
    if len(head) < 2:
        return 2
    length = head[1] & 0x7F
    extended = 8 if length == 127 else 2 if length == 126 else 0
    return 2 + extended + (4 if head[1] & 0x80 else 0)


def _payload_size(head: bytes) -> int:
    length = head[1] & 0x7F
    if length < 126:
        return length
    return int.from_bytes(head[2 : 10 if length == 127 else 4], "big")


def close_frame(code: int, phrase: bytes) -> bytes:
    """A server's close frame.

    Args:
        code: 1000 to 4999 (RFC 6455 §7.4).
        phrase: UTF-8, 123 bytes at most.
    """
    return bytes((0x80 | _CLOSE, 2 + len(phrase))) + code.to_bytes(2, "big") + phrase
