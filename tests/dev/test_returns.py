"""The sign-in page leads to the gateway or nowhere."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dev.returns import is_loopback_host, is_own_post, is_safe_return, same_host

ORIGINS = ("http://127.0.0.1:8080", "http://localhost:8080")


@pytest.mark.parametrize(
    "url", [*ORIGINS, "http://127.0.0.1:8080/", "http://localhost:8080/a?b=c#d", "http://127.0.0.1:8080?a=//evil.test"]
)
def test_pages_of_the_gateway_are_safe(url: str) -> None:
    safe = is_safe_return(url, ORIGINS)

    assert safe


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/",
        "//evil.test",
        "https://evil.test/",
        "http://127.0.0.1:8081/",
        "http://127.0.0.1:80800/",
        "http://127.0.0.1:8080@evil.test/",
        "http://127.0.0.1:8080.evil.test/",
        "http://127.0.0.1:8080\\@evil.test/",
        "http://127.0.0.1:8080/\\evil",
        "HTTP://127.0.0.1:8080/",
        "https://127.0.0.1:8080/",
        "javascript:alert(1)//http://127.0.0.1:8080/",
        " http://127.0.0.1:8080/",
        "http://127.0.0.1:8080/\r\nSet-Cookie: a=b",
        "http://127.0.0.1:8080/\t",
    ],
)
def test_anything_else_is_refused(url: str) -> None:
    safe = is_safe_return(url, ORIGINS)

    assert not safe


@settings(max_examples=200)
@given(st.sampled_from(["", *ORIGINS, "//", "http://"]), st.text("/\\@:.?#eviltst08 \t\r%", max_size=20))
def test_safe_url_has_the_origin_a_browser_would_see(start: str, rest: str) -> None:
    url = start + rest

    assert not is_safe_return(url, ORIGINS) or "{0.scheme}://{0.netloc}".format(urlsplit(url)) in ORIGINS


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1:5555", True),
        ("localhost:5555", True),
        ("127.0.0.1", False),
        ("rebound.evil.test:5555", False),
        ("localhost.evil.test:5555", False),
        ("", False),
    ],
)
def test_only_names_of_this_machine_are_loopback(host: str, loopback: bool) -> None:
    judged = is_loopback_host(host)

    assert judged is loopback


def test_cookies_reach_the_same_host_name_at_any_port() -> None:
    assert same_host("http://127.0.0.1:8080/", "127.0.0.1:5555")
    assert not same_host("http://localhost:8080/", "127.0.0.1:5555")


@pytest.mark.parametrize(
    ("origin", "own"),
    [(None, True), ("http://127.0.0.1:5555", True), ("http://evil.test", False), ("null", False)],
)
def test_forms_of_other_sites_are_foreign(origin: str | None, own: bool) -> None:
    judged = is_own_post(origin, "127.0.0.1:5555")

    assert judged is own
