from pathlib import Path

import pytest
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


def test_what_waits_for_a_later_release_is_warned_of_and_what_is_built_is_not(tmp_path: Path) -> None:
    waits = VALID + 'decisions: {listen: "127.0.0.1:9002", callers: [127.0.0.1/32]}\n'
    text = VALID + (
        "redis: {url: redis://127.0.0.1}\nposthog: {project_key: phc_x, secret_key: phx_x}\n"
        "tokens: {per_user: 3}\nprovisioning: {link_verified_email: true}\n"
    )

    assert list(warned_of(tmp_path, waits)) == ["decisions"]
    assert list(warned_of(tmp_path, text)) == []


def test_flags_that_nobody_would_be_told_are_warned_of(tmp_path: Path) -> None:
    declared = (
        "{Upper: {type: boolean, default: true}, none: {type: boolean, default: true, expose: []},"
        " system: {type: boolean, default: true, when_role: SYSTEM},"
        " Client: {type: integer, default: 1, expose: [client]}}"
    )

    assert list(warned_of(tmp_path, f"{VALID}flags: {{declare: {declared}}}\n")) == [
        "flags.file",
        "flags.declare.Upper",
        "flags.declare.none.expose",
        "flags.declare.system.when_role",
    ]


def test_a_file_of_flags_that_is_not_there_is_warned_of(tmp_path: Path) -> None:
    there, declared = tmp_path / "flags.json", "declare: {a: {type: boolean, default: true}}"
    text = f"{VALID}flags: {{file: {there}, {declared}}}\n"

    assert list(warned_of(tmp_path, text)) == ["flags.file"]
    there.write_text("{}")
    assert list(warned_of(tmp_path, text)) == []


def test_stripe_without_webhooks_is_warned_of(tmp_path: Path) -> None:
    section = "stripe: {secret_key: sk_test_x, price_id: price_x, webhook_secrets: [%s]}\n"

    assert list(warned_of(tmp_path, VALID + section % "")) == ["stripe.webhook_secrets"]
    assert list(warned_of(tmp_path, VALID + section % "whsec_abc")) == []


def test_administrators_that_nobody_could_prove_are_warned_of(tmp_path: Path) -> None:
    text = f"{VALID}bootstrap: {{admin_emails: [ann@example.com, ann]}}\n"
    keyed = text.replace("clerk: {", "clerk: {secret_key: sk_test_x, ")

    assert sorted(warned_of(tmp_path, text)) == ["bootstrap.admin_emails", "bootstrap.admin_emails[1]"]
    assert sorted(warned_of(tmp_path, keyed)) == ["bootstrap.admin_emails[1]"]


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


POSTHOG = "posthog: {project_key: phc_x}\n"


def test_tracking_that_nobody_is_told_of_is_warned_of(tmp_path: Path) -> None:
    row = "path: /a, auth: required, track: viewed"

    assert list(warned_of(tmp_path, _with_routes(row))) == ["routes[0].track"]
    assert warned_of(tmp_path, _with_routes(row) + POSTHOG) == {}


def test_tracking_where_nobody_is_known_is_warned_of(tmp_path: Path) -> None:
    row = "path: /a, auth: none, track: viewed"

    assert list(warned_of(tmp_path, _with_routes(row) + POSTHOG)) == ["routes[0].track"]


SOCKETIO = "path: /socket.io/**, auth: required, protocol: socketio"


def test_socketio_that_takes_no_token_is_warned_of(tmp_path: Path) -> None:
    assert list(warned_of(tmp_path, _with_routes(SOCKETIO))) == ["routes[0].accept"]
    assert warned_of(tmp_path, _with_routes(f"{SOCKETIO}, accept: [websocket_token]")) == {}


def test_socketio_without_polling_is_warned_of(tmp_path: Path) -> None:
    several = _with_routes(f"{SOCKETIO}, accept: [websocket_token]").replace(
        "url: http://127.0.0.1:9000", "addresses: [http://10.0.0.1:9000, http://10.0.0.2:9000]"
    )

    assert list(warned_of(tmp_path, several)) == ["routes[0].protocol"]


@pytest.mark.parametrize(
    ("accept", "clerk", "keys"),
    [
        ("clerk_oauth", "", ["clerk.oauth_clients"]),
        ("clerk_oauth", ", oauth_clients: [client_1]", []),
        ("clerk_m2m", "", ["clerk.machine_id"]),
        ("clerk_m2m", ", machine_id: mch_2abc", []),
        ("clerk_api_key", "", []),
    ],
)
def test_machine_tokens_that_were_made_for_others_are_warned_of(
    tmp_path: Path, accept: str, clerk: str, keys: list[str]
) -> None:
    text = _with_routes(f"path: /a, auth: required, accept: [{accept}]")
    (line,) = (line for line in text.splitlines() if line.startswith("clerk"))

    assert list(warned_of(tmp_path, text.replace(line, f"{line[:-1]}, secret_key: sk_x{clerk}}}"))) == keys
