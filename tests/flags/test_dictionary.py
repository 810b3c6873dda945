"""The dictionary in `X-Feature-Flags`, read by a parser that is not ours."""

import math
from decimal import Decimal
from typing import Any, cast

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.flags.dictionary import CAP, write
from gateway.flags.provider import Json

_VALUES = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=40),
    st.lists(st.text(max_size=5), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)


def parsed(written: bytes) -> dict[str, Any]:
    return cast(dict[str, Any], http_sf.parse(written, tltype="dictionary"))


@given(st.dictionaries(st.one_of(st.from_regex(r"[a-z*][a-z0-9_.*-]{0,8}", fullmatch=True), st.text()), _VALUES))
def test_whatever_is_written_is_read_back_and_nothing_else(flags: dict[str, Json]) -> None:
    written, left_out = write(flags)

    read = parsed(written)
    assert len(written) <= CAP
    assert set(read) | set(left_out) == set(flags)
    assert not set(read) & set(left_out)
    for name, (value, parameters) in read.items():
        assert not parameters
        told = flags[name]
        if isinstance(told, bool | str):
            assert str(value) == str(told)
        elif isinstance(told, int):
            assert value == told
        elif isinstance(told, float):
            assert isinstance(value, Decimal | float)
            assert math.isclose(float(value), told, abs_tol=0.0005)


@pytest.mark.parametrize(
    ("flags", "written"),
    [
        ({"new-editor": True, "theme": "dark", "limit": 10}, b'new-editor, theme="dark", limit=10'),
        ({"off": False}, b"off=?0"),
        ({"q": 'a"b\\c'}, rb'q="a\"b\\c"'),
        ({"name": "Zoë 50%"}, b'name=%"Zo%c3%ab 50%25"'),
        ({"line": "a\r\nX-Actor-Role: ADMIN"}, b'line=%"a%0d%0aX-Actor-Role: ADMIN"'),
        ({"share": 0.25, "whole": 2.0}, b"share=0.25, whole=2.0"),
        ({"options": {"a": [1, None]}}, rb'options="{\"a\":[1,null]}"'),
    ],
)
def test_values_have_the_forms_of_the_rfc(flags: dict[str, Json], written: bytes) -> None:
    assert write(flags) == (written, ())


@pytest.mark.parametrize(
    "flags",
    [{"Upper": 1}, {"a b": 1}, {"": 1}, {"a": 10**15}, {"a": math.inf}, {"a": 1e12}, {"a": "\ud800"}, {"ä": True}],
)
def test_what_has_no_form_is_left_out_whole(flags: dict[str, Json]) -> None:
    assert write(flags) == (b"", tuple(flags))


def test_what_finds_no_room_is_left_out_and_smaller_ones_still_fit() -> None:
    written, left_out = write({"first": "x" * 2000, "second": "y" * 2100, "third": 3})

    assert left_out == ("second",)
    assert set(parsed(written)) == {"first", "third"}


@given(st.lists(st.tuples(st.sampled_from(["x", "é", '"', "\\", "%", "\x00"]), st.integers(0, 5000)), max_size=30))
def test_no_flags_make_the_field_longer_than_servers_take(sizes: list[tuple[str, int]]) -> None:
    flags: dict[str, Json] = {f"flag-{number}": letter * size for number, (letter, size) in enumerate(sizes)}

    written, left_out = write(flags)

    assert len(written) <= CAP
    assert list(parsed(written)) == [name for name in flags if name not in left_out]
    for name in left_out:  # each of them alone would have made it too long
        assert len(written) + len(write({name: flags[name]})[0] or b"x" * CAP) + 2 > CAP


@given(st.dictionaries(st.text(max_size=8), _VALUES))
def test_what_is_written_is_the_one_form_the_rfc_gives_it_and_breaks_no_line(flags: dict[str, Json]) -> None:
    written, _ = write(flags)

    assert all(0x20 <= byte < 0x7F for byte in written)
    assert (http_sf.ser(parsed(written)).encode() if written else b"") == written
