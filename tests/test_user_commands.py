"""`gateway users`, against a real PostgreSQL."""

from collections.abc import Callable
from pathlib import Path

import pytest

from provisioning.audit import GATEWAY_CHAIN
from provisioning.records import Subject
from tests.support.tokens import events, execute, person, session_of, tokens_over
from tests.test_cli import Ran, call
from tests.test_token_commands import Records, document

COLUMNS = ["ID", "CLERK", "ID", "NAME", "E-MAIL", "ROLE", "STATE", "SINCE"]


@pytest.fixture
def records(database_url: str, tmp_path: Path) -> Records:
    made = Records(database_url, tmp_path)
    made.ask(lambda database: execute(database, "UPDATE users SET email = 'Alice@example.com'"))
    return made


@pytest.fixture
def users(records: Records, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run `gateway users …` with the settings of the records."""
    return lambda *words: call(capsys, "users", *words, "-c", str(records.config))


def test_a_person_is_shown_by_any_of_their_names(users: Callable[..., Ran], records: Records) -> None:
    made = records.ask(lambda database: tokens_over(database).create(session_of(records.alice), "CI", []))
    names = (records.alice.user.id, "user_alice", "alice@EXAMPLE.com", made.token.id, made.token.public_id)

    shown = [document(users("show", name, "--json")) for name in names]
    text = users("show", "user_alice").out

    assert {one["id"] for one in shown} == {records.alice.user.id}
    assert shown[0]["organizations"] == [
        {"id": records.alice.organization.id, "clerkId": None, "name": "Alice", "role": "admin"}
    ]
    assert f"id: {records.alice.user.id}\n" in text
    assert f"organization: {records.alice.organization.id} admin Alice\n" in text


def test_an_address_of_several_people_names_nobody(users: Callable[..., Ran], records: Records) -> None:
    bob = records.ask(lambda database: person(database, Subject("user_bob", email="ALICE@example.com")))
    records.ask(lambda database: execute(database, "UPDATE users SET email = 'alice@example.com'"))

    ran = users("disable", "alice@example.com")

    assert ran.code == 1
    assert bob.user.id in ran.err
    assert records.alice.user.id in ran.err
    assert document(users("show", "user_alice", "--json"))["disabledAt"] is None


def test_a_role_is_given_and_on_record_with_the_operator(users: Callable[..., Ran], records: Records) -> None:
    given = users("set-role", "user_alice", "ADMIN")
    taken = document(users("set-role", "user_alice", "USER", "--json"))

    told = records.ask(lambda database: events(database, GATEWAY_CHAIN))
    assert (given.code, given.out) == (0, f"{records.alice.user.id} ADMIN active\n")
    assert taken["role"] == "USER"
    assert [(event["action"], event["actor_kind"]) for event in told] == [("user.role_changed", "operator")] * 2


def test_a_person_is_signed_out_everywhere_and_on_record(users: Callable[..., Ran], records: Records) -> None:
    records.ask(lambda database: tokens_over(database).create(session_of(records.alice), "CI", []))

    sessions_alone = users("sign-out", "user_alice")
    tokens_too = document(users("sign-out", "user_alice", "--api-tokens", "--json"))

    told = records.ask(lambda database: events(database, GATEWAY_CHAIN))
    said = f"{records.alice.user.id} signed out: 0 sessions, 0 API tokens; at Clerk: unmanaged\n"
    assert (sessions_alone.code, sessions_alone.out) == (0, said)
    assert (tokens_too["id"], tokens_too["sessions"], tokens_too["apiTokens"]) == (records.alice.user.id, 0, 1)
    assert [(event["action"], event["actor_kind"]) for event in told] == [("user.signed_out", "operator")] * 2


def test_a_person_is_disabled_and_enabled(users: Callable[..., Ran], records: Records) -> None:
    disabled, enabled = users("disable", "user_alice"), users("enable", "user_alice")

    assert disabled.out == f"{records.alice.user.id} USER disabled\n"
    assert enabled.out == f"{records.alice.user.id} USER active\n"


def test_a_ban_is_shown_and_outlives_being_enabled(users: Callable[..., Ran], records: Records) -> None:
    records.ask(lambda database: execute(database, "UPDATE users SET banned_at = '2026-11-23T04:00:05Z'"))

    disabled, enabled = users("disable", "user_alice"), users("enable", "user_alice")

    assert disabled.out == f"{records.alice.user.id} USER disabled\n"
    assert enabled.out == f"{records.alice.user.id} USER banned\n"
    assert users("list").out.splitlines()[1].split()[-2] == "banned"
    assert document(users("show", "user_alice", "--json"))["bannedAt"] == "2026-11-23T04:00:05.000Z"


def test_people_are_listed_and_found(users: Callable[..., Ran], records: Records) -> None:
    bob = records.ask(lambda database: person(database, Subject("user_bob")))
    table = users("list").out.splitlines()
    found = document(users("list", "--search", "alice@", "--json"))["items"]
    first = users("list", "--limit", "1")

    assert table[0].split() == COLUMNS
    assert [line.split()[0] for line in table[1:]] == [bob.user.id, records.alice.user.id]
    assert [one["id"] for one in found] == [records.alice.user.id]
    assert len(first.out.splitlines()) == 2
    assert "--limit" in first.err


def test_nobody_is_no_table(users: Callable[..., Ran]) -> None:
    ran = users("list", "--search", "user_nobody")

    assert (ran.code, ran.out, ran.err) == (0, "", "no users\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "user_nobody"), "no such user"),
        (("show", "\udcff"), "no such user"),
        (("set-role", "user_nobody", "ADMIN"), "no such user"),
        (("enable", "user_tomb"), "was deleted"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    users: Callable[..., Ran], records: Records, words: tuple[str, ...], said: str
) -> None:
    records.ask(lambda database: person(database, Subject("user_tomb")))
    records.ask(lambda database: execute(database, "UPDATE users SET deleted_at = now() WHERE clerk_id = 'user_tomb'"))
    ran = users(*words)

    assert ran.code == 1
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_schema_that_is_behind_is_said_in_one_line(users: Callable[..., Ran], records: Records) -> None:
    records.ask(lambda database: execute(database, "ALTER TABLE users DROP COLUMN role_set_at"))
    ran = users("set-role", "user_alice", "ADMIN")

    assert (ran.code, ran.err) == (1, "gateway users set-role: the schema is behind; run `gateway migrate`\n")
