from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.document import parse_document
from config.load import default_data_dir, load, load_settings
from config.problems import SettingsInvalid
from tests.support.settings_files import MASTER_KEY, VALID, keys_of, problems_in, problems_of, settings_of, write

SECRET = "sk_live_do_not_show_me_4711"


def test_the_smallest_file_loads(tmp_path: Path) -> None:
    loaded = settings_of(tmp_path, VALID)

    assert loaded.clerk.issuer == ("https://foo-bar-13.clerk.accounts.dev",)
    assert loaded.clerk.jwks_url == "https://foo-bar-13.clerk.accounts.dev/.well-known/jwks.json"
    assert loaded.clerk.sign_in_url == "https://foo-bar-13.accounts.dev/sign-in"
    assert loaded.public_url == "http://127.0.0.1:8080"
    assert loaded.data_dir is not None


def test_a_problem_says_file_line_column_key_and_what_to_write(tmp_path: Path) -> None:
    text = VALID.replace("http://127.0.0.1:9000", "127.0.0.1:9000")

    (problem,) = problems_of(tmp_path, text)

    assert str(problem) == (
        f"{tmp_path}/gateway.yaml:6:5 upstreams.app.url: "
        "write http://host:port, https://host:port or unix:/path, without path, query or user"
    )


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    text = (
        VALID.replace("listen: 127.0.0.1:8080", "listen: 8080\nlisen: 1\ntrusted_proxies: [0.0.0.0/0]")
        .replace(
            "auth: required, upstream: app", "auth: requird, upstream: app}\n  - {path: /x, auth: none, upstream: ap"
        )
        .replace("    url: http://127.0.0.1:9000", "    url: http://127.0.0.1:9000\n    url: http://127.0.0.1:9001")
    )

    found = keys_of(tmp_path, text, {"GW_TYPO": "1", "GW_WORKERS": "many"})

    assert found == [
        "listen",
        "lisen",
        "trusted_proxies[0]",
        "upstreams.app.url",
        "routes[0].auth",
        "routes[1].upstream",
        "GW_TYPO",
        "GW_WORKERS",
    ]


def test_an_unknown_key_is_refused_and_the_nearest_one_offered(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, VALID.replace("    url:", "    conect_timeout: 2s\n    url:"))

    assert (problem.line, problem.column, problem.key) == (6, 5, "upstreams.app.conect_timeout")
    assert "did you mean connect_timeout?" in problem.message


def test_a_doubled_key_names_the_first_line_and_no_value(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, f"{VALID}secrets: {{master_key: {SECRET}}}\n")

    assert (problem.line, problem.key) == (10, "secrets")
    assert "first in line 9" in problem.message
    assert SECRET not in str(problem)


def test_a_missing_key_points_at_its_parent(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, VALID.replace("auth: required, ", ""))

    assert (problem.line, problem.column, problem.key) == (8, 5, "routes[0].auth")


@pytest.mark.parametrize(
    ("text", "line"),
    [("listen: [", 1), ("a: b: c", 1), ("x: 1\n\ty: 2", 2), ("a: *nowhere", 1), ("--- a\n--- b", 2), ("a: 'x", 1)],
)
def test_a_file_that_is_not_yaml_says_where(tmp_path: Path, text: str, line: int) -> None:
    (problem,) = problems_of(tmp_path, text)

    assert problem.line == line
    assert problem.message.startswith("is not YAML here")


@pytest.mark.parametrize("text", ["", "# nothing\n", "[a]", "text", "\x00", "a: 2020-99-99"])
def test_a_file_without_settings_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (problem,) = problems_of(tmp_path, text)

    assert "\n" not in str(problem)


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(tmp_path / "none.yaml", {})

    assert str(caught.value) == f"{tmp_path}/none.yaml: there is no such file; name yours with -c FILE"


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_bytes(b"listen: \xff")

    with pytest.raises(SettingsInvalid, match="UTF-8"):
        load_settings(path, {})


def test_yaml_is_of_version_1_2(tmp_path: Path) -> None:
    loaded = settings_of(tmp_path, f"{VALID}provisioning: {{trial_days: 012, trial_plan: on}}\n")

    assert (loaded.provisioning.trial_days, loaded.provisioning.trial_plan) == (12, "on")


def test_an_empty_section_is_refused_instead_of_read_as_its_defaults(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, f"{VALID}limits:\n")

    assert (problem.key, problem.message) == ("limits", "is empty; give it a value, or leave it out")


@pytest.mark.parametrize(
    "text",
    [
        VALID.replace(MASTER_KEY, SECRET[:20]),
        VALID.replace(MASTER_KEY, f"[{SECRET}]"),
        VALID.replace(MASTER_KEY, f"*{SECRET}"),
        VALID.replace(MASTER_KEY, f"!{SECRET} x"),
        VALID.replace(MASTER_KEY, f"'{SECRET}"),
        VALID.replace(MASTER_KEY, f"@{SECRET}"),
        VALID.replace("url: postgresql://gateway@127.0.0.1", f"url: mysql://u:{SECRET}@127.0.0.1"),
        VALID.replace("url: http://127.0.0.1:9000", f"url: http://u:{SECRET}@127.0.0.1:9000"),
        VALID.replace("pk_test_", f"pk_test_{SECRET}"),
        VALID.replace("listen: 127.0.0.1:8080", f"listen: {SECRET}"),
        VALID.replace("listen: ", f"trusted_proxies: [{SECRET}]\nlisten: "),
        VALID.replace("listen: ", f"workers: {SECRET}\nlisten: "),
        VALID.replace("clerk: {", f"clerk: {{leeway: {SECRET}, "),
    ],
)
def test_no_problem_repeats_a_value(tmp_path: Path, text: str) -> None:
    found = "\n".join(map(str, problems_of(tmp_path, text)))

    assert found
    assert SECRET[:18] not in found


def test_loaded_settings_do_not_show_their_secrets(tmp_path: Path) -> None:
    loaded = settings_of(tmp_path, VALID.replace("gateway@", f"gateway:{SECRET}@"))

    assert MASTER_KEY not in repr(loaded)
    assert SECRET not in repr(loaded)


def test_the_issuer_may_be_one_or_several(tmp_path: Path) -> None:
    one = "clerk: {issuer: https://a.example.com, jwks_url: https://a.example.com/jwks}"
    several = "clerk: {issuer: [https://a.example.com, https://b.example.com], jwks_url: https://a.example.com/jwks}"
    rest = "\n".join(line for line in VALID.splitlines() if not line.startswith("clerk"))

    assert settings_of(tmp_path, f"{rest}\n{one}\n").clerk.issuer == ("https://a.example.com",)
    assert len(settings_of(tmp_path, f"{rest}\n{several}\n").clerk.issuer) == 2


def test_what_is_set_apart_stays_and_is_not_replaced_by_the_key(tmp_path: Path) -> None:
    loaded = settings_of(tmp_path, VALID.replace("clerk: {", "clerk: {issuer: https://auth.example.com, "))

    assert loaded.clerk.issuer == ("https://auth.example.com",)
    assert loaded.clerk.jwks_url == "https://foo-bar-13.clerk.accounts.dev/.well-known/jwks.json"


def test_the_data_folder_is_the_platforms(tmp_path: Path) -> None:
    assert default_data_dir({"XDG_DATA_HOME": str(tmp_path)}, "linux") == tmp_path / "actorgate"
    assert default_data_dir({"XDG_DATA_HOME": "relative"}, "linux") == Path.home() / ".local/share/actorgate"
    assert default_data_dir({}, "darwin") == Path.home() / "Library/Application Support/actorgate"


_YAML = st.text(alphabet=st.sampled_from("ab: -[]{},&*!|>'\"%@#?\n\t<=~01.\x00é"), max_size=40)


@settings(max_examples=200, deadline=None)
@given(_YAML)
def test_the_yaml_reader_raises_only_what_it_declares(text: str) -> None:
    with suppress(SettingsInvalid):
        parse_document("f.yaml", text)


@settings(max_examples=100, deadline=None)
@given(text=_YAML)
def test_any_text_after_a_valid_file_loads_or_is_refused_with_a_place(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = write(tmp_path_factory.getbasetemp(), f"{VALID}tokens: {{scopes: []}}\n{text}")

    found = problems_in(path)

    assert all(problem.file == str(path) for problem in found)


# Every part of the settings at once, most of which wait for later releases: no part may stand in the way of the others.
EVERYTHING = """\
listen: 127.0.0.1:8080
admin: {listen: 127.0.0.1:9464}
workers: 2
public_url: https://app.example.com
trusted_proxies: [10.0.0.0/8]
clerk:
  publishable_key: pk_live_Y2xlcmsuZXhhbXBsZS5jb20k
  issuer: https://clerk.example.com
  jwks_url: https://clerk.example.com/.well-known/jwks.json
  api_url: https://api.clerk.com/v1
  secret_key: sk_live_x
  authorized_parties: [https://app.example.com]
  webhook_secrets: []
  allow_insecure_http: false
database: {url: postgresql://gateway@127.0.0.1/gateway}
redis: {url: redis://127.0.0.1}
upstreams:
  app: {url: http://127.0.0.1:9000, connect_timeout: 2s, response_timeout: 30s, idle_timeout: 5m}
routes:
  - {path: /public/**, auth: none, upstream: app}
  - {path: /ws/**, auth: required, accept: [websocket_token, session], upstream: app}
  - {path: /reports/**, methods: [GET], auth: required, scopes: [reports:read], organization_roles: [admin, member], upstream: app, track: report_viewed}
  - {path: /**, auth: required, upstream: app}
secrets: {master_key: "7b0e1c5a9d3f4826b1c07e5d9a3f4826"}
tokens: {default_life: 180d, max_life: 365d, per_user: 20, websocket_life: 10m, agent_life: 1h, scopes: [reports:read]}
provisioning: {personal_organizations: true, first_api_token: true, trial_days: 14, trial_plan: pro, link_verified_email: false}
cache: {near_entries: 100000, near_ttl: 30s, degraded_ttl: 5s, stale_if_error: 10m}
flags: {provider: file, file: flags.json, declare: {new-editor: {type: boolean, default: false, expose: [headers, client]}}}
slack: {webhook_url: "https://hooks.slack.com/services/x"}
posthog: {host: https://us.i.posthog.com, project_key: phc_x, secret_key: phx_x}
stripe: {secret_key: sk_x, price_id: price_x, api_url: https://api.stripe.com, webhook_secrets: []}
decisions: {callers: [127.0.0.1/32]}
debug: {enabled: false}
"""  # noqa: E501 - as a person would write it


def test_every_part_of_the_settings_is_taken_at_once(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(EVERYTHING, encoding="utf-8")

    loaded = load(path, {}, for_serve=True)

    waiting = {warning.key for warning in loaded.warnings}
    assert "workers" not in waiting
    assert "decisions" in waiting
    assert {"redis", "slack", "posthog", "posthog.secret_key", "stripe", "flags"}.isdisjoint(waiting)
    assert "tokens" not in waiting
