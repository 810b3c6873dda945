"""Field sections are judged once, shared, and forgotten."""

import gc

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.edge.head import END_OF_HEAD
from gateway.edge.recent_heads import HEADS, LONGEST, SECTIONS, RecentHeads, Seen
from gateway.errors import CredentialMalformed, GatewayError, HostInvalid

LINE = b"GET /x HTTP/1.1\r\n"
TRACE = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-%016x-01"


def judged(heads: RecentHeads, *lines: bytes, rest: bytes = b"") -> tuple[Seen, bytes | None, int] | None:
    data = LINE + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + rest
    end = len(data) - 4 if data.endswith(END_OF_HEAD) else data.find(END_OF_HEAD)
    known = heads.judged(data, len(LINE), end)
    if known is None:
        return None
    seen, section, trace, first_end = known
    assert section == data[len(LINE) - 2 : first_end + 2]
    return seen, trace, first_end


def test_a_section_that_comes_again_is_not_judged_again() -> None:
    heads = RecentHeads()

    known = [judged(heads, b"Host: a", b"Accept: */*") for _ in range(4)]
    seen = [one[0] for one in known if one is not None]

    assert seen[1].head is seen[2].head
    assert seen[2] is seen[3]
    assert seen[3].head.passing == b"Host: a\r\nAccept: */*\r\n"


def test_users_of_one_application_share_a_judgement() -> None:
    heads = RecentHeads()
    known = [judged(heads, b"Host: a", b"Authorization: Bearer %d" % number) for number in range(10)]
    seen = [one[0] for one in known if one is not None]

    assert len({one.bearer for one in seen}) == 10
    assert len({id(one.head) for one in seen[1:]}) == 1


def test_a_new_trace_and_a_new_length_are_told_each_time() -> None:
    heads = RecentHeads()
    for number in range(1, 5):
        known = judged(heads, b"Host: a", TRACE % number, b"Content-Length: %d" % number, rest=b"abc")

        assert known is not None
        seen, trace, end = known
        assert (trace, seen.content_length, seen.head.content_length) == ((TRACE % number)[13:], number, None)
        assert end == len(LINE) + len(b"Host: a\r\n" + TRACE % number + b"\r\nContent-Length: 1")


@pytest.mark.parametrize(
    "lines",
    [
        (b"Authorization: Bearer x", b"authorization: Bearer y"),
        (b"Authorization: Bearer x", b"AUTHORIZATION: Basic y"),
        (b"Content-Length: 1", b"Content-Length: 1"),
        (b"Content-Length: 1", b"content-length: 2"),
        (b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        (TRACE % 1, b"TraceParent: 00"),
    ],
)
def test_what_must_be_there_once_is_not_taken_from_among_two(lines: tuple[bytes, ...]) -> None:
    heads = RecentHeads()
    for _ in range(3):
        assert judged(heads, b"Host: a", *lines) is None


def test_what_is_refused_is_refused_every_time() -> None:
    heads = RecentHeads()
    for _ in range(3):
        with pytest.raises(HostInvalid):
            judged(heads, b"Accept: */*")
        with pytest.raises(CredentialMalformed):
            judged(heads, b"Host: a", b"AUTHORIZATION: x", b"AUTHORIZATION: y")
    assert len(heads) == 0


PIPELINED = b"C: d\r\n\r\nGET /y HTTP/1.1"


@given(st.lists(st.sampled_from([b"A: b", b"", b"Authorization: Bearer x", PIPELINED]), max_size=4))
def test_a_head_ends_where_it_first_ends_however_often_it_was_seen(lines: list[bytes]) -> None:
    heads = RecentHeads()
    data = LINE + b"Host: a\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    first = data.find(END_OF_HEAD)
    own_lines = data[len(LINE) : first].split(b"\r\n")
    assume(own_lines.count(b"Authorization: Bearer x") < 2)
    for _ in range(3):
        judged(heads, b"Host: a")
        judged(heads, *own_lines)

        known = heads.judged(data, len(LINE), len(data) - 4)

        assert known is not None
        assert known[3] == first


def test_nothing_of_a_token_stays() -> None:
    heads = RecentHeads()
    secret = b"tok-%d" % id(heads)
    for _ in range(3):
        judged(heads, b"Host: a", b"Authorization: Bearer " + secret)

    held = [heads]
    found: list[object] = []
    while held:
        thing = held.pop()
        found.append(thing)
        if type(thing).__module__.startswith("gateway.") or isinstance(thing, dict | list | tuple):
            held += [one for one in gc.get_referents(thing) if not isinstance(one, type) and one not in found]
    assert not [thing for thing in found if isinstance(thing, bytes) and secret in thing]


def test_what_nobody_sends_any_more_is_forgotten() -> None:
    heads = RecentHeads()
    for _ in range(3):
        judged(heads, b"Host: a")
    heads.grow_old()
    for _ in range(2):
        judged(heads, b"Host: a", b"Authorization: Bearer x")
    assert len(heads) > 0

    heads.grow_old()
    heads.grow_old()

    assert len(heads) == 0


def test_memory_is_bounded() -> None:
    heads = RecentHeads(sections=10, heads=5)
    for number in range(1000):
        for _ in range(3):
            try:
                judged(heads, b"Host: a", b"X: %d" % number, b"Authorization: Bearer %d" % number)
            except GatewayError:
                raise AssertionError from None
    assert len(heads) <= 2 * (10 + 5)
    assert 2 * (SECTIONS * 300 + HEADS * 2 * LONGEST) < 64 * 2**20


def test_long_sections_are_not_remembered() -> None:
    heads = RecentHeads()
    for _ in range(3):
        judged(heads, b"Host: a", b"X: " + b"x" * LONGEST)

    assert len(heads) == 0


@pytest.mark.parametrize(
    "line", [b"X-API-Key: agt_secret", b"Authorization: Basic c2VjcmV0", b"AUTHORIZATION: Bearer x"]
)
def test_a_section_with_another_credential_is_judged_each_time(line: bytes) -> None:
    heads = RecentHeads()
    for _ in range(4):
        judged(heads, b"Host: a", line)

    assert len(heads) == 0
