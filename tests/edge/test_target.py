"""The request target: what passes goes up byte for byte, and what two programs could read differently is refused."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.edge.target import decode_except_slash, parse_target
from gateway.errors import TargetInvalid

ORDINARY = [
    b"/",
    b"/a",
    b"/a/",
    b"/a/b.c/d",
    b"/users/current?x=1&y=%zz%2e%2e",
    b"/a:b@c!$&'()*+,=-._~[]",
    b"/.well-known/x",
    b"/a..b/...",
    b"/a?",
]


def refusal_of(raw: bytes) -> str:
    with pytest.raises(TargetInvalid) as refused:
        parse_target(raw)
    return refused.value.reason


@pytest.mark.parametrize("raw", [*ORDINARY, b"/caf%C3%A9/a%20b", b"/a%3fb", b"/a%3Db?%23"])
def test_ordinary_target_passes_as_it_came(raw: bytes) -> None:
    target = parse_target(raw)

    assert target.raw == raw
    assert target.path.encode() + target.query == raw
    assert not target.has_encoded_slash
    assert not target.has_encoded_percent


@pytest.mark.parametrize("raw", [b"/public/../admin", b"/public/./x", b"/public/..", b"/..", b"/.", b"/./", b"/a/.?x"])
def test_p01_dot_segment_is_refused(raw: bytes) -> None:
    assert refusal_of(raw) == "path_segment_dots"


@pytest.mark.parametrize("raw", [b"/public/%2e%2e/admin", b"/public/.%2e/admin", b"/%2E.", b"/a%2eb"])
def test_p02_encoded_dot_is_refused(raw: bytes) -> None:
    assert refusal_of(raw) == "path_escape_refused"


@pytest.mark.parametrize("raw", [b"/a%2fb", b"/a%2Fb"])
def test_p03_encoded_slash_is_flagged_for_the_route_to_judge(raw: bytes) -> None:
    target = parse_target(raw)

    assert target.has_encoded_slash
    assert target.raw == raw


@pytest.mark.parametrize("raw", [b"/a%5cb", b"/a%5Cb"])
def test_p03_encoded_backslash_is_refused(raw: bytes) -> None:
    assert refusal_of(raw) == "path_escape_refused"


@pytest.mark.parametrize(
    "raw", [b"/a%2f..%2fb", b"/a/..%2Fb", b"/a%2f.", b"/%2fadmin", b"/a%2f%2Fb", b"/a/%2fb", b"/a%2f/b"]
)
def test_p03_encoded_slash_hides_neither_dot_nor_empty_segment(raw: bytes) -> None:
    assert refusal_of(raw) in {"path_segment_dots", "path_segment_empty"}


@pytest.mark.parametrize("raw", [b"//admin/x", b"/a//b", b"///", b"//", b"/a//"])
def test_p04_empty_segment_is_refused_and_never_read_as_authority(raw: bytes) -> None:
    assert refusal_of(raw) == "path_segment_empty"


@pytest.mark.parametrize("raw", [b"/admin;x=1", b"/public/..;/admin", b"/admin%3b", b"/admin%3B"])
def test_p05_path_parameter_is_refused(raw: bytes) -> None:
    assert refusal_of(raw) in {"path_octet_refused", "path_escape_refused"}


@pytest.mark.parametrize(
    "raw",
    [rb"/public\..\admin", b"/a%00", b"/a%0d%0aX:%20y", b"/a%7f", b"/a%1F", b"/a%zz", b"/a%", b"/a%4", b"/%%20"],
)
def test_p06_backslash_control_and_broken_escape_are_refused(raw: bytes) -> None:
    assert refusal_of(raw) in {"path_octet_refused", "path_escape_refused", "path_escape_broken"}


@pytest.mark.parametrize("raw", [b"/foo/secret#/bar", b"/foo/secret%23/bar", b"/foo?x#y"])
def test_p07_fragment_is_refused(raw: bytes) -> None:
    assert refusal_of(raw) in {"path_octet_refused", "path_escape_refused", "query_octet_refused"}


@pytest.mark.parametrize("raw", [b"/admin?x=/public/", b"/admin?/../public", b'/admin?a=%2e&b=//&&;|\\"<>'])
def test_p08_query_is_kept_byte_for_byte_and_is_no_part_of_the_path(raw: bytes) -> None:
    target = parse_target(raw)

    assert target.path == "/admin"
    assert target.query == raw.removeprefix(b"/admin")


@pytest.mark.parametrize("raw", [b"/a?b c", b"/a?\x00", b"/a?\x7f", b"/a?\xc3\xa9", b"/a?b\r\n"])
def test_p08_query_with_space_control_or_high_octet_is_refused(raw: bytes) -> None:
    assert refusal_of(raw) == "query_octet_refused"


@pytest.mark.parametrize("raw", [b"/%252e%252e", b"/a%252fb"])
def test_p09_encoded_percent_is_flagged_and_never_decoded_twice(raw: bytes) -> None:
    target = parse_target(raw)

    assert target.has_encoded_percent
    assert target.decoded_path.encode() == raw.replace(b"%25", b"%")


@pytest.mark.parametrize(
    "raw", [b"http://evil/admin", b"http://u:p@good/x", b"https:/x", b"*", b"h:443", b"", b"?x", b" /", b"admin"]
)
def test_p10_target_that_is_not_origin_form_is_refused(raw: bytes) -> None:
    assert refusal_of(raw) == "target_not_origin_form"


@pytest.mark.parametrize("raw", [b"/caf\xc3\xa9", b"/\xff", b"/\xef\xbc\x8e\xef\xbc\x8e/x"])
def test_p11_raw_high_octet_is_refused(raw: bytes) -> None:
    assert refusal_of(raw) == "path_octet_refused"


@pytest.mark.parametrize("raw", [b"/%c0%ae%c0%ae/admin", b"/%ef%bc%8e%ef%bc%8e/admin"])
def test_p11_overlong_and_fullwidth_dots_stay_opaque(raw: bytes) -> None:
    target = parse_target(raw)

    assert target.raw == raw
    assert "." not in target.decoded_path


@pytest.mark.parametrize("octet", [bytes([c]) for c in range(256) if chr(c) in ' \\#"<>^{|};`' or not 0x20 < c < 0x7F])
def test_every_refused_octet_is_refused_in_a_path(octet: bytes) -> None:
    assert refusal_of(b"/a" + octet + b"b") == "path_octet_refused"


def test_escapes_decode_but_an_encoded_slash_where_asked() -> None:
    assert decode_except_slash("/%61%2Fb%2fc%2525") == "/a%2Fb%2Fc%25"


# Mostly what paths are made of, so that many examples pass.
PIECES = st.sampled_from(
    [
        b"/",
        b"/",
        b"a",
        b"B9",
        b".",
        b"..",
        b"%2e",
        b"%2F",
        b"%25",
        b"%41",
        b"%",
        b"?",
        b";",
        b"//",
        b"*",
        b"\\",
        b"#",
        b" ",
    ]
)
TARGETS = st.one_of(st.binary(max_size=40), st.lists(PIECES, max_size=12).map(lambda pieces: b"/" + b"".join(pieces)))


def naive_verdict(raw: bytes) -> bool:
    """The contract's list, written as plainly as can be."""
    path, _, query = raw.partition(b"?")
    if not path.startswith(b"/") or any(not 0x21 <= c <= 0x7E or c == 0x23 for c in query):
        return False
    if any(not 0x21 <= c <= 0x7E or chr(c) in '\\#"<>^{|};`' for c in path):
        return False
    if path.count(b"%") != len(re.findall(rb"%[0-9A-Fa-f]{2}", path)):
        return False
    escapes = {int(digits, 16) for digits in re.findall(rb"%(..)", path)}
    if escapes & {*range(0x20), 0x7F, 0x2E, 0x5C, 0x23, 0x3B}:
        return False
    segments = path.lower().replace(b"%2f", b"/").split(b"/")
    return b"" not in segments[1:-1] and not {b".", b".."} & set(segments)


@settings(max_examples=500, deadline=None)
@given(TARGETS)
@example(b"/\n")
@example(b"/a\n")
@example(b"/a?\n")
def test_p13_what_is_matched_is_what_is_forwarded(raw: bytes) -> None:
    try:
        target = parse_target(raw)
    except TargetInvalid:
        assert not naive_verdict(raw)
        return

    assert naive_verdict(raw)
    assert target.path.encode("ascii") + target.query == target.raw == raw


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("abcXYZ09.-_~!$&'()*+,=:@[]", min_size=1, max_size=6), max_size=6), st.booleans())
def test_p13_fast_and_careful_reading_agree(segments: list[str], slash_at_end: bool) -> None:
    path = "/" + "/".join(segments) + ("/" if slash_at_end and segments else "")
    if {".", ".."} & set(segments):
        assert refusal_of(path.encode()) == "path_segment_dots"
        return

    target = parse_target(path.encode())
    assert (target.raw, target.path, target.query) == (path.encode(), path, b"")
