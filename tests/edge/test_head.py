"""The plain head: what is read without a parser reads as llhttp has it, and everything else is left alone."""

import httptools
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gateway.edge.head import (
    END_OF_HEAD,
    find_request_line,
    may_become_plain,
    split_fields,
    take_changing,
)
from gateway.edge.target import parse_target
from gateway.errors import TargetInvalid
from tests.edge.test_target import TARGETS

SECTION = b"Host: app.example.test\r\nAccept: */*\r\n"
PIECES = [
    b"GET", b"POST", b"get", b" ", b"  ", b"\t", b"/", b"/a?b", b"*", b"http://x/", b"HTTP/1.1", b"HTTP/1.0", b"\r\n",
    b"\n", b"\r", b"Host", b"Host:", b"X-A", b":", b" : ", b"v", b"\xff", b"\x00", b"\x7f", b"a b",
    b",", b'"', b"\r\n\r\n",
]  # fmt: skip
noise = st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join)
tokens = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=8).map(str.encode)
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=12).map(
    lambda text: text.encode("latin-1")
)
blanks = st.sampled_from([b"", b" ", b"\t", b"  "])
lines = st.tuples(tokens, blanks, values, blanks).map(lambda p: (p[0], p[2], p[0] + b":" + p[1] + p[2] + p[3]))


class Parsed:
    """What llhttp makes of a request."""

    def __init__(self, data: bytes) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.target = b""
        self.whole = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.whole = True


def head_of(section: bytes) -> bytes:
    return b"GET /x?y HTTP/1.1\r\n" + section + b"\r\n"


@given(st.lists(lines, min_size=1, max_size=8))
def test_plain_fields_read_as_llhttp_reads_them(given_lines: list[tuple[bytes, bytes, bytes]]) -> None:
    section = b"".join(line + b"\r\n" for _, _, line in given_lines)

    fields = split_fields(section)

    assert fields == [(name, value.strip(b" \t")) for name, value, _ in given_lines]
    framing = {b"content-length", b"transfer-encoding", b"connection", b"upgrade"}
    if not framing & {name.lower() for name, _, _ in given_lines}:
        assert Parsed(head_of(section)).fields == fields


@given(noise)
def test_whatever_is_read_here_llhttp_reads_alike(section: bytes) -> None:
    fields = split_fields(section)

    if fields is not None:
        parsed = Parsed(head_of(section))
        assert parsed.whole
        assert parsed.fields == fields
        assert END_OF_HEAD not in section


@given(noise)
def test_whatever_is_read_as_a_request_line_llhttp_reads_alike(data: bytes) -> None:
    line = find_request_line(data)

    if line is not None:
        parsed = Parsed(data[: line.end] + b"Host: a\r\n\r\n")
        read = (parsed.parser.get_method().decode(), parsed.target, parsed.parser.get_http_version())
        assert read == (line.method, line.raw, "1.1")
        assert data[line.end - 2 : line.end] == b"\r\n"


@given(TARGETS)
@example(b"/a/..")
@example(b"/a/. ")
@example(b"/..?x")
@example(b"/a?b")
def test_a_target_judged_with_its_line_is_judged_as_it_is_alone(raw: bytes) -> None:
    assume(b"\n" not in raw)
    line = find_request_line(b"GET " + raw + b" HTTP/1.1\r\n")
    try:
        alone = parse_target(raw)
    except TargetInvalid:
        assert line is None or line.target is None
        return

    assert line is not None
    if line.target is None:
        assert b"%" in alone.path.encode()
    else:
        assert (line.target.raw, line.target.path, line.target.query) == (alone.raw, alone.path, alone.query)


@pytest.mark.parametrize(
    "line",
    [
        b"GET /x HTTP/1.0\r\n",
        b"GET /x HTTP/1.1\n",
        b"GET  /x HTTP/1.1\r\n",
        b"GET x HTTP/1.1\r\n",
        b"GET http://a/ HTTP/1.1\r\n",
        b"GET /x y HTTP/1.1\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\n",
        b"get /x HTTP/1.1\r\n",
        b"TRACE /x HTTP/1.1\r\n",
        b"\r\nGET /x HTTP/1.1\r\n",
        b"GET /x HTTP/1.1 \r\n",
    ],
)
def test_other_request_lines_are_not_read(line: bytes) -> None:
    assert find_request_line(line + SECTION) is None


@pytest.mark.parametrize(
    "section",
    [
        b"",
        b"Host : a\r\n",
        b"Host: a\r\n b\r\n",
        b"Host: a\nB: c\r\n",
        b": a\r\n",
        b"A: \x00\r\n",
        b"A\r\n",
        b"A: b\r\n\r\n",
    ],
)
def test_other_sections_are_not_read(section: bytes) -> None:
    assert split_fields(section) is None


@given(st.lists(lines, min_size=1, max_size=4), st.data())
def test_every_beginning_of_a_plain_head_may_become_one(
    given_lines: list[tuple[bytes, bytes, bytes]], data: st.DataObject
) -> None:
    whole = head_of(b"".join(line + b"\r\n" for _, _, line in given_lines))
    cut = data.draw(st.integers(0, len(whole) - 1))
    beginning = whole[:cut]

    assert may_become_plain(beginning)
    start = beginning.rfind(b"\n") + 1
    if start:
        assert may_become_plain(beginning, start)


@given(noise, noise)
def test_what_cannot_become_plain_never_does(beginning: bytes, rest: bytes) -> None:
    whole = beginning + rest
    end = whole.find(END_OF_HEAD)
    if END_OF_HEAD in beginning or end < 0 or may_become_plain(beginning):
        return
    line = find_request_line(whole)

    assert line is None or split_fields(whole[line.end : end + 2]) is None


TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


TOKEN = b"eyJhbGciOi.J9-_~+/x.="


@pytest.mark.parametrize("name", [b"Content-Length", b"content-length"])
def test_lines_that_change_with_every_request_are_taken_out(name: bytes) -> None:
    section = b"\r\nHost: a\r\ntraceparent: %b\r\nA: b\r\n%b: 12\r\nC: d\r\n" % (TRACE, name)

    assert take_changing(section) == (b"\r\nHost: a\r\nA: b\r\nC: d\r\n", None, TRACE, 12)


@pytest.mark.parametrize("name", [b"Authorization", b"authorization"])
def test_the_token_that_differs_from_user_to_user_is_taken_out(name: bytes) -> None:
    assert take_changing(b"\r\n%b: Bearer %b\r\nHost: a\r\n" % (name, TOKEN)) == (b"\r\nHost: a\r\n", TOKEN, None, None)


@pytest.mark.parametrize(
    "line",
    [
        b"X-Content-Length: 1",
        b"Content-Length : 1",
        b"Content-Length:1",
        b"Content-Length: +1",
        b"Content-Length: 1, 1",
        b"Content-Length: " + b"1" * 19,
        b"CONTENT-LENGTH: 1",
        b"Traceparent: " + TRACE,
        b"traceparent: x",
        b"traceparent: 01" + TRACE[2:],
        b"X: traceparent: " + TRACE,
        b"Authorization: bearer x",
        b"Authorization: Bearer  x",
        b"Authorization: Bearer x y",
        b"Authorization: Bearer x,",
        b"Authorization: Bearer x\0",
        b"Authorization: Bearer ",
        b"AUTHORIZATION: Bearer x",
        b"X-Authorization: Bearer x",
        b"Proxy-authorization: Bearer x",
    ],
)
def test_lines_in_another_spelling_stay(line: bytes) -> None:
    section = b"\r\nHost: a\r\n" + line + b"\r\nA: b\r\n"

    assert take_changing(section) == (section, None, None, None)


CHANGING = [b"Content-Length: 5", b"traceparent: " + TRACE, b"A: b", b"content-length: 6", b"Authorization: Bearer x"]


@given(st.lists(st.sampled_from(CHANGING)))
def test_what_is_taken_out_and_what_is_left_make_the_whole(chosen: list[bytes]) -> None:
    section = b"\r\nHost: a\r\n" + b"".join(line + b"\r\n" for line in chosen)

    left, bearer, trace, length = take_changing(section)

    taken = [b"traceparent: " + trace] if trace else []
    taken += [b"Authorization: Bearer " + bearer] if bearer else []
    taken += [line for line in chosen if line.lower() == b"content-length: %d" % length][:1] if length else []
    assert sorted(left.split(b"\r\n") + taken) == sorted(section.split(b"\r\n"))
