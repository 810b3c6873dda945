"""Cross-origin answers name one allowed origin, or none."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.cors import AnswerFields, Cors

APP = b"https://app.example.com"
CORS = Cors(["https://app.example.com", "https://*.example.com", "*"])


def value_of(fields: AnswerFields | None, name: bytes) -> bytes | None:
    assert fields is not None
    return dict(fields).get(name)


def preflight(
    *requested_headers: bytes, method: bytes | None = b"PUT", origin: bytes | None = APP
) -> AnswerFields | None:
    return CORS.preflight(origin, method, requested_headers)


@pytest.mark.parametrize("origin", [None, b"null", b"*", b"https://evil.com", b"https://app.example.com.evil.com", b""])
def test_l06_other_origin_gets_no_fields(origin: bytes | None) -> None:
    assert CORS.fields(origin) is None
    assert preflight(origin=origin) is None


def test_l06_own_answer_names_the_origin_and_lets_it_read_why() -> None:
    fields = CORS.fields(APP)

    assert value_of(fields, b"Access-Control-Allow-Origin") == APP
    assert value_of(fields, b"Access-Control-Allow-Credentials") == b"true"
    assert (
        value_of(fields, b"Access-Control-Expose-Headers")
        == b"X-Request-Id, Retry-After, RateLimit, RateLimit-Policy, WWW-Authenticate"
    )
    assert value_of(fields, b"Vary") == b"Origin"


def test_preflight_is_answered_for_an_allowed_origin() -> None:
    fields = preflight(b"authorization,x-api-key", b" content-type ")

    assert value_of(fields, b"Access-Control-Allow-Origin") == APP
    assert value_of(fields, b"Access-Control-Allow-Credentials") == b"true"
    assert value_of(fields, b"Access-Control-Allow-Headers") == b"authorization, x-api-key, content-type"
    assert b"PUT" in (value_of(fields, b"Access-Control-Allow-Methods") or b"").split(b", ")
    assert value_of(fields, b"Vary") == b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


def test_preflight_for_a_method_of_the_application_names_it() -> None:
    methods = value_of(preflight(method=b"PURGE"), b"Access-Control-Allow-Methods")

    assert methods == b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, PURGE"


@pytest.mark.parametrize("method", [None, b"", b"*", b"PUT, *", b"P UT", b"PUT\r\nX: y"])
def test_preflight_without_a_method_is_none(method: bytes | None) -> None:
    assert preflight(method=method) is None


def test_preflight_echoes_only_names_that_are_tokens() -> None:
    fields = preflight(b"x-a, b c, *, x\r\nSet-Cookie: a, \xff, , x-d")

    assert value_of(fields, b"Access-Control-Allow-Headers") == b"x-a, x-d"


def test_preflight_that_asks_for_no_field_is_told_of_none() -> None:
    assert value_of(preflight(b" , *"), b"Access-Control-Allow-Headers") is None


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.just(APP), st.binary(max_size=30)), st.binary(max_size=10), st.lists(st.binary(max_size=20)))
def test_l06_no_octets_break_a_line_or_open_everything(origin: bytes, method: bytes, names: list[bytes]) -> None:
    for name, value in preflight(*names, method=method, origin=origin) or ():
        assert re.fullmatch(rb"[\x21-\x7e]+(?: [\x21-\x7e]+)*", value), name
        assert b"*" not in value.split(b", ")
