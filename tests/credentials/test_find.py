"""What counts as a credential of ours, and in which order."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.credentials.find import api_key_is_ours, authorization_is_ours, find_credentials
from gateway.credentials.kinds import Carrier, Credential, CredentialKind
from gateway.credentials.session_cookie import CookieRules
from gateway.errors import CredentialMalformed
from tests.support.clerk_keys import mint_token

NOW = 1_700_000_000
RULES = CookieRules()
TOKEN = mint_token(now=NOW)
COOKIES = [f"__session={TOKEN}; __client_uat={NOW}".encode()]


def _found(authorization: bytes | None = None, api_key: bytes | None = None) -> tuple[Credential, ...]:
    return find_credentials(authorization, api_key, [], RULES, NOW)


@pytest.mark.parametrize("value", [b"Bearer ", b"bearer ", b"BEARER ", b"", b"\t Bearer "])
def test_j19_bearer_in_any_spelling_and_a_word_alone_are_tokens(value: bytes) -> None:
    found = _found(value + TOKEN.encode() + b" ")

    assert found == (Credential(CredentialKind.SESSION, Carrier.HEADER, TOKEN),)


@pytest.mark.parametrize(
    "value",
    b"Bearer|bearer|Bearer  x|Bearer x y|Bearer\tx|bearer:x y|Bearer x,y|Bearer \xff|bearer=x|\xffx|Bearer \x00".split(
        b"|"
    ),
)
def test_j19_broken_bearer_is_malformed_and_ours(value: bytes) -> None:
    assert authorization_is_ours(value)
    with pytest.raises(CredentialMalformed):
        _found(value)


@pytest.mark.parametrize("value", [b"", b"  ", b"Basic dXNlcjpw", b"Bearerx y", b"Digest a=b, c=d", b"Negotiate abc"])
def test_j19_other_schemes_are_not_ours(value: bytes) -> None:
    assert not authorization_is_ours(value)
    assert _found(value) == ()


@pytest.mark.parametrize(
    "token, kind",
    [
        (b"agt_abc_def", CredentialKind.API_TOKEN),
        (b"ags_abc", CredentialKind.SYSTEM_TOKEN),
        (b"AGT_abc", CredentialKind.SESSION),
        (b"garbage", CredentialKind.SESSION),
    ],
)
def test_token_is_classified_by_its_shape(token: bytes, kind: CredentialKind) -> None:
    assert _found(b"Bearer " + token)[0].kind is kind


def test_api_key_is_ours_only_when_it_looks_like_one() -> None:
    assert _found(api_key=b"agt_abc")[0].kind is CredentialKind.API_TOKEN
    assert _found(api_key=b"sk_live_other") == ()
    assert _found(api_key=b"ags_abc") == ()
    assert not api_key_is_ours(b"ags_abc")


def test_j18_bearer_comes_before_api_key_before_cookie() -> None:
    found = find_credentials(b"Bearer ags_x", b"agt_x", COOKIES, RULES, NOW)

    assert [credential.token for credential in found] == ["ags_x", "agt_x", TOKEN]
    assert [credential.carrier for credential in found] == [Carrier.HEADER, Carrier.HEADER, Carrier.COOKIE]


@pytest.mark.parametrize("value", [b"Bearer " + b"a" * 16_385, b"Bearer " + b"." * 100_000, b"\xff" * 1_000_000])
def test_j11_long_token_is_refused_unread(value: bytes) -> None:
    found = _found(value)

    assert [(credential.token, credential.refusal) for credential in found] == [("", "token-too-long")]


def test_j11_token_of_the_longest_length_is_read() -> None:
    assert _found(b"Bearer " + b"a" * 16_384)[0].refusal is None


@settings(max_examples=200)
@given(st.none() | st.binary(max_size=60) | st.binary(max_size=40).map(lambda raw: b"BeArer" + raw), st.binary())
def test_any_bytes_are_found_refused_or_not_ours(authorization: bytes | None, api_key: bytes) -> None:
    try:
        found = find_credentials(authorization, api_key, [api_key], RULES, NOW)
    except CredentialMalformed:
        return
    ours = (authorization is not None and authorization_is_ours(authorization)) + api_key_is_ours(api_key)

    assert len([credential for credential in found if credential.carrier is Carrier.HEADER]) == ours


@settings(max_examples=200)
@given(st.sampled_from([b"bearer", b"Bearer", b"bEARER"]), st.sampled_from(b' \t:,;="\x0b\xa0'), st.binary())
def test_no_spelling_of_bearer_is_somebody_elses_scheme(scheme: bytes, separator: int, rest: bytes) -> None:
    assert authorization_is_ours(scheme + bytes([separator]) + rest)
