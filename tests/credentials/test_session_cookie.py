"""Which session cookie counts, and which sign nobody in. Clerk's own cases run in `tests/verify/test_vectors.py`."""

import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.credentials.kinds import Carrier
from gateway.credentials.session_cookie import CookieRules, _unverified, find_session_cookie
from tests.support.clerk_keys import encode, mint_token

NOW = 1_700_000_000
HOST = "clerk.example.test"
LIVE = CookieRules("MqCvchyS", HOST)
TEST = CookieRules("MqCvchyS", HOST, development=True)
TOKEN = mint_token(now=NOW)


def _cookies(**values: object) -> list[bytes]:
    return ["; ".join(f"{name}={value}" for name, value in values.items()).encode()]


def test_session_with_a_client_is_a_credential() -> None:
    found = find_session_cookie(_cookies(__session=TOKEN, __client_uat=NOW - 5), LIVE, NOW)

    assert found is not None
    assert (found.carrier, found.token, found.refusal) == (Carrier.COOKIE, TOKEN, None)


@pytest.mark.parametrize("values", [[], [b"a=1"], [b"__client_uat=0"], [b"__client_uat=x"], [b"__session="]])
def test_nothing_presented_is_no_credential(values: list[bytes]) -> None:
    assert find_session_cookie(values, LIVE, NOW) is None
    assert find_session_cookie(values, TEST, NOW) is None


@pytest.mark.parametrize(
    "cookies, reason",
    [
        ({"__session": TOKEN}, "session-token-but-no-client-uat"),
        ({"__client_uat": NOW}, "client-uat-but-no-session-token"),
        ({"__session": TOKEN, "__client_uat": NOW + 1}, "session-token-iat-before-client-uat"),
        ({"__session": "a" * 17_000, "__client_uat": NOW}, "token-too-long"),
    ],
)
def test_cookies_clerk_would_send_round_are_refused_with_its_reason(cookies: dict[str, object], reason: str) -> None:
    found = find_session_cookie(_cookies(**cookies), LIVE, NOW)

    assert found is not None
    assert found.refusal == reason


def test_browser_of_a_test_instance_needs_its_dev_browser_cookie() -> None:
    without = find_session_cookie(_cookies(__session=TOKEN, __client_uat=NOW), TEST, NOW)
    with_it = find_session_cookie(_cookies(__session=TOKEN, __client_uat=NOW, __clerk_db_jwt="d"), TEST, NOW)

    assert without is not None
    assert without.refusal == "dev-browser-missing"
    assert with_it is not None
    assert with_it.refusal is None


def test_test_instance_falls_back_when_its_suffixed_session_expired() -> None:
    old, new = mint_token(now=NOW - 100), mint_token(now=NOW - 200)
    cookies = {"__session": new, "__client_uat": 0, "__session_MqCvchyS": old, "__client_uat_MqCvchyS": NOW - 300}
    live = find_session_cookie(_cookies(**cookies), LIVE, NOW)
    test = find_session_cookie(_cookies(**cookies, __clerk_db_jwt="d"), TEST, NOW)

    assert live is not None
    assert live.token == old
    assert test is not None
    assert (test.token, test.refusal) == (new, "session-token-but-no-client-uat")


def test_without_a_key_only_unsuffixed_names_are_read() -> None:
    rules = CookieRules.of(None)
    cookies = {"__session_MqCvchyS": TOKEN, "__client_uat_MqCvchyS": NOW}

    assert find_session_cookie(_cookies(**cookies), rules, NOW) is None


def test_token_is_not_shown() -> None:
    found = find_session_cookie(_cookies(__session=TOKEN, __client_uat=NOW), LIVE, NOW)

    assert TOKEN not in repr(found)


@pytest.mark.parametrize("claim", ["iss", "iat", "exp", "other"])
def test_unproven_cookies_do_not_choose_how_much_is_remembered(claim: str) -> None:
    def present(number: int) -> None:
        payload = json.dumps({claim: f"{number}" + "x" * 8000}).encode()
        token = f"{encode(b'{}')}.{encode(payload)}.AAAA"
        find_session_cookie(_cookies(__session=token, __client_uat=NOW), LIVE, NOW)

    present(-1)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(200):
            present(number)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert after - before < 200 * 1000


@pytest.mark.parametrize(("length", "remembered"), [(256, True), (257, False)])
def test_an_issuer_longer_than_any_of_ours_is_not_remembered(length: int, remembered: bool) -> None:
    token = f"{encode(b'{}')}.{encode(json.dumps({'iss': 'i' * length}).encode())}.AAAA"

    assert ("iss" in _unverified(token)) is remembered


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["__session", "__client_uat", "__session_MqCvchyS", "__client_uat_MqCvchyS"]),
            st.sampled_from([TOKEN, "0", str(NOW), "9" * 400, "-1", "a.b.c", ""]) | st.text(),
        )
    ),
    st.sampled_from([LIVE, TEST, CookieRules()]),
)
def test_any_cookies_are_read_without_an_exception(pairs: list[tuple[str, str]], rules: CookieRules) -> None:
    line = "; ".join(f"{name}={value}" for name, value in pairs).encode("utf-8", "surrogatepass")

    find_session_cookie([line], rules, NOW)
