"""`gateway flags`, against a real PostgreSQL and real sources."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provisioning.records import Subject
from tests.support.fake_posthog import PROJECT_KEY, SECRET_KEY, fake_posthog
from tests.support.tokens import execute, person
from tests.test_cli import Ran, call
from tests.test_token_commands import Records, document

DECLARED = {
    "editor": {"type": "string", "default": "old", "expose": ["headers", "client"]},
    "limit": {"type": "integer", "default": 10},
    "panel": {"type": "boolean", "default": True, "when_role": "ADMIN", "expose": ["client"]},
}
DEFINITIONS = {
    "flags": {
        "editor": {
            "state": "ENABLED",
            "variants": {"new": "new", "old": "old"},
            "defaultVariant": "old",
            "targeting": {"if": [{"ends_with": [{"var": "email"}, "@ours.test"]}, "new", None]},
        }
    }
}


@pytest.fixture
def records(database_url: str, tmp_path: Path) -> Records:
    made = Records(database_url, tmp_path)
    made.ask(lambda database: execute(database, "UPDATE users SET email = 'alice@ours.test'"))
    return made


@pytest.fixture
def definitions(tmp_path: Path) -> Path:
    path = tmp_path / "flags.json"
    path.write_text(json.dumps(DEFINITIONS, indent=1))
    return path


@pytest.fixture
def evaluate(records: Records, definitions: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run `gateway flags evaluate …` with the settings of the records."""

    def run(*words: str, flags: dict[str, Any] | None = None, **sections: Any) -> Ran:
        given = {"flags": flags or {"provider": "file", "file": str(definitions), "declare": DECLARED}, **sections}
        config = records.config.with_name("with-flags.yaml")
        lines = [f"{section}: {json.dumps(value)}\n" for section, value in given.items()]  # JSON is YAML
        config.write_text(records.config.read_text() + "".join(lines))
        return call(capsys, "flags", "evaluate", *words, "-c", str(config))

    return run


def test_the_flags_of_a_user_are_shown_with_whom_they_are_told(evaluate: Callable[..., Ran]) -> None:
    ran = evaluate("--user", "user_alice")

    assert ran.code == 0
    assert [line.split() for line in ran.out.splitlines()] == [
        ["FLAG", "VALUE", "TOLD"],
        ["editor", '"new"', "headers", "client"],
        ["limit", "10", "headers"],
        ["panel", "-", "-"],
    ]


def test_a_program_reads_exactly_what_upstream_and_client_would(evaluate: Callable[..., Ran], records: Records) -> None:
    records.ask(lambda database: execute(database, "UPDATE users SET role = 'ADMIN'"))
    alice = records.alice

    ran = evaluate("--user", alice.user.id, "--org", alice.organization.id, "--json")

    assert ran.err == ""
    assert document(ran) == {
        "user": alice.user.id,
        "organization": alice.organization.id,
        "header": 'editor="new", limit=10',
        "upstream": {"editor": "new", "limit": 10},
        "client": {"editor": "new", "panel": True},
    }


def test_a_user_of_several_organizations_needs_one_named(evaluate: Callable[..., Ran], records: Records) -> None:
    subject = Subject("user_alice", "org_2abc", "acme", "member", issued_at=2_000_000_000.0)
    other = records.ask(lambda database: person(database, subject))

    unnamed = evaluate("--user", "user_alice")
    by_either = [
        evaluate("--user", "user_alice", "--org", one, "--json") for one in (other.organization.id, "org_2abc")
    ]

    assert (unnamed.code, unnamed.out) == (1, "")
    assert "name one with --organization" in unnamed.err
    assert other.organization.id in unnamed.err
    assert [document(ran)["organization"] for ran in by_either] == [other.organization.id] * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--user", "user_2nobody"), "there is no such user"),
        (("--user", "user_alice", "--org", "org_2none"), "does not belong to org_2none"),
    ],
)
def test_who_does_not_exist_is_told(evaluate: Callable[..., Ran], words: tuple[str, ...], message: str) -> None:
    ran = evaluate(*words)

    assert (ran.code, ran.out) == (1, "")
    assert message in ran.err


def test_definitions_that_do_not_fit_are_told_with_their_line(evaluate: Callable[..., Ran], definitions: Path) -> None:
    definitions.write_text(definitions.read_text().replace("ENABLED", "ON"))

    ran = evaluate("--user", "user_alice", "--json")

    assert (ran.code, ran.out) == (1, "")
    assert f"{definitions}:4: flags.editor.state: must be ENABLED or DISABLED" in ran.err


def test_without_declared_flags_there_is_nothing_to_evaluate(evaluate: Callable[..., Ran]) -> None:
    ran = evaluate("--user", "user_alice", flags={"declare": {}})

    assert (ran.code, ran.out, ran.err) == (1, "", "no flags are declared\n")


def test_a_source_that_is_away_gives_defaults_and_says_so(evaluate: Callable[..., Ran]) -> None:
    posthog = {"host": "http://127.0.0.1:1", "project_key": PROJECT_KEY, "secret_key": SECRET_KEY}

    ran = evaluate(
        "--user", "user_alice", "--json", flags={"provider": "posthog", "declare": DECLARED}, posthog=posthog
    )

    assert ran.code == 0
    assert document(ran)["upstream"] == {"editor": "old", "limit": 10}
    assert "definitions cannot be had" in ran.err
    assert SECRET_KEY not in ran.err


def test_posthogs_flags_are_evaluated_too(records: Records, evaluate: Callable[..., Ran]) -> None:
    async def with_posthog() -> Ran:
        async with fake_posthog() as fake:
            filters = {"groups": [{"properties": [], "rollout_percentage": 100}]}
            variants = [{"key": "new", "rollout_percentage": 100}]
            fake.flags = [
                {
                    "id": 1,
                    "key": "editor",
                    "active": True,
                    "filters": {**filters, "multivariate": {"variants": variants}},
                }
            ]
            posthog = {"host": fake.url, "project_key": PROJECT_KEY, "secret_key": SECRET_KEY}
            flags = {"provider": "posthog", "declare": DECLARED}
            return await asyncio.to_thread(
                evaluate, "--user", records.alice.user.id, "--json", flags=flags, posthog=posthog
            )

    assert document(asyncio.run(with_posthog()))["upstream"] == {"editor": "new", "limit": 10}
