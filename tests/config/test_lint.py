from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from config.lint import covers_path
from tests.support.settings_files import VALID, warned_of

ROUTE = "  - {path: /**, auth: required, upstream: app}"


def _with_routes(*routes: str) -> str:
    return VALID.replace(ROUTE, "\n".join(f"  - {{{route}, upstream: app}}" for route in routes))


def test_a_complete_file_gives_no_warning(tmp_path: Path) -> None:
    assert warned_of(tmp_path, VALID) == {}


def test_no_authorized_parties_is_warned_of(tmp_path: Path) -> None:
    text = VALID.replace(", authorized_parties: [https://app.example.com]", "")

    assert list(warned_of(tmp_path, text)) == ["clerk.authorized_parties"]


def test_a_party_that_is_no_origin_is_warned_of(tmp_path: Path) -> None:
    text = VALID.replace("[https://app.example.com]", "[https://app.example.com/]")

    assert list(warned_of(tmp_path, text)) == ["clerk.authorized_parties[0]"]


def test_what_serving_still_needs_is_warned_of(tmp_path: Path) -> None:
    text = "\n".join(line for line in VALID.splitlines() if not line.startswith(("secrets", "database")))

    assert list(warned_of(tmp_path, text)) == ["secrets.master_key", "database.url"]


def test_a_public_listener_without_public_url_is_warned_of(tmp_path: Path) -> None:
    text = VALID.replace("127.0.0.1:8080", "0.0.0.0:8080")

    assert list(warned_of(tmp_path, text)) == ["public_url"]


def test_what_waits_for_a_later_release_is_warned_of(tmp_path: Path) -> None:
    text = VALID + (
        "redis: {url: redis://127.0.0.1}\nslack: {webhook_url: https://hooks.example.com}\n"
        "tokens: {per_user: 3, agent_life: 2h}\nprovisioning: {trial_days: 3, first_api_token: false}\n"
    )

    assert sorted(warned_of(tmp_path, text)) == ["provisioning.trial_days", "redis", "slack", "tokens.agent_life"]


def test_a_scope_that_no_token_can_have_is_warned_of(tmp_path: Path) -> None:
    row = "path: /**, auth: required, scopes: [reports:read, profile:write, typo]"
    found = warned_of(tmp_path, _with_routes(row) + "tokens: {scopes: [reports:read]}\n")

    assert list(found) == ["routes[0].scopes"]
    assert found["routes[0].scopes"].startswith("typo:")


def test_giving_a_built_in_scope_to_everybody_is_warned_of(tmp_path: Path) -> None:
    assert list(warned_of(tmp_path, f"{VALID}tokens: {{scopes: [a, admin]}}\n")) == ["tokens.scopes[1]"]


def test_a_route_behind_one_that_takes_everything_never_matches(tmp_path: Path) -> None:
    found = warned_of(tmp_path, _with_routes("path: /a/**, auth: required", "path: /a/b, auth: required"))

    assert list(found) == ["routes[1].path"]
    assert "routes[0] (/a/**)" in found["routes[1].path"]


def test_a_route_for_other_methods_or_hosts_can_still_match(tmp_path: Path) -> None:
    routes = ("path: /**, methods: [GET], auth: required", "path: /x, methods: [POST], auth: required")
    hosts = ("path: /**, hosts: [a.example.com], auth: required", "path: /x, auth: required")

    assert warned_of(tmp_path, _with_routes(*routes)) == {}
    assert warned_of(tmp_path, _with_routes(*hosts)) == {}


def test_other_methods_that_fall_through_to_a_weaker_route_are_warned_of(tmp_path: Path) -> None:
    rows = ("path: /a, methods: [GET], auth: required, roles: [ADMIN]", "path: /**, auth: required")

    assert list(warned_of(tmp_path, _with_routes(*rows))) == ["routes[0].methods"]


def test_other_methods_that_fall_through_to_an_equal_route_are_fine(tmp_path: Path) -> None:
    rows = ("path: /a, methods: [GET], auth: required", "path: /**, auth: required")

    assert warned_of(tmp_path, _with_routes(*rows)) == {}


def test_letting_everybody_to_everything_is_warned_of(tmp_path: Path) -> None:
    assert list(warned_of(tmp_path, _with_routes("path: /**, auth: none"))) == ["routes[0].auth"]


def test_a_prefix_that_is_not_there_to_strip_is_warned_of(tmp_path: Path) -> None:
    rows = ("path: /a/**, auth: required, strip_prefix: /a", "path: /b/**, auth: required, strip_prefix: /a")

    assert list(warned_of(tmp_path, _with_routes(*rows))) == ["routes[1].strip_prefix"]


def _matches(pattern: list[str], path: list[str]) -> bool:
    """Match by the contract's words, slowly."""
    if pattern == ["**"]:
        return True
    if not pattern or not path:
        return pattern == path
    return (pattern[0] == path[0] or (pattern[0] == "*" and path[0] != "")) and _matches(pattern[1:], path[1:])


_SEGMENT = st.sampled_from(["a", "b", "*"])
_PATTERN = st.builds(
    lambda head, tail: [*head, *tail], st.lists(_SEGMENT, min_size=1, max_size=3), st.sampled_from([[], ["**"]])
)


@given(_PATTERN, _PATTERN, st.lists(st.sampled_from(["a", "b", ""]), min_size=1, max_size=4))
def test_a_covering_pattern_matches_all_the_other_matches(first: list[str], second: list[str], path: list[str]) -> None:
    covered = covers_path("/" + "/".join(first), "/" + "/".join(second))

    assert not covered or not _matches(second, path) or _matches(first, path)
