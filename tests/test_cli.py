import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from config.keys import every_key
from config.meaning import MEANING
from config.problems import key_text
from config.reference import markdown, schema
from gateway.cli import app
from gateway.probe import probe
from provisioning.database.migrate import known_revisions
from tests.support.settings_files import MASTER_KEY, VALID, write

ROOT = Path(__file__).parent.parent
DEADLINE_S = 60


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str


def run(*arguments: str, environ: Mapping[str, str] | None = None, folder: Path = ROOT) -> Ran:
    """Run the command as a user does, without the settings of whoever runs the tests."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("GW_")}
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        cwd=folder,
        env={**inherited, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    """Run the command in this process."""
    result = app(list(arguments))
    captured = capsys.readouterr()
    return Ran(result if isinstance(result, int) else 0, captured.out, captured.err)


def test_the_shipped_example_is_accepted_and_only_lacks_its_secret() -> None:
    ran = run("check")

    assert ran.code == 0
    assert [line.split(" ")[2] for line in ran.err.splitlines()] == ["secrets.master_key:"]
    assert "/public/**" in ran.out


def test_the_shipped_example_with_a_master_key_gives_no_warning() -> None:
    ran = run("check", environ={"GW_SECRETS__MASTER_KEY": MASTER_KEY})

    assert (ran.code, ran.err) == (0, "")


def test_serving_the_example_without_a_master_key_is_refused_in_one_line() -> None:
    ran = run("serve")

    assert ran.code == 2
    assert len(ran.err.splitlines()) == 1
    assert ran.err.startswith("gateway.yaml:1:1 secrets.master_key: is missing; set GW_SECRETS__MASTER_KEY")


def test_a_settings_file_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    ran = run("serve", folder=tmp_path)

    assert ran.code == 2
    assert ran.err == "gateway.yaml: there is no such file; name yours with -c FILE\n"


def test_the_settings_file_can_be_named_by_a_variable(tmp_path: Path) -> None:
    path = write(tmp_path, VALID)

    assert run("check", environ={"GW_CONFIG": str(path)}).code == 0


def test_help_names_the_commands() -> None:
    ran = run("--help")

    assert ran.code == 0
    assert all(command in ran.out for command in ("serve", "check", "schema", "migrate", "health", "dev-token"))


def test_a_mistyped_option_is_refused_without_a_traceback() -> None:
    ran = run("check", "--jsn")

    assert ran.code != 0
    assert "Traceback" not in ran.err
    assert "--json" in ran.out + ran.err


def test_check_lists_every_problem_on_a_line_of_its_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write(tmp_path, VALID.replace("listen: 127.0.0.1:8080", "lisen: 1").replace("upstream: app", "upstream: ap"))

    ran = call(capsys, "check", "-c", str(path))

    assert ran.code == 1
    assert ran.out == ""
    assert [line.split(" ")[0] for line in ran.err.splitlines()] == [f"{path}:1:1", f"{path}:8:33"]


def test_check_as_json_holds_problems_with_their_places(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write(tmp_path, VALID.replace("listen: 127.0.0.1:8080", "lisen: 1"))

    ran = call(capsys, "check", "--json", "-c", str(path))

    report = json.loads(ran.out)
    assert (ran.code, report["ok"]) == (1, False)
    assert report["problems"] == [
        {"file": str(path), "line": 1, "column": 1, "key": "lisen", "message": "unknown key; did you mean listen?"}
    ]


def test_check_as_json_holds_the_routes_and_warnings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write(tmp_path, VALID.replace(MASTER_KEY, "x" * 40))

    ran = call(capsys, "check", "--json", "-c", str(path))

    report = json.loads(ran.out)
    assert (ran.code, report["ok"]) == (0, True)
    assert [route["path"] for route in report["routes"]] == ["/**"]
    assert [warning["key"] for warning in report["warnings"]] == ["secrets.master_key"]


def test_check_refuses_several_workers_without_redis_and_says_where(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ran = call(capsys, "check", "-c", str(path := write(tmp_path, f"{VALID}workers: 2\n")))

    line = VALID.count("\n") + 1
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"{path}:{line}:1 workers: above 1 needs redis.url")


def test_the_route_table_is_aligned_and_names_what_is_demanded(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    row = "  - {path: /a, methods: [GET], auth: required, roles: [ADMIN], plans: [pro], upstream: app}\n"
    path = write(tmp_path, VALID.replace("routes:\n", f"routes:\n{row}"))

    ran = call(capsys, "check", "-c", str(path))

    heading, first, second = ran.out.splitlines()
    assert first.index("required") == second.index("required") == heading.index("AUTH")
    assert "roles=ADMIN plans=pro" in first


def test_migrate_without_a_database_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = "\n".join(line for line in VALID.splitlines() if not line.startswith("database"))

    ran = call(capsys, "migrate", "-c", str(write(tmp_path, text)))

    assert ran.code == 1
    assert ran.err.startswith("gateway migrate: database.url is not set")


def test_migrate_of_a_database_that_does_not_answer_is_one_line_without_its_address(tmp_path: Path) -> None:
    path = write(tmp_path, VALID.replace("gateway@127.0.0.1/", "gateway:not-to-be-shown@127.0.0.1:1/"))

    ran = run("migrate", "--check", "-c", str(path))

    assert ran.code == 1
    assert len(ran.err.splitlines()) == 1
    assert "cannot be asked" in ran.err
    assert "not-to-be-shown" not in ran.err


def test_migrate_check_lists_what_is_pending_and_says_when_nothing_is(tmp_path: Path, empty_database_url: str) -> None:
    path = write(tmp_path, VALID.replace("postgresql://gateway@127.0.0.1/gateway", f"'{empty_database_url}'"))

    before, applied, after = (run("migrate", *how, "-c", str(path)) for how in (("--check",), (), ("--check",)))

    assert (before.code, applied.code, after.code) == (1, 0, 0)
    assert before.out.splitlines() == [f"pending {revision}" for revision in known_revisions()]
    assert applied.out.count("applied ") == len(known_revisions())
    assert after.out == "the schema is up to date\n"


@contextmanager
def _admin_port(status: int) -> Iterator[str]:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_health_of_a_ready_gateway_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    with _admin_port(200) as url:
        ran = call(capsys, "health", "--url", url)

    assert (ran.code, ran.out) == (0, "healthy\n")


def test_health_of_an_unready_gateway_is_1_and_says_what_it_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with _admin_port(503) as url:
        ran = call(capsys, "health", "--url", url)

    assert ran.code == 1
    assert ran.err.endswith("answers 503\n")


def test_health_asks_the_admin_port_of_the_settings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with _admin_port(200) as url:
        path = write(tmp_path, f"admin: {{listen: {url.removeprefix('http://')}}}\n{VALID}")
        ran = call(capsys, "health", "-c", str(path))

    assert ran.code == 0


def test_health_dials_this_machine_when_the_port_is_bound_to_all() -> None:
    with _admin_port(200) as url:
        assert probe(url.replace("127.0.0.1", "0.0.0.0"), DEADLINE_S) == (True, "healthy")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "https://127.0.0.1:1", "nonsense", "http://[::1", "http://a:99999"]
)
def test_health_of_nothing_is_1_and_one_line(capsys: pytest.CaptureFixture[str], url: str) -> None:
    ran = call(capsys, "health", "--url", url)

    assert ran.code == 1
    assert ran.err.startswith("unhealthy: ")
    assert len(ran.err.splitlines()) == 1


def test_the_schema_describes_every_key_and_marks_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    ran = call(capsys, "schema")

    document = json.loads(ran.out)
    assert document == schema()
    assert document["additionalProperties"] is False
    assert document["$defs"]["Secrets"]["properties"]["master_key"]["description"].startswith("32 characters")


def test_every_key_has_a_meaning_and_every_meaning_a_key() -> None:
    assert list(MEANING) == [".".join(map(str, loc)) for loc, _ in every_key()]


def test_the_settings_page_is_the_one_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    ran = call(capsys, "schema", "--markdown")

    assert ran.out == markdown() == (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def test_a_key_is_written_as_people_do() -> None:
    assert key_text(("routes", 0, "methods", 1)) == "routes[0].methods[1]"
