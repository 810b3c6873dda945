"""Refusals of administrators' routes: on record, and a flood of them is not."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from provisioning import denials as module
from provisioning.audit import Origin
from provisioning.database.pool import Database
from provisioning.denials import WINDOW_S, Denial, Denials
from provisioning.errors import DatabaseUnavailable
from tests.support.tokens import events


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


def losses() -> dict[str, int]:
    return {"login": 0, "access_denied": 0}


def denial(actor: str = "usr_1", route: str = "/admin/**", organization: str | None = "org_a") -> Denial:
    return Denial(Origin("user", actor, None, "203.0.113.9"), organization, route, "GET", "role_not_allowed")


async def told(database: Database, chain: str = "org_a") -> list[tuple[str, int]]:
    kept: list[dict[str, Any]] = await events(database, chain)
    assert {event["action"] for event in kept} <= {"admin.access_denied"}
    return [(event["actor_id"], event["metadata"]["times"]) for event in kept]


async def test_a_refusal_is_on_record_with_route_method_and_reason(database: Database, clock: Clock) -> None:
    denials = Denials(database, losses(), clock=clock)
    denials.note(denial())
    await denials.write()
    (event,) = await events(database, "org_a")

    assert (event["actor_kind"], event["actor_id"], event["address"]) == ("user", "usr_1", "203.0.113.9")
    assert event["metadata"] == {
        "route": "/admin/**",
        "method": "GET",
        "reason": "role_not_allowed",
        "times": 1,
        "since": "2027-01-15T08:00:00.000+00:00",
    }


async def test_a_flood_of_one_actor_on_one_route_is_two_events_a_minute(database: Database, clock: Clock) -> None:
    denials = Denials(database, losses(), clock=clock)
    for _ in range(3):
        for _ in range(1000):
            denials.note(denial())
            await denials.write()
        clock.now += WINDOW_S
    await denials.write()

    assert await told(database) == [("usr_1", 1), ("usr_1", 999)] * 3


async def test_a_minute_is_told_when_it_is_over_though_nobody_comes_again(database: Database, clock: Clock) -> None:
    denials = Denials(database, losses(), clock=clock)
    for _ in range(3):
        denials.note(denial())
    await denials.write()
    before = await told(database)
    clock.now += WINDOW_S
    await denials.write()

    assert before == [("usr_1", 1)]
    assert await told(database) == [("usr_1", 1), ("usr_1", 2)]


async def test_at_the_end_of_a_process_what_was_counted_is_told(database: Database, clock: Clock) -> None:
    denials = Denials(database, losses(), clock=clock)
    for _ in range(3):
        denials.note(denial())
    await denials.write(ending=True)

    assert await told(database) == [("usr_1", 1), ("usr_1", 2)]


async def test_other_actors_routes_and_organizations_are_told_apart(database: Database, clock: Clock) -> None:
    denials = Denials(database, losses(), clock=clock)
    for one in (
        denial(),
        denial("usr_2"),
        denial(route="/admin/users"),
        denial(organization="org_b"),
        denial(organization=None),
    ):
        denials.note(one)
    await denials.write()

    assert await told(database) == [("usr_1", 1), ("usr_2", 1), ("usr_1", 1)]
    assert len(await told(database, "org_b")) == len(await told(database, "gateway")) == 1


async def test_memory_is_bounded_and_losses_are_counted(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WINDOWS", 5)
    monkeypatch.setattr(module, "MOST_WAITING", 4)
    counted = losses()
    denials = Denials(database, counted, clock=clock)
    for number in range(8):
        denials.note(denial(f"usr_{number}"))

    assert counted["access_denied"] == 4
    assert await denials.write() == 4


async def test_refusals_wait_for_postgresql(database: Database, clock: Clock) -> None:
    denials = Denials(Database("postgresql://gateway@127.0.0.1:1/gateway"), losses(), clock=clock)
    denials.note(denial())
    with pytest.raises(DatabaseUnavailable):
        await denials.write()
    denials._database = database

    assert await denials.write() == 1
