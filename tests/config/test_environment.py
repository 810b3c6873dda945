from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.environment import find_overrides
from config.keys import every_key, variable_of
from tests.support.settings_files import MASTER_KEY, VALID, problems_of, settings_of

OTHER_KEY = "another-master-key-of-forty-characters-x"


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("GW_LISTEN", "127.0.0.1:81", "listen", ("127.0.0.1", 81)),
        ("GW_ADMIN__LISTEN", "[::1]:82", "admin.listen", ("::1", 82)),
        ("GW_FAST_LANE", "false", "fast_lane", False),
        ("GW_DRAIN_GRACE", "5", "drain_grace", 5.0),
        ("GW_LIMITS__HEAD_BYTES", "16 KiB", "limits.head_bytes", 16384),
        ("GW_HOSTS", '["App.Example.com."]', "hosts", ("app.example.com",)),
        ("GW_CLERK__ISSUER", "https://a.example.com", "clerk.issuer", ("https://a.example.com",)),
        ("GW_CLERK__ISSUER", '["https://a.example.com"]', "clerk.issuer", ("https://a.example.com",)),
        ("GW_CLERK__LEEWAY", "0s", "clerk.leeway", 0.0),
        ("GW_CLERK__MISSING_AZP", '{"header": "allow"}', "clerk.missing_azp.header", "allow"),
        ("GW_TOKENS__MAX_LIFE", "null", "tokens.max_life", None),
    ],
)
def test_every_kind_of_key_can_be_set_by_a_variable(
    tmp_path: Path, name: str, text: str, path: str, value: object
) -> None:
    found: object = settings_of(tmp_path, VALID, {name: text})

    for part in path.split("."):
        found = getattr(found, part)
    assert found == value


def test_every_key_has_a_variable_that_is_known() -> None:
    names = [variable_of(loc) for loc, _ in every_key() if not {"<name>", "[]"} & set(loc)]

    overrides, problems = find_overrides(dict.fromkeys(names, "x"))

    assert (len(overrides), problems) == (len(names), [])


def test_one_key_of_an_upstream_can_be_set_apart(tmp_path: Path) -> None:
    loaded = settings_of(tmp_path, VALID, {"GW_UPSTREAMS__APP__CONNECT_TIMEOUT": "1s"})

    assert (loaded.upstreams["app"].connect_timeout, loaded.upstreams["app"].url) == (1.0, "http://127.0.0.1:9000")


def test_a_variable_finds_a_name_with_capitals_and_dashes(tmp_path: Path) -> None:
    text = VALID.replace("  app:", "  My-App:").replace("upstream: app", "upstream: My-App")

    loaded = settings_of(tmp_path, text, {"GW_UPSTREAMS__MY_APP__URL": "http://10.0.0.1:1"})

    assert {name: upstream.url for name, upstream in loaded.upstreams.items()} == {"My-App": "http://10.0.0.1:1"}


def test_a_list_replaces_the_whole_list_and_its_problems_name_the_variable(tmp_path: Path) -> None:
    route = '[{"path": "/only", "auth": "required", "upstream": "app"}]'

    loaded = settings_of(tmp_path, VALID, {"GW_ROUTES": route})
    (problem,) = problems_of(tmp_path, VALID, {"GW_ROUTES": route.replace("/only", "only")})

    assert [row.path for row in loaded.routes] == ["/only"]
    assert str(problem).startswith("GW_ROUTES routes[0].path: write a path")


def test_a_list_written_without_json_says_how_to_write_it(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, VALID, {"GW_HOSTS": "app.example.com"})

    assert str(problem) == 'GW_HOSTS: write JSON, such as ["a", "b"] for a list'


@pytest.mark.parametrize(
    "name", ["GW_TYPO", "GW_", "GW_CLERK__ISSUR", "GW_SECRETS__", "GW_ROUTES__0__PATH", "GW_LISTEN__X"]
)
def test_an_unknown_variable_is_refused_by_name_and_not_by_value(tmp_path: Path, name: str) -> None:
    (problem,) = problems_of(tmp_path, VALID, {name: "the-value", "HOME": "/root", "GWX": "1", "OTHER": "GW_"})

    assert str(problem).startswith(f"{name}: no setting has this name")
    assert "the-value" not in str(problem)


def test_the_nearest_variable_is_offered(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, VALID, {"GW_CLERK__ISSUR": "x"})

    assert problem.message.endswith("did you mean GW_CLERK__ISSUER?")


def test_the_variable_that_names_the_file_is_no_setting(tmp_path: Path) -> None:
    assert problems_of(tmp_path, VALID, {"GW_CONFIG": "x.yaml"}) == ()


def _master_key(folder: Path, environ: dict[str, str]) -> str | None:
    key = settings_of(folder, VALID, environ).secrets.master_key
    return None if key is None else key.get_secret_value()


def test_a_variable_wins_over_a_file_variable_over_the_folder_over_the_yaml(tmp_path: Path) -> None:
    keys = {name: f"{name}-{MASTER_KEY}" for name in ("folder", "file", "variable")}
    (tmp_path / "run" / "secrets").mkdir(parents=True)
    (tmp_path / "run" / "secrets" / "master_key").write_text(f"{keys['folder']}\n")
    (tmp_path / "key").write_text(f"{keys['file']}\n")
    folder = {"GW_SECRETS_DIR": str(tmp_path / "run")}
    file = {"GW_SECRETS__MASTER_KEY_FILE": str(tmp_path / "key")}
    variable = {"GW_SECRETS__MASTER_KEY": keys["variable"]}

    assert _master_key(tmp_path, {}) == MASTER_KEY
    assert _master_key(tmp_path, folder) == keys["folder"]
    assert _master_key(tmp_path, folder | file) == keys["file"]
    assert _master_key(tmp_path, folder | file | variable) == keys["variable"]


def test_a_secret_folder_takes_flat_names_too_and_leaves_foreign_files_alone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "kubernetes.io" / "serviceaccount").mkdir(parents=True)
    (run / "kubernetes.io" / "serviceaccount" / "token").write_text("x")
    (run / "secrets__master_key").write_text(OTHER_KEY)

    assert _master_key(tmp_path, {"GW_SECRETS_DIR": str(run)}) == OTHER_KEY


def test_a_misspelt_secret_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run" / "secrets").mkdir(parents=True)
    (tmp_path / "run" / "secrets" / "masterkey").write_text(OTHER_KEY)

    (problem,) = problems_of(tmp_path, VALID, {"GW_SECRETS_DIR": str(tmp_path / "run")})

    assert problem.file.endswith("run/secrets/masterkey")
    assert OTHER_KEY not in str(problem)


def test_a_secret_that_is_too_short_names_the_file_it_came_from(tmp_path: Path) -> None:
    (tmp_path / "run" / "secrets").mkdir(parents=True)
    (tmp_path / "run" / "secrets" / "master_key").write_text("short-secret")

    (problem,) = problems_of(tmp_path, VALID, {"GW_SECRETS_DIR": str(tmp_path / "run")})

    assert str(problem).startswith(f"{tmp_path}/run/secrets/master_key: is too short")
    assert "short-secret" not in str(problem)


@pytest.mark.parametrize("environ", [{"GW_SECRETS_DIR": "/nowhere"}, {"GW_SECRETS__MASTER_KEY_FILE": "/nowhere"}])
def test_a_secret_source_that_is_not_there_is_refused(tmp_path: Path, environ: dict[str, str]) -> None:
    (problem,) = problems_of(tmp_path, VALID, environ)

    assert problem.file == next(iter(environ))


def test_a_yaml_alias_is_not_changed_through_its_other_name(tmp_path: Path) -> None:
    text = VALID.replace("  app:\n", "  app: &app\n").replace("routes:", "  other: *app\nroutes:")

    loaded = settings_of(tmp_path, text, {"GW_UPSTREAMS__APP__URL": "http://10.0.0.1:1"})

    assert loaded.upstreams["other"].url == "http://127.0.0.1:9000"


_NAMES = st.sampled_from(
    [variable_of(loc) for loc, _ in every_key()] + ["GW_X", "GW_UPSTREAMS__APP__URL", "GW_FLAGS_FILE"]
)


@settings(max_examples=150, deadline=None)
@given(environ=st.dictionaries(_NAMES, st.text(max_size=20) | st.sampled_from(["[1]", '{"a": 1}', "null", "[[", "0"])))
def test_any_environment_loads_or_is_refused(tmp_path_factory: pytest.TempPathFactory, environ: dict[str, str]) -> None:
    found = problems_of(tmp_path_factory.getbasetemp(), VALID, environ)

    assert all(problem.message for problem in found)
