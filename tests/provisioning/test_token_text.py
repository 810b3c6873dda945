import hashlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning.ids import ALPHABET
from provisioning.token_text import (
    API_TOKEN_LENGTH,
    SCANNER_PATTERN,
    SYSTEM_TOKEN_LENGTH,
    new_system_token,
    new_token,
    parse_system_token,
    parse_token,
)

api_tokens = st.builds(lambda: new_token().text)
system_tokens = st.builds(lambda: new_system_token().text)


@settings(max_examples=100, deadline=None)
@given(api_tokens)
def test_every_new_token_is_read_back(text: str) -> None:
    parsed = parse_token(text)

    assert parsed is not None
    assert (parsed.text, parsed.public_id) == (text, text[4:16])
    assert len(text) == API_TOKEN_LENGTH == 65


@settings(max_examples=100, deadline=None)
@given(system_tokens)
def test_every_new_system_token_is_read_back(text: str) -> None:
    parsed = parse_system_token(text)

    assert parsed is not None
    assert parsed.text == text
    assert len(text) == SYSTEM_TOKEN_LENGTH == 53


def test_the_form_is_the_documented_one() -> None:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    body, remainder = "agt_0123456789AB" + "x" * 43, 0xFFFFFFFF
    for byte in body.encode():  # CRC-32 of IEEE 802.3, bit by bit
        remainder ^= byte
        for _ in range(8):
            remainder = (remainder >> 1) ^ (0xEDB88320 if remainder & 1 else 0)
    number, checksum = remainder ^ 0xFFFFFFFF, ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        checksum = digits[digit] + checksum

    assert digits == ALPHABET
    assert parse_token(body + checksum) is not None


@settings(max_examples=500, deadline=None)
@given(api_tokens | system_tokens, st.data())
def test_any_single_changed_character_is_refused(text: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw((st.sampled_from(ALPHABET) | st.characters()).filter(lambda other: other != text[place]))
    changed = text[:place] + letter + text[place + 1 :]

    assert parse_token(changed) is None
    assert parse_system_token(changed) is None


@settings(max_examples=200, deadline=None)
@given(api_tokens | system_tokens, st.data())
def test_two_neighbours_that_change_places_are_refused(text: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(text) - 2).filter(lambda at: text[at] != text[at + 1]))
    changed = text[:place] + text[place + 1] + text[place] + text[place + 2 :]

    assert parse_token(changed) is None
    assert parse_system_token(changed) is None


@settings(max_examples=300, deadline=None)
@given(
    st.text()
    | st.text(alphabet=ALPHABET, min_size=49, max_size=61).map("agt_".__add__)
    | st.builds(str.__add__, api_tokens, st.sampled_from(["\n", " ", "\0", "x", "é"]))
    | st.builds(lambda text, cut: text[:cut], api_tokens, st.integers(0, 64))
)
def test_what_is_no_token_is_refused_and_nothing_is_raised(text: str) -> None:
    assert parse_token(text) is None
    assert parse_system_token(text) is None


def test_one_kind_is_never_the_other() -> None:
    assert parse_token(new_system_token().text) is None
    assert parse_system_token(new_token().text) is None


def test_digest_is_the_sha256_of_the_whole_text() -> None:
    token = new_token()

    assert token.digest() == hashlib.sha256(token.text.encode()).digest()
    assert token.matches(token.digest())
    assert not token.matches(new_token().digest())
    assert not token.matches(None)


@pytest.mark.parametrize("token", [new_token(), new_system_token()])
def test_a_token_does_not_show_its_secret(token: object) -> None:
    assert "agt_" not in repr(token)
    assert "ags_" not in repr(token)


def test_new_tokens_differ_in_every_part() -> None:
    tokens = [new_token() for _ in range(1000)]

    assert len({token.public_id for token in tokens}) == 1000
    assert len({token.text[16:59] for token in tokens}) == 1000


@given(api_tokens | system_tokens, st.sampled_from([" ", '"', "\n", "=", "/", "", "'", ","]))
@settings(max_examples=100, deadline=None)
def test_scanners_find_a_token_between_other_words(text: str, mark: str) -> None:
    found = re.findall(SCANNER_PATTERN, f"key{mark or ' '}{text}{mark or '.'} and more")

    assert found == [text]
