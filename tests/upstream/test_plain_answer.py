"""Plain answers read the same at first sight, and by the shape that was learnt from those before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.answer import Framing
from gateway.upstream.plain_answer import PlainAnswers

NGINX = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"Connection: keep-alive\r\n\r\n"
)
names = st.sampled_from(
    [
        b"Server", b"Date", b"content-length", b"Content-Length", b"Connection", b"X-Actor-Id", b"x_actor_id",
        b"Set-Cookie",
        b"Access-Control-Allow-Origin", b"Keep-Alive", b"Transfer-Encoding", b"X", b"Trailer", b"traceparent",
    ]
)  # fmt: skip
values = st.sampled_from([b" a", b"a", b" 5", b" 12", b" keep-alive", b" close", b" chunked", b"", b" a: b", b" -1"])
heads = st.tuples(
    st.sampled_from([b"200 OK", b"404 Not Found", b"204 No Content", b"304 Not Modified", b"500 "]),
    st.lists(st.tuples(names, values).map(b":".join), max_size=6),
).map(lambda parts: b"HTTP/1.1 " + b"\r\n".join([parts[0], *parts[1], b"", b""]))


def what_is_read(answers: PlainAnswers, data: bytes, *, is_head: bool) -> tuple[object, ...] | None:
    plain = answers.read(data, is_head=is_head)
    if plain is None:
        return None
    head, start, length = plain
    return head.status, head.reason, head.fields, head.framing, head.has_cors, start, length


def test_an_answer_is_read_with_what_passes_and_its_length() -> None:
    answers = PlainAnswers()
    for length in (0, 5, 12345, 7):
        plain = answers.read(NGINX % length + b"hello", is_head=False)

        assert plain is not None
        head, start, size = plain
        assert (head.status, head.reason, head.framing, size) == (200, b"OK", Framing.LENGTH, length)
        assert head.fields == b"Server: nginx\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % length
        assert start == len(NGINX % length)


@given(heads, heads, st.booleans())
def test_what_was_learnt_changes_no_reading(taught: bytes, data: bytes, is_head: bool) -> None:
    answers = PlainAnswers()
    for _ in range(3):
        answers.read(taught, is_head=False)

    assert what_is_read(answers, data, is_head=is_head) == what_is_read(PlainAnswers(), data, is_head=is_head)


@given(heads)
def test_nothing_of_ours_and_nothing_per_hop_passes(data: bytes) -> None:
    answers = PlainAnswers()
    for _ in range(3):
        plain = answers.read(data, is_head=False)
        if plain is not None:
            passed = {line.partition(b":")[0].lower() for line in plain[0].fields.split(b"\r\n")}
            assert not passed & {b"connection", b"keep-alive", b"transfer-encoding", b"x-actor-id", b"x_actor_id"}


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: Set-Cookie\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 O\x00K\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        b"",
    ],
)
def test_other_answers_are_left_to_the_reader(data: bytes) -> None:
    answers = PlainAnswers()
    for _ in range(3):
        answers.read(NGINX % 5, is_head=False)

    assert answers.read(data, is_head=False) is None


def test_204_to_head_is_left_to_the_reader_who_drops_its_length() -> None:
    assert PlainAnswers().read(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", is_head=True) is None


def test_shapes_are_bounded() -> None:
    answers = PlainAnswers()
    for number in range(1000):
        for _ in range(2):
            answers.read(b"HTTP/1.1 200 OK\r\nX-%d: a\r\nContent-Length: 0\r\n\r\n" % number, is_head=False)

    assert len(answers._shapes) <= 64
