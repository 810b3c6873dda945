"""`gateway dev` from end to end: what it prints can be pasted and works, and nothing of it stays."""

import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dev.dev_process import DevProcess, all_gone, cookies_after_sign_in, get, paste, start_dev


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevProcess]:
    run = start_dev(tmp_path_factory.mktemp("dev") / "data")
    yield run
    run.end()


def seen_by_upstream(headers: list[list[str]]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}


def test_pasted_line_shows_the_actor_as_the_upstream_saw_it(dev: DevProcess) -> None:
    answer = paste(dev.command("Authorization", "/hello"))

    seen = seen_by_upstream(answer.json()["headers"])
    assert answer.status == 200
    assert seen["x-actor-id"].startswith("usr_")
    assert seen["x-actor-role"] in {"USER", "ADMIN"}
    assert seen["x-actor-auth"] == "session"
    assert seen["x-organization-id"].startswith("org_")
    assert seen["x-organization-role"] == "admin"
    assert "org:reports:read" in seen["x-organization-permissions"].split()
    assert "authorization" not in seen


def test_pasted_line_without_a_token_is_challenged(dev: DevProcess) -> None:
    answer = paste(dev.command("curl -sS -i 'http"))

    assert answer.status == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer ")
    assert "error=" not in answer.headers["www-authenticate"]
    assert answer.json()["code"] == "credential_missing"


def test_pasted_line_shows_the_persona_as_the_current_user(dev: DevProcess) -> None:
    answer = paste(dev.command("/users/current"))

    user = answer.json()
    assert answer.status == 200
    assert (user["email"], user["name"]) == ("alice@acme.example", "Alice Adams")
    assert user["organization"]["role"] == "admin"


def test_pasted_line_of_the_public_route_brings_no_identity(dev: DevProcess) -> None:
    answer = paste(dev.command("/public/"))

    seen = seen_by_upstream(answer.json()["headers"])
    assert answer.status == 200
    assert seen["x-actor-id"] == ""


def test_pasted_line_of_metrics_works(dev: DevProcess) -> None:
    answer = paste(dev.command("/metrics"))

    assert answer.status == 200
    assert "gateway_requests_total" in answer.body


def test_every_pasted_line_works(dev: DevProcess) -> None:
    statuses = [paste(line).status for line in dev.commands]

    assert statuses == [200, 401, 200, 200, 200, 200, 201]


def test_printed_token_command_mints_a_token_the_gateway_takes(dev: DevProcess, tmp_path: Path) -> None:
    line = next(line for line in dev.lines if " dev-token " in line)
    minted = subprocess.run(shlex.split(line), capture_output=True, text=True, check=True, cwd=tmp_path, timeout=60)

    token = minted.stdout.strip()
    answer = get(f"{dev.address('Gateway')}/users/current", {"Authorization": f"Bearer {token}"})
    assert answer.status == 200


def test_browser_that_signed_in_is_known_to_the_gateway(dev: DevProcess) -> None:
    cookies = cookies_after_sign_in(dev.address("Issuer"), "carol")
    answer = get(f"{dev.address('Gateway')}/users/current", {"Cookie": cookies})

    assert answer.status == 200
    assert answer.json()["name"] == "Carol Clark"


def test_pending_session_is_refused(dev: DevProcess) -> None:
    minted = get(f"{dev.address('Issuer')}/v1/dev/tokens", {}, b'{"persona": "mallory"}').json()
    answer = get(f"{dev.address('Gateway')}/hello", {"Authorization": f"Bearer {minted['token']}"})

    assert answer.status == 401
    assert answer.json()["code"] == "session_pending"


def test_member_without_the_permission_is_refused(dev: DevProcess) -> None:
    minted = get(f"{dev.address('Issuer')}/v1/dev/tokens", {}, b'{"persona": "bob"}').json()
    answer = get(f"{dev.address('Gateway')}/reports/today", {"Authorization": f"Bearer {minted['token']}"})

    assert answer.status == 403


def test_start_page_says_that_all_parts_are_well(dev: DevProcess) -> None:
    answer = get(f"{dev.address('Issuer')}/", {"Accept": "text/html"})

    assert answer.status == 200
    assert answer.body.count('class="well"') == 4
    assert 'class="unwell"' not in answer.body


def test_second_run_in_one_folder_is_refused_in_one_line(dev: DevProcess) -> None:
    folder = dev.address("Data")
    second = subprocess.run(
        [sys.executable, "-m", "gateway", "dev", "--port", "0", "--data-dir", folder],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert "another gateway is using" in second.stderr


def test_taken_port_is_refused_in_one_line(dev: DevProcess, tmp_path: Path) -> None:
    port = dev.address("Gateway").rpartition(":")[2]
    second = subprocess.run(
        [sys.executable, "-m", "gateway", "dev", "--port", port, "--data-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert second.returncode == 1
    assert second.stderr.startswith(f"gateway dev: port {port} is taken")
    assert second.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_everything_and_a_second_start_keeps_tokens_good(tmp_path: Path, number: signal.Signals) -> None:
    first = start_dev(tmp_path / "data")
    children = first.descendants()
    code = first.end(number)
    port = first.address("Gateway").rpartition(":")[2]

    assert code == 0
    assert children
    assert all_gone(children)

    second = start_dev(tmp_path / "data", port)  # a token is for one origin
    answer = paste(first.command("/users/current"))
    second.end(number)

    assert second.address("Issuer") == first.address("Issuer")
    assert answer.status == 200


def test_killed_run_leaves_no_database_behind_and_the_next_one_starts(tmp_path: Path) -> None:
    run = start_dev(tmp_path / "data")
    children = run.descendants()
    run.end(signal.SIGKILL)

    assert children
    assert all_gone(children)

    again = start_dev(tmp_path / "data")
    answer = paste(again.command("/users/current"))
    again.end()

    assert answer.status == 200
