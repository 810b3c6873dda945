from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import grammar, values

_PARSERS: list[Callable[[Any], object]] = [
    values.parse_duration,
    values.parse_tolerance,
    values.parse_life,
    values.parse_size,
    values.parse_address,
    values.parse_network,
]
_TEXT_PARSERS: list[Callable[[str], object]] = [
    grammar.parse_route_path,
    grammar.parse_path_prefix,
    grammar.parse_method,
    grammar.parse_host_name,
    grammar.parse_host_value,
    grammar.parse_origin,
    grammar.parse_public_url,
    grammar.parse_web_url,
    grammar.parse_upstream_url,
    grammar.parse_scope,
    grammar.parse_upstream_name,
]
_PIECES = st.lists(
    st.sampled_from(
        [
            "http",
            "https",
            "://",
            "/",
            "*",
            "**",
            "a",
            "A",
            ".",
            ":",
            "80",
            "[",
            "]",
            "::1",
            "@",
            "?",
            "#",
            "%",
            " ",
            "\t",
            "é",
            "0x",
            "-",
            "_",
            "s",
            "ms",
            "KiB",
            "99999",
        ]
    ),
    max_size=8,
).map("".join)
_ANY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**400),
    st.floats(),
    st.text(max_size=12),
    _PIECES,
    st.lists(st.integers(), max_size=2),
)


@pytest.mark.parametrize("parse", _PARSERS, ids=lambda parse: parse.__name__)
@given(value=_ANY)
def test_a_parser_of_any_value_raises_only_value_errors(parse: Callable[[Any], object], value: object) -> None:
    try:
        parse(value)
    except ValueError as error:
        message = str(error)
    else:
        message = "fine"

    assert message


@pytest.mark.parametrize("parse", _TEXT_PARSERS, ids=lambda parse: parse.__name__)
@given(text=st.one_of(st.text(max_size=12), _PIECES))
def test_what_a_parser_gives_is_its_own_normal_form(parse: Callable[[str], str], text: str) -> None:
    try:
        normal = parse(text)
    except ValueError:
        return

    assert parse(normal) == normal


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("10s", 10), ("5m", 300), ("1h", 3600), ("180d", 15552000), ("2", 2), (3, 3)]
)
def test_durations_are_seconds(text: object, seconds: float) -> None:
    assert values.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["0s", 0, -1, "-1s", "1w", "1 s", "", True, None, float("nan"), float("inf"), 10**400, "٣s"]
)
def test_what_is_no_duration_above_zero_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        values.parse_duration(text)


@given(st.integers(min_value=0, max_value=65535), st.sampled_from(["127.0.0.1", "localhost", "::1", "app.example.com"]))
def test_an_address_reads_back(port: int, host: str) -> None:
    address = values.Address(host, port)

    assert values.parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text", ["", ":80", "a", "a:", "a:65536", "::1:80", "[::1:80", "a b:80", "a:80:90", "http://a:80", 80]
)
def test_what_is_no_address_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="host:port"):
        values.parse_address(text)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("http://App.example.com", "http://app.example.com:80"),
        ("http://127.0.0.1:9000/", "http://127.0.0.1:9000"),
        ("http://[::1]:9000", "http://[::1]:9000"),
        ("https://App.example.com", "https://app.example.com:443"),
        ("HTTPS://[::1]:9443/", "https://[::1]:9443"),
        ("unix:/run/App dir/app.sock", "unix:/run/App dir/app.sock"),
    ],
)
def test_an_upstream_is_host_and_port_or_a_socket(text: str, normal: str) -> None:
    assert grammar.parse_upstream_url(text) == normal


@pytest.mark.parametrize(
    ("text", "compared"),
    [
        ("app.example.com", "app.example.com"),
        ("App.Example.com.", "app.example.com"),
        ("app.example.com:8080", "app.example.com"),
        ("APP.example.com.:443", "app.example.com"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]", "[::1]"),
        ("[::1]:8080", "[::1]"),
    ],
)
def test_a_host_value_is_compared_without_case_port_and_last_dot(text: str, compared: str) -> None:
    assert grammar.parse_host_value(text) == compared


@pytest.mark.parametrize("text", ["", ":80", "*.example.com", "a:b", "a:80:90", "::1", "a/b", "https://a", "a:"])
def test_what_is_no_host_value_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="host name alone"):
        grammar.parse_host_value(text)


@pytest.mark.parametrize(
    "text", ["http://a:9000//", "http://a:0", "http://a\t:1", "http://a:9000?x", "http://", "a:9000", "http://a:1#f"]
)
def test_what_is_no_upstream_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="http://host:port"):
        grammar.parse_upstream_url(text)


@pytest.mark.parametrize(
    "text",
    [
        *("unix:", "unix:app.sock", "unix://run/app.sock", "unix:///run/app.sock", "unix:/run/", "unix:/a\0b"),
        *(f"unix:/{'a' * 107}", f"unix:/{'ä' * 54}"),
    ],
)
def test_what_is_no_path_of_a_socket_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write .* path"):
        grammar.parse_upstream_url(text)


@pytest.mark.parametrize("text", ["/", "/**", "/a", "/a/", "/a/*/b/**", "/a.b/~c/(d)/e=f&g,h!$'+:@"])
def test_a_route_path_stays_as_it_is(text: str) -> None:
    assert grammar.parse_route_path(text) == text
