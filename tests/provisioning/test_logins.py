"""Each session once, however many processes see it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from provisioning import logins as module
from provisioning.audit import Origin
from provisioning.database.pool import Connection, Database
from provisioning.errors import DatabaseUnavailable
from provisioning.logins import SEEN_AGAIN_S, Login, Logins
from provisioning.records import Standing, Subject
from tests.support.tokens import actions, count, events, execute, person


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Announced:
    """Writes down who was announced, inside the transaction."""

    def __init__(self) -> None:
        self.sessions: list[str] = []

    async def __call__(self, connection: Connection, logins: Sequence[Login]) -> None:
        await connection.execute("SELECT 1")
        self.sessions += [login.session_id for login in logins]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        await execute(opened, "CREATE TABLE announced (session_id text)")
        yield opened


@pytest.fixture
async def alice(database: Database) -> Standing:
    return await person(database)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def dropped() -> dict[str, int]:
    return {"login": 0, "access_denied": 0}


def login_of(
    standing: Standing, session_id: str = "sess_1", at: float = 1_800_000_000.0, by: str | None = None
) -> Login:
    origin = Origin("user", standing.user.id, by, "203.0.113.9", "agent/1", "request-1")
    return Login(session_id, standing.user, standing.organization.id, origin, at)


async def see(logins: Logins, login: Login) -> None:
    if logins.wants(login.session_id):
        logins.note(login)
    await logins.write()


async def test_a_login_is_on_record_with_where_it_came_from(database: Database, alice: Standing, clock: Clock) -> None:
    announced = Announced()
    await see(Logins(database, dropped(), announced, clock=clock), login_of(alice))
    event = (await events(database, alice.organization.id))[-1]

    assert (event["action"], event["actor_kind"], event["actor_id"]) == ("user.login", "user", alice.user.id)
    assert (event["address"], event["user_agent"], event["request_id"]) == ("203.0.113.9", "agent/1", "request-1")
    assert (event["targets"], event["metadata"]) == ([alice.user.id], {"sessionId": "sess_1"})
    assert event["occurred_at"] == datetime.fromtimestamp(1_800_000_000, UTC)
    assert announced.sessions == ["sess_1"]


async def test_a_session_in_use_is_one_login_and_one_look_at_a_table(
    database: Database, alice: Standing, clock: Clock
) -> None:
    announced = Announced()
    logins = Logins(database, dropped(), announced, clock=clock)
    for _ in range(5):
        await see(logins, login_of(alice))
    lent = database.connections_lent

    for _ in range(5):
        await see(logins, login_of(alice))

    assert database.connections_lent == lent
    assert announced.sessions == ["sess_1"]


async def test_many_processes_make_one_login_of_a_session(database: Database, alice: Standing, clock: Clock) -> None:
    announced = Announced()
    processes = [Logins(database, dropped(), announced, clock=clock) for _ in range(8)]
    for number, logins in enumerate(processes):
        for session in range(30):
            logins.note(login_of(alice, f"sess_{(session * 7 + number) % 30}"))

    new = await asyncio.gather(*(logins.write() for logins in processes))

    assert sum(new) == 30
    assert sorted(announced.sessions) == sorted(f"sess_{n}" for n in range(30))
    assert (await actions(database, alice.organization.id)).count("user.login") == 30


async def test_whoever_acts_as_a_person_is_on_record_and_no_login(
    database: Database, alice: Standing, clock: Clock
) -> None:
    announced = Announced()
    await see(Logins(database, dropped(), announced, clock=clock), login_of(alice, by="user_support"))
    event = (await events(database, alice.organization.id))[-1]

    assert (event["action"], event["impersonator_id"]) == ("user.impersonated", "user_support")
    assert announced.sessions == []


@pytest.mark.parametrize("by", ["postgresql", "a mistake"])
async def test_a_login_whose_announcement_fails_did_not_happen_and_holds_up_nobody(
    database: Database, alice: Standing, clock: Clock, by: str
) -> None:
    async def fail(connection: Connection, logins: Sequence[Login]) -> None:
        if logins[0].session_id == "sess_1":
            await connection.execute("SELECT 1 / 0" if by == "postgresql" else "SELECT 1")
            raise LookupError

    losses = dropped()
    logins = Logins(database, losses, fail, clock=clock)
    await see(logins, login_of(alice))
    kept = await count(database, "logins")
    await see(logins, login_of(alice, "sess_2"))

    assert (losses["login"], kept) == (1, 0)
    assert (await actions(database, alice.organization.id)).count("user.login") == 1


async def test_logins_wait_for_postgresql_and_come_once(database: Database, alice: Standing, clock: Clock) -> None:
    away = Logins(Database("postgresql://gateway@127.0.0.1:1/gateway"), dropped(), clock=clock)
    away.note(login_of(alice))
    with pytest.raises(DatabaseUnavailable):
        await away.write()
    away._database = database
    assert not away.wants("sess_1")

    assert await away.write() == 1
    assert await away.write() == 0


async def test_without_room_a_login_is_counted_and_wanted_again(
    database: Database, alice: Standing, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    losses = dropped()
    logins = Logins(database, losses, clock=clock)
    for number in range(5):
        logins.note(login_of(alice, f"sess_{number}"))

    assert losses["login"] == 2
    assert [logins.wants(f"sess_{number}") for number in range(5)] == [False, False, False, True, True]
    assert await logins.write() == 3


async def test_what_is_remembered_of_sessions_is_bounded(
    database: Database, alice: Standing, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_SEEN", 3)
    logins = Logins(database, dropped(), clock=clock)
    for number in range(5):
        logins.note(login_of(alice, f"sess_{number}"))

    assert [logins.wants(f"sess_{number}") for number in range(5)] == [True, True, False, False, False]


@pytest.mark.parametrize("session_id", ["", "x" * 256, "sess\0", "sess 1", "sess_\ud800"])
async def test_what_cannot_be_a_session_holds_up_nobody(
    database: Database, alice: Standing, clock: Clock, session_id: str
) -> None:
    logins = Logins(database, dropped(), clock=clock)
    logins.note(login_of(alice, session_id))
    logins.note(login_of(alice, "sess_good"))

    assert await logins.write() == 1


async def test_more_than_a_batch_is_written_in_several(database: Database, alice: Standing, clock: Clock) -> None:
    logins = Logins(database, dropped(), clock=clock)
    for number in range(250):
        logins.note(login_of(alice, f"sess_{number}"))

    assert await logins.write() == 250
    assert (await actions(database, alice.organization.id)).count("user.login") == 250


async def test_a_session_in_use_is_kept_and_one_that_is_over_goes(
    database: Database, alice: Standing, clock: Clock
) -> None:
    logins = Logins(database, dropped(), clock=clock)
    clock.now = (datetime.now(UTC) - timedelta(days=100)).timestamp()
    for session in ("sess_over", "sess_used"):
        await see(logins, login_of(alice, session, clock.now))
    clock.now += SEEN_AGAIN_S
    assert logins.wants("sess_used")
    clock.now = datetime.now(UTC).timestamp()
    await see(logins, login_of(alice, "sess_used", clock.now))

    assert await logins.reap() == 1
    assert await count(database, "logins WHERE session_id = 'sess_used'") == 1
    assert (await actions(database, alice.organization.id)).count("user.login") == 2


async def test_several_organizations_in_one_batch_each_get_their_own(database: Database, clock: Clock) -> None:
    people = [await person(database, Subject(f"user_{n}", f"org_{n}")) for n in range(5)]
    logins = Logins(database, dropped(), clock=clock)
    for number, standing in enumerate(people):
        logins.note(login_of(standing, f"sess_{number}"))
    await logins.write()

    for standing in people:
        assert (await actions(database, standing.organization.id)).count("user.login") == 1


async def test_logins_of_two_processes_with_each_others_sessions_do_not_lock_each_other_out(
    database: Database, clock: Clock
) -> None:
    people = [await person(database, Subject(f"user_{n}", f"org_{n}")) for n in range(10)]
    forward = [login_of(standing, f"sess_{n}") for n, standing in enumerate(people)]
    for _ in range(10):
        await execute(database, "DELETE FROM logins")
        losses = dropped()
        processes = [Logins(database, losses, clock=clock) for _ in range(6)]
        for number, logins in enumerate(processes):
            for login in forward if number % 2 else reversed(forward):
                logins.note(login)
        try:
            new = await asyncio.gather(*(logins.write() for logins in processes))
        except asyncpg.PostgresError as error:
            pytest.fail(str(error))

        assert (sum(new), losses["login"]) == (10, 0)
