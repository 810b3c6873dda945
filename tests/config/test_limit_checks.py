"""Limits and the routes that name them: what is refused, and what is warned of."""

from pathlib import Path

import pytest

from tests.support.settings_files import VALID, keys_of, warned_of

ROUTE = "  - {path: /**, auth: required, upstream: app}"
LIMITS = "rate_limits:\n  api: {limit: 100/minute}\n  guesses: {limit: 9/minute, counts: failed_credentials}\n"


def limited(names: str, *, auth: str = "required", limits: str = LIMITS) -> str:
    return (
        VALID.replace(ROUTE, f"  - {{path: /a/**, auth: {auth}, upstream: app, rate_limit: {names}}}\n{ROUTE}") + limits
    )


@pytest.mark.parametrize("names", ["api", "[api]", "[]"])
def test_a_route_names_one_limit_or_several_or_none(tmp_path: Path, names: str) -> None:
    assert keys_of(tmp_path, limited(names)) == []


@pytest.mark.parametrize("names", ["apis", "[api, apis]", "guesses", "[api, api]"])
def test_a_name_that_would_limit_nothing_is_refused(tmp_path: Path, names: str) -> None:
    assert keys_of(tmp_path, limited(names)) == ["routes[0].rate_limit"]


@pytest.mark.parametrize("name", ['"a b"', '"a\'b"', "'a\"b'", "-a", "'a,b'", f"{'a' * 64}"])
def test_a_name_that_no_field_could_carry_is_refused(tmp_path: Path, name: str) -> None:
    assert keys_of(tmp_path, VALID + f"rate_limits:\n  {name}: {{limit: 1/s}}\n") != []


def test_a_limit_that_no_route_names_is_warned_of_and_guesses_are_not(tmp_path: Path) -> None:
    assert list(warned_of(tmp_path, VALID + LIMITS)) == ["rate_limits.api"]
    assert list(warned_of(tmp_path, limited("api"))) == []


def test_a_limit_by_user_where_nobody_is_known_is_warned_of(tmp_path: Path) -> None:
    assert list(warned_of(tmp_path, limited("api", auth="none"))) == ["routes[0].rate_limit"]


def test_what_nobody_asks_without_redis_is_warned_of(tmp_path: Path) -> None:
    limits = "rate_limits: {api: {limit: 1/s, when_unavailable: closed}}\n"

    assert list(warned_of(tmp_path, limited("api", limits=limits))) == ["rate_limits.api.when_unavailable"]
    assert list(warned_of(tmp_path, limited("api", limits=limits + "redis: {url: redis://127.0.0.1}\n"))) == []
