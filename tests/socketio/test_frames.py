"""Frames of a client: judged by their beginning, passed on as they came, held where that is due."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.socketio.frames import FrameReader, Held, Verdict, client_close, client_text, server_text
from gateway.socketio.packets import CONNECT_CAP, PacketRefused
from gateway.upstream.frames import FrameTracker

KEY = b"\x01\x02\x03\x04"
Message = tuple[bytes, bool]


def frame(payload: bytes, opcode: int = 1, final: bool = True, first: int = 0, key: bytes = KEY) -> bytes:
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    else:
        length = b"\xfe" + size.to_bytes(2, "big") if size < 65536 else b"\xff" + size.to_bytes(8, "big")
    masked = bytes(byte ^ mask for byte, mask in zip(payload, itertools.cycle(key), strict=False))
    return bytes((first | opcode | (0x80 if final else 0),)) + length + key + masked


def judge(text: bytes, whole: bool, binary: bool) -> Verdict | None:
    if binary:
        return Verdict.PASS
    if not text:
        if whole:
            raise PacketRefused("packet_empty")
        return None
    return Verdict.HOLD if text[:1] == b"h" else Verdict.PASS


def read(pieces: list[bytes], judge: Callable[[bytes, bool, bool], Verdict | None] = judge) -> list[bytes | Held]:
    """Everything that comes of these pieces; neighbouring bytes joined."""
    reader, found = FrameReader(judge), list[bytes | Held]()
    for piece in pieces:
        reader.feed(piece)
        while (taken := reader.take()) is not None:
            if isinstance(taken, bytes) and found and isinstance(found[-1], bytes):
                found[-1] += taken
            else:
                found.append(taken)
    return found


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, list[bytes | Held]]:
    """Bytes of some messages, in fragments with pings between them, and what is to come of them."""
    sent, wanted = b"", list[bytes | Held]()
    for _ in range(draw(st.integers(0, 4))):
        text, binary = draw(st.binary(min_size=1, max_size=300)), draw(st.booleans())
        cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
        parts = [text[start:end] for start, end in itertools.pairwise([0, *cuts, len(text)])]
        raw = b"".join(
            frame(part, (2 if binary else 1) if not place else 0, final=place == len(parts) - 1)
            for place, part in enumerate(parts)
        )
        sent += raw
        wanted.append(Held(text) if not binary and text[:1] == b"h" else raw)
    return sent, wanted


def joined(items: list[bytes | Held]) -> list[bytes | Held]:
    found = list[bytes | Held]()
    for item in items:
        if isinstance(item, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += item
        else:
            found.append(item)
    return found


@given(messages(), st.lists(st.integers(0, 1500), max_size=6))
def test_messages_pass_as_they_came_or_are_held_however_they_arrive(
    given_messages: tuple[bytes, list[bytes | Held]], cuts: list[int]
) -> None:
    sent, wanted = given_messages
    pieces = [sent[start:end] for start, end in itertools.pairwise([0, *sorted(cuts), len(sent)])]

    assert read(pieces) == joined(wanted)


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_reading_frames_raises_nothing_undeclared(pieces: list[bytes]) -> None:
    try:
        read(pieces)
    except PacketRefused:
        return


def test_control_frames_pass_between_the_fragments_of_a_message_that_is_held() -> None:
    ping = frame(b"", 9)

    found = read([frame(b"hel", final=False), ping, frame(b"d", 0)])

    assert found == [ping, Held(b"held")]


def test_nothing_passes_behind_a_close_frame() -> None:
    close = frame(b"\x03\xe8", 8)

    assert read([close + frame(b"x"), frame(b"y")]) == [close]


@pytest.mark.parametrize(
    "sent",
    [
        frame(b"x", first=0x40),  # compressed, which nobody agreed on
        b"\x81\x01x",  # unmasked
        frame(b"x", 3),
        frame(b"x", 0),  # a continuation of nothing
        frame(b"x", final=False) + frame(b"y"),  # a message within a message
        frame(b"x", 9, final=False),
        frame(b"x" * 126, 9),
        frame(b"x", 11),
        frame(b""),
    ],
)
def test_frames_that_no_client_sends_are_refused(sent: bytes) -> None:
    with pytest.raises(PacketRefused):
        read([sent])


def test_a_held_message_is_bounded() -> None:
    with pytest.raises(PacketRefused):
        read([frame(b"h" * (CONNECT_CAP + 1))])


def test_a_flood_of_empty_fragments_is_bounded() -> None:
    with pytest.raises(PacketRefused):
        read([frame(b"", final=False), *[frame(b"", 0, final=False)] * 20_000])


def test_a_huge_message_passes_without_being_kept() -> None:
    reader = FrameReader(judge)
    reader.feed(b"\x82\xff" + (1 << 40).to_bytes(8, "big") + KEY)
    assert reader.take() is None
    for _ in range(3):
        reader.feed(b"x" * 65536)

        assert sum(len(piece) for piece in iter(reader.take, None) if isinstance(piece, bytes)) >= 65536


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_frames_of_ours_are_read_as_they_were_meant(size: int) -> None:
    text = b"h" * size or b"h"

    tracker = FrameTracker()
    tracker.advance(server_text(text))

    assert tracker.between
    assert read([client_text(text)], lambda *_: Verdict.HOLD if size <= 65535 else Verdict.PASS)[0]
    reader = FrameReader(judge)
    reader.feed(client_close(1000))
    assert reader.take() is not None
    assert reader.closed
