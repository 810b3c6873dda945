"""Where browsers carry websocket tokens: what is found there, and that taking it out changes nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.credentials.kinds import Carrier, Credential, CredentialKind
from gateway.credentials.websocket import (
    find_websocket_tokens,
    offers_mark_alone,
    without_pair,
    without_token,
    without_token_in_url,
    without_tokens,
)
from gateway.errors import CredentialMalformed

TOKEN = "eyJh.eyJi.c2ln"
WORD = st.text("abcT0-_.~%=+/", max_size=8)
NAMES = st.sampled_from([*"abz", "tok", "tokens", "token_", "Token", "TOKEN", "%54oken"]) | WORD.filter(
    lambda text: "=" not in text and "%" not in text and text != "token"
)
PARTS = st.lists(st.one_of(NAMES, st.tuples(NAMES, WORD).map("=".join)), max_size=6)
SPELLINGS = st.sampled_from(["token", "%74oken", "t%6Fken", "%74%6f%6B%65%6e"])
PROTOCOLS = st.sampled_from(["graphql-transport-ws", "v1.chat", "bearers", "a"])
BLANK = st.sampled_from(["", " ", "\t", "  "])


def in_query(token: str) -> Credential:
    return Credential(CredentialKind.WEBSOCKET_TOKEN, Carrier.QUERY, token)


def in_pair(token: str) -> Credential:
    return Credential(CredentialKind.WEBSOCKET_TOKEN, Carrier.SUBPROTOCOL, token)


def offering(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"Sec-WebSocket-Protocol", value.encode()) for value in values]


@given(PARTS, PARTS, SPELLINGS)
def test_w05_token_is_found_and_taken_out_of_a_query_and_every_other_byte_stays(
    before: list[str], after: list[str], spelling: str
) -> None:
    query = "?" + "&".join([*before, f"{spelling}={TOKEN}", *after])
    rest = "&".join([*before, *after])

    assert find_websocket_tokens(query.encode(), []) == (in_query(TOKEN),)
    assert without_token(query.encode()) == (f"?{rest}".encode() if before or after else b"")


@given(PARTS)
def test_w05_query_without_a_token_stays_as_it_is(parts: list[str]) -> None:
    query = ("?" + "&".join(parts)).encode()

    assert find_websocket_tokens(query, []) == ()
    assert without_token(query) == query


@given(PARTS, WORD)
def test_w05_referer_loses_its_token_and_nothing_else(parts: list[str], fragment: str) -> None:
    rest = "&".join(parts)
    start, end = "https://app.example.test/ws", f"#token={fragment}"

    assert without_token_in_url(f"{start}?{'&'.join([*parts, 'token=x'])}{end}".encode()) == (
        f"{start}{'?' + rest if parts else ''}{end}".encode()
    )


@given(st.lists(PROTOCOLS, max_size=3), st.lists(PROTOCOLS, max_size=3), BLANK, st.booleans())
def test_w05_pair_is_found_and_taken_out_of_an_offer_and_the_rest_stays(
    before: list[str], after: list[str], blank: str, apart: bool
) -> None:
    glue = f"{blank},{blank}"
    lists = [[*before, "bearer"], [TOKEN, *after]] if apart else [[*before, "bearer", TOKEN, *after]]
    fields = offering(*(glue.join(items) for items in lists))
    left = [glue.join(items) for items in ([before, after] if apart else [[*before, *after]]) if items]

    assert find_websocket_tokens(b"", fields) == (in_pair(TOKEN),)
    assert [value for _, value in without_tokens(fields)] == [value.encode() for value in left]


@given(st.lists(PROTOCOLS, max_size=4), BLANK)
def test_w05_offer_without_a_pair_stays_as_it_is(offered: list[str], blank: str) -> None:
    fields = [(b"Accept", b"*/*"), *offering(f"{blank},".join(offered)), (b"Sec-Websocket-Protocol", b"z ,y")]

    assert find_websocket_tokens(b"", fields) == ()
    assert without_tokens(fields) == fields


@settings(max_examples=300)
@given(st.binary(max_size=60), st.lists(st.binary(max_size=40), max_size=3))
def test_nothing_raises_anything_undeclared(query: bytes, offers: list[bytes]) -> None:
    fields = [(b"sec-websocket-protocol", offer) for offer in offers]
    try:
        found = find_websocket_tokens(b"?" + query, fields)
    except CredentialMalformed:
        found = ()

    left = without_token(b"?" + query)
    assert len(found) <= 2
    assert len(without_pair(offers)) == len(offers)
    assert find_websocket_tokens(left, []) == ()
    assert without_token(left) == left


@pytest.mark.parametrize(
    "offers", [["bearer"], ["bearer,"], ["v1, bearer"], [f"bearer, {TOKEN}, bearer, {TOKEN}"], ["bearer, a@b"]]
)
def test_pair_that_is_none_is_malformed(offers: list[str]) -> None:
    with pytest.raises(CredentialMalformed):
        find_websocket_tokens(b"", offering(*offers))


@pytest.mark.parametrize("query", [f"?token={TOKEN}&token={TOKEN}", "?token=a&%74oken=b", "?token=a%20b", "?token=%ff"])
def test_token_that_can_be_read_in_two_ways_is_malformed(query: str) -> None:
    with pytest.raises(CredentialMalformed):
        find_websocket_tokens(query.encode(), [])


@pytest.mark.parametrize("query", ["", "?", "?token", "?token=", "?a=token", "?token=&token="])
def test_token_without_a_value_is_none(query: str) -> None:
    assert find_websocket_tokens(query.encode(), []) == ()


def test_subprotocol_comes_before_the_query() -> None:
    assert find_websocket_tokens(b"?token=q", offering("Bearer, p")) == (in_pair("p"), in_query("q"))


def test_token_too_long_to_read_is_refused_unread() -> None:
    (found,) = find_websocket_tokens(b"?token=" + b"a" * 20_000, [])

    assert (found.token, found.refusal) == ("", "token-too-long")


@pytest.mark.parametrize(
    ("offers", "mark"),
    [([f"bearer, {TOKEN}"], b"bearer"), (["Bearer", TOKEN], b"Bearer"), ([f"bearer, {TOKEN}, v1"], None), ([], None)],
)
def test_mark_is_agreed_on_only_where_nothing_else_was_offered(offers: list[str], mark: bytes | None) -> None:
    assert offers_mark_alone(offering(*offers)) == mark
