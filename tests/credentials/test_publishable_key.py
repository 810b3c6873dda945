"""The publishable key beyond Clerk's vectors."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.publishable_key import parse_publishable_key


def _key(host: str, word: str = "test") -> str:
    return f"pk_{word}_" + base64.b64encode(f"{host}$".encode()).decode()


def test_local_issuer_may_have_a_port() -> None:
    key = parse_publishable_key(_key("127.0.0.1:9470"))

    assert key.frontend_api == "127.0.0.1:9470"


@pytest.mark.parametrize("host", ["a.b/path", "user@a.b", "a.b?x", "a..b", ".a.b", "a b.c", "a.b\n"])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError):
        parse_publishable_key(_key(host))


def test_message_does_not_echo_the_key() -> None:
    with pytest.raises(ValueError) as refused:
        parse_publishable_key("pk_live_c2VjcmV0c2VjcmV0")

    assert "c2VjcmV0c2VjcmV0" not in str(refused.value)


@settings(max_examples=200)
@given(st.text() | st.binary().map(lambda raw: "pk_live_" + base64.b64encode(raw).decode()))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        key = parse_publishable_key(text)
    except ValueError:
        return

    assert key.issuer == f"https://{key.frontend_api}"
