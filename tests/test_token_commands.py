"""`gateway tokens`, against a real PostgreSQL."""

import asyncio
import hashlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from config.load import load_settings
from provisioning.database.pool import Database
from provisioning.records import FoundToken, Standing, Subject
from provisioning.token_text import parse_system_token, parse_token
from tests.support.settings_files import VALID, write
from tests.support.tokens import events, execute, person, tokens_over
from tests.test_cli import DEADLINE_S, ROOT, Ran, call

T = TypeVar("T")


class Records:
    """A database with Alice in it, asked from tests without a loop, and the settings file that names it."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        text = VALID.replace("postgresql://gateway@127.0.0.1/gateway", url)
        self.config = write(folder, f"{text}tokens: {{scopes: [reports:read], per_user: 2}}\n")
        self.alice: Standing = self.ask(person)

    def ask(self, question: Callable[[Database], Awaitable[T]]) -> T:
        async def run() -> T:
            async with Database(self._url) as database:
                return await question(database)

        return asyncio.run(run())

    def find(self, text: str) -> FoundToken | None:
        parsed = parse_token(text)
        assert parsed is not None
        return self.ask(lambda database: tokens_over(database).find(parsed.public_id))


@pytest.fixture
def records(database_url: str, tmp_path: Path) -> Records:
    return Records(database_url, tmp_path)


@pytest.fixture
def tokens(records: Records, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run `gateway tokens …` with the settings of the records."""
    return lambda *words: call(capsys, "tokens", *words, "-c", str(records.config))


def document(ran: Ran) -> dict[str, Any]:
    assert ran.code == 0, ran.err
    loaded: dict[str, Any] = json.loads(ran.out)
    return loaded


@pytest.mark.parametrize("by", ["id", "clerk_id"])
def test_a_created_token_is_printed_alone_and_is_the_one_that_is_found(
    tokens: Callable[..., Ran], records: Records, by: str
) -> None:
    user = getattr(records.alice.user, by)
    ran = tokens("create", "--user", user, "--name", "CI", "--scope", "reports:read", "--scope", "profile:write")
    found = records.find(ran.out.strip())

    assert ran.code == 0
    assert found is not None
    assert found.standing == records.alice
    assert found.token.scopes == ("reports:read", "profile:write")
    assert found.token.id in ran.err
    assert ran.out.strip() not in ran.err


def test_creating_is_on_record_with_the_operator(tokens: Callable[..., Ran], records: Records) -> None:
    tokens("create", "--user", "user_alice", "--name", "CI")

    event = records.ask(lambda database: events(database, records.alice.organization.id))[-1]

    assert (event["action"], event["actor_kind"]) == ("api_token.created", "operator")


def test_a_life_can_be_given(tokens: Callable[..., Ran], records: Records) -> None:
    made = document(tokens("create", "--user", "user_alice", "--name", "CI", "--life", "2d", "--json"))
    found = records.find(made["token"])

    assert found is not None
    assert found.token.expires_at is not None
    assert round((found.token.expires_at - found.token.created_at).total_seconds()) == 2 * 86400


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--user", "user_nobody"), "no such user"),
        (("--user", "user_alice", "--scope", "typo"), "no such scope: typo; declare it in tokens.scopes"),
        (("--user", "user_alice", "--scope", "admin"), "role does not allow: admin"),
        (("--user", "user_alice", "--life", "400d"), "tokens.max_life"),
        (("--user", "user_alice", "--life", "never"), "tokens.max_life"),
        (("--user", "user_alice", "--life", "soon"), "--life: write a duration"),
        (("--user", "user_alice", "--organization", "org_other"), "--organization"),
        ((), "--user"),
        (("--system", "--user", "user_alice"), "system token"),
    ],
)
def test_what_cannot_be_made_is_said_in_one_line(tokens: Callable[..., Ran], words: tuple[str, ...], said: str) -> None:
    ran = tokens("create", "--name", "CI", *words)

    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("gateway tokens create: ")
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_user_of_several_organizations_needs_one_named(tokens: Callable[..., Ran], records: Records) -> None:
    at_acme = records.ask(lambda database: person(database, Subject("user_alice", "org_acme")))
    refused = tokens("create", "--user", "user_alice", "--name", "CI")
    made = document(tokens("create", "--user", "user_alice", "--name", "CI", "--organization", "org_acme", "--json"))

    assert refused.code == 1
    assert made["organizationId"] == at_acme.organization.id


def test_the_limit_of_a_user_holds_for_operators(tokens: Callable[..., Ran]) -> None:
    ran = [tokens("create", "--user", "user_alice", "--name", "CI") for _ in range(3)]

    assert [each.code for each in ran] == [0, 0, 1]
    assert "tokens.per_user" in ran[2].err


def test_tokens_are_listed_and_revoked(tokens: Callable[..., Ran], records: Records) -> None:
    first = document(tokens("create", "--user", "user_alice", "--name", "[red]CI[/red]", "--json"))
    second = document(tokens("create", "--user", "user_alice", "--name", "Build", "--json"))
    revoked = document(tokens("revoke", first["id"], "--json"))
    listed = document(tokens("list", "--user", "user_alice", "--json"))["items"]
    table = tokens("list", "--user", "user_alice")
    found = records.find(first["token"])

    assert [each["id"] for each in listed] == [second["id"], first["id"]]
    assert [each["revokedAt"] for each in listed] == [None, revoked["revokedAt"]]
    assert revoked["revokedAt"].endswith("Z")
    assert "token" not in listed[0]
    assert found is not None
    assert found.token.revoked_at is not None
    assert [line.split()[0] for line in table.out.splitlines()] == ["ID", second["id"], first["id"]]
    assert "[red]CI[/red]" in table.out
    assert second["token"][16:] not in table.out


def test_revoking_nothing_is_an_error_and_revoking_again_is_none(tokens: Callable[..., Ran]) -> None:
    made = document(tokens("create", "--user", "user_alice", "--name", "CI", "--json"))
    codes = [tokens("revoke", each).code for each in (made["id"], made["id"], "atk_nothing")]

    assert codes == [0, 0, 1]


def test_nobody_s_tokens_are_no_table(tokens: Callable[..., Ran]) -> None:
    ran = tokens("list", "--user", "user_alice")

    assert (ran.code, ran.out, ran.err) == (0, "", "no API tokens\n")


def test_a_system_token_comes_with_the_digest_that_the_settings_want(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ran = call(capsys, "tokens", "create", "--system", "--name", 'billing "x"')
    words = dict(line.split(": ") for line in ran.out.splitlines())
    entry = ran.err.splitlines()[-1]
    settings = load_settings(write(tmp_path, f"{VALID}{entry}\n"), {})

    assert parse_system_token(words["token"]) is not None
    assert words["sha256"] == hashlib.sha256(words["token"].encode()).hexdigest()
    assert settings.system_tokens[0].sha256 == (words["sha256"],)
    assert settings.system_tokens[0].name == 'billing "x"'


def test_a_system_token_can_be_read_by_programs(capsys: pytest.CaptureFixture[str]) -> None:
    made = document(call(capsys, "tokens", "create", "--system", "--name", "billing", "--json"))

    assert made["name"] == "billing"
    assert made["sha256"] == hashlib.sha256(made["token"].encode()).hexdigest()


def test_a_schema_that_is_behind_is_said_in_one_line(tokens: Callable[..., Ran], records: Records) -> None:
    records.ask(lambda database: execute(database, "ALTER TABLE api_tokens RENAME TO other"))
    ran = tokens("list", "--user", "user_alice")

    assert (ran.code, ran.err) == (1, "gateway tokens list: the schema is behind; run `gateway migrate`\n")


def test_a_database_that_is_away_is_said_without_its_password(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    url = "postgresql://gateway:hush-hush@127.0.0.1:1/gateway"
    config = write(tmp_path, VALID.replace("postgresql://gateway@127.0.0.1/gateway", url))
    ran = call(capsys, "tokens", "list", "--user", "user_alice", "-c", str(config))

    assert ran.code == 1
    assert "cannot be asked" in ran.err
    assert "hush" not in ran.err


def test_on_a_terminal_a_list_is_a_table_and_a_name_is_only_text(tokens: Callable[..., Ran], records: Records) -> None:
    made = document(tokens("create", "--user", "user_alice", "--name", "[red]CI", "--json"))
    ours, theirs = pty.openpty()
    environ = {name: text for name, text in os.environ.items() if not name.startswith("GW_")}
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "tokens", "list", "--user", "user_alice", "-c", str(records.config)],
        cwd=ROOT,
        env={**environ, "COLUMNS": "200", "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        timeout=DEADLINE_S,
        check=True,
    )
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)

    assert done.returncode == 0
    assert "┃" in shown
    assert made["id"] in shown
    assert "[red]CI" in shown
