"""Where a frame ends, however the bytes are cut."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.upstream.frames import FrameTracker, close_frame
from tests.support.websockets import frame

CLOSE = 0x8
payloads = st.one_of(st.binary(max_size=200), st.integers(120, 70_000).map(bytes))
masks = st.one_of(st.just(b""), st.binary(min_size=4, max_size=4))
frames = st.builds(
    lambda opcode, payload, final, mask: frame(opcode, payload, final=final, mask=mask),
    st.sampled_from([0x0, 0x1, 0x2, 0x9, 0xA]),
    payloads,
    st.booleans(),
    masks,
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(bounds)]


@settings(max_examples=200)
@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 2**20), max_size=20))
def test_every_end_of_a_frame_is_found_in_any_cut(sent: list[bytes], places: list[int]) -> None:
    tracker, found, passed = FrameTracker(), [], 0
    for piece in cut(b"".join(sent), places):
        rest = piece
        while rest:
            taken = tracker.advance(rest, to_boundary=True)
            rest, passed = rest[taken:], passed + taken
            if tracker.between:
                found.append(passed)

    ends = [sum(map(len, sent[: count + 1])) for count in range(len(sent))]
    assert found == ends
    assert not tracker.closed


@settings(max_examples=200)
@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 2**20), max_size=20), st.data())
def test_whole_frames_end_between_and_a_part_of_one_does_not(
    sent: list[bytes], places: list[int], data: st.DataObject
) -> None:
    tracker, last = FrameTracker(), data.draw(frames)
    for piece in cut(b"".join(sent) + last[: data.draw(st.integers(1, len(last) - 1))], places):
        assert tracker.advance(piece) == len(piece)

    assert not tracker.between


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=300), max_size=20))
def test_bytes_that_are_no_frames_do_no_harm(pieces: list[bytes]) -> None:
    tracker = FrameTracker()

    assert [tracker.advance(piece) for piece in pieces] == [len(piece) for piece in pieces]


def test_a_close_frame_is_seen_as_soon_as_its_head_is_whole() -> None:
    tracker = FrameTracker()
    tracker.advance(frame(0x1, b"\x88\x02") + b"\x88")
    before = tracker.closed
    tracker.advance(b"\x02")

    assert (before, tracker.closed, tracker.between) == (False, True, False)


def test_a_close_frame_of_ours_is_what_another_writes() -> None:
    assert close_frame(1012, b"drain") == frame(CLOSE, (1012).to_bytes(2, "big") + b"drain")
