"""Cookie credentials act only for pages of our own."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import CrossSite
from gateway.policy.cross_site import check_cross_site
from gateway.policy.origins import compile_origins, normalised_origin

ALLOWED = compile_origins(["https://app.example.com", "http://localhost:3000", "capacitor://localhost"])


def refusal_of(
    origin: bytes | None = None, site: bytes | None = None, method: str = "POST", is_upgrade: bool = False
) -> str | None:
    try:
        check_cross_site(method, is_upgrade, origin, site, ALLOWED)
    except CrossSite as refused:
        return refused.reason
    return None


@pytest.mark.parametrize(
    "origin",
    [
        b"https://app.example.com",
        b"https://APP.example.com",
        b"HTTPS://app.example.com:443",
        b"http://localhost:3000",
        b"capacitor://localhost",
    ],
)
def test_l06_own_origin_may_act(origin: bytes) -> None:
    assert refusal_of(origin) is None


@pytest.mark.parametrize(
    "origin",
    [
        b"null",
        b"",
        b"*",
        b"https://evil.com",
        b"https://app.example.com.evil.com",
        b"https://evilapp.example.com",
        b"https://app.example.com@evil.com",
        b"https://app.example.com.",
        b"https://app.example.com/",
        b"https://app.example.com:444",
        b"https://app.example.com:",
        b"https://app.example.com https://evil.com",
        b"http://app.example.com",
        b"http://localhost",
        b"//app.example.com",
        b"app.example.com",
        b"https://app.example.com\x00",
    ],
)
@pytest.mark.parametrize("site", [None, b"same-origin"])
def test_l06_foreign_origin_may_not_act_whatever_else_is_said(origin: bytes, site: bytes | None) -> None:
    assert refusal_of(origin, site) == "origin_foreign"


@pytest.mark.parametrize("site", [b"same-origin", b"same-site", b"none"])
def test_l06_own_fetch_site_may_act_without_origin(site: bytes) -> None:
    assert refusal_of(site=site) is None


@pytest.mark.parametrize("site", [b"cross-site", b"", b"same-origin, none", b"Same-Origin"])
def test_l06_other_fetch_site_may_not_act(site: bytes) -> None:
    assert refusal_of(site=site) == "fetch_site_foreign"


def test_l06_cookie_alone_shows_no_intent() -> None:
    assert refusal_of() == "origin_missing"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "POST", "get", "PURGE"])
def test_l06_every_method_not_known_as_safe_is_unsafe(method: str) -> None:
    assert refusal_of(b"https://evil.com", method=method) == "origin_foreign"


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_l06_safe_method_may_come_from_anywhere(method: str) -> None:
    assert refusal_of(b"https://evil.com", method=method) is None


@pytest.mark.parametrize("origin", [None, b"null", b"https://evil.com", b"https://app.example.com.evil.com"])
def test_l06_upgrade_needs_an_own_origin_though_it_is_a_get(origin: bytes | None) -> None:
    assert refusal_of(origin, method="GET", is_upgrade=True) is not None


def test_configured_text_that_is_no_origin_allows_nothing() -> None:
    assert compile_origins(["*", "null", "", "https://a/", "https://*.example.com", "é"]) == frozenset()


ORIGINS = st.one_of(st.binary(max_size=30), st.text("htps:/.aB0[]-@ ", max_size=25).map(str.encode))


@settings(max_examples=200, deadline=None)
@given(ORIGINS)
def test_normal_form_of_any_octets_is_stable(raw: bytes) -> None:
    origin = normalised_origin(raw)

    assert origin is None or normalised_origin(origin) == origin == origin.lower()


@settings(max_examples=200, deadline=None)
@given(ORIGINS)
def test_l06_any_octets_as_origin_pass_only_as_an_allowed_one(raw: bytes) -> None:
    assert (refusal_of(raw) is None) == (normalised_origin(raw) in ALLOWED)
