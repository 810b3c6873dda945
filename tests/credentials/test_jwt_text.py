"""The text of a JWT: one spelling, nothing clever."""

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.credentials.jwt_text import parse_jwt
from gateway.errors import CredentialRejected
from tests.support.clerk_keys import encode, mint_token

HEADER = encode(b'{"alg":"RS256"}')
PAYLOAD = encode(b'{"sub":"user_1"}')


def _token(payload: bytes, header: bytes = b'{"alg":"RS256"}') -> str:
    return f"{encode(header)}.{encode(payload)}.c2ln"


def _reason(token: str) -> str:
    with pytest.raises(CredentialRejected) as refused:
        parse_jwt(token)
    return refused.value.reason


def test_token_is_taken_apart() -> None:
    token = parse_jwt(mint_token(sub="user_1"))

    assert token.header["alg"] == "RS256"
    assert token.payload["sub"] == "user_1"


def test_text_and_claims_are_not_shown() -> None:
    token = parse_jwt(mint_token(sub="user_hidden"))

    assert repr(token.signature) not in repr(token)
    assert repr(token.signed) not in repr(token)
    assert "user_hidden" not in repr(token)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"sub":"a","sub":"b"}',
        b'{"o":{"id":"a","id":"b"}}',
        b'{"sub":"\xff"}',
        b"\xef\xbb\xbf{}",
        '{"sub":"a"}'.encode("utf-16"),
        b'{"sub":"a"} x',
        b"",
    ],
)
def test_j05_payload_that_two_readers_could_read_differently_is_refused(payload: bytes) -> None:
    assert _reason(_token(payload)) == "token-invalid"


@pytest.mark.parametrize("payload", [b"[]", b"null", b'"x"', b"1"])
def test_j05_payload_that_is_no_object_is_refused(payload: bytes) -> None:
    assert _reason(_token(payload)) == "token-verification-failed"


@pytest.mark.parametrize("header", [b"[]", b"null", b'{"alg":"RS256","alg":"none"}', b"\xff"])
def test_j05_header_that_is_no_plain_object_is_refused(header: bytes) -> None:
    assert _reason(_token(b"{}", header)) == "token-invalid"


@pytest.mark.parametrize(
    "token",
    [
        f"{HEADER}=.{PAYLOAD}.c2ln",
        f"{HEADER}. {PAYLOAD}.c2ln",
        f"{HEADER}\n.{PAYLOAD}.c2ln",
        f"{HEADER}.{PAYLOAD}.c2l+",
        f"{HEADER}.{PAYLOAD}.c2ln=",
        f"{HEADER}.{PAYLOAD}.c2lnA",
        f"{HEADER}.{PAYLOAD}.c2lnAB",
        f"{HEADER}.{PAYLOAD}.ａ",
    ],
)
def test_j05_second_spelling_of_base64url_is_refused(token: str) -> None:
    assert _reason(token) == "token-invalid"


@pytest.mark.parametrize("token", ["a.b.c.d.e", "", "..", ".", json.dumps({"payload": PAYLOAD, "signatures": []})])
def test_j06_other_serialisations_are_refused(token: str) -> None:
    assert _reason(token) == "token-invalid"


@pytest.mark.parametrize(
    "payload",
    [b'{"exp":1e999}', b'{"exp":NaN}', b'{"exp":-Infinity}', b"[" * 11_000, b'{"a":' * 2_000, b'{"n":' + b"9" * 9_000],
)
def test_j10_bombs_are_refused(payload: bytes) -> None:
    assert _reason(_token(payload)) == "token-invalid"


@pytest.mark.parametrize("token", ["." * 100_000, "a" * 100_000, "a" * 1_000_000, _token(b"1" * 1_000_000)])
def test_j11_too_long_a_token_is_refused_before_it_is_read(token: str) -> None:
    assert _reason(token) == "token-too-long"


def test_j11_token_just_under_the_limit_is_read() -> None:
    token = mint_token(pad="x" * 11_600)

    assert 15_900 < len(token) <= 16_384
    assert len(str(parse_jwt(token).payload["pad"])) == 11_600


@settings(max_examples=200)
@given(st.text() | st.tuples(st.binary(), st.binary(), st.binary()).map(lambda parts: ".".join(map(encode, parts))))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(CredentialRejected):
        parse_jwt(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=200)
@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_claims_that_were_written_are_read_back(claims: dict[str, object]) -> None:
    assert parse_jwt(_token(json.dumps(claims).encode())).payload == claims
