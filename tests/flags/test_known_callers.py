"""Flags of callers in the near cache: evaluated once per caller and generation, and at no cost for others."""

import sys
from collections.abc import AsyncIterator, Mapping

import pytest

from config.model import DeclaredFlag
from gateway.actors.beliefs import Caller
from gateway.credentials.kinds import Credential
from gateway.flags.provider import Facts, Json
from gateway.flags.telling import FlagTeller, NoProvider
from gateway.identity.assertion import Assertions
from provisioning.database.pool import Database
from tests.actors.test_renewal import Stage, staged
from tests.identity.test_assertion import token_of
from tests.support.rings import Clock, ring_over, started

DECLARED = {
    "limit": DeclaredFlag(type="integer", default=10),
    "panel": DeclaredFlag(type="boolean", default=True, when_role="ADMIN", expose=("headers", "client")),
    "theme": DeclaredFlag(type="string", default="light", expose=("client",)),
}


class Definitions(NoProvider):
    """What a source says of everybody; counts for whom it was evaluated."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, Json] = {"limit": 1}
        self.asked: list[str] = []

    def evaluate(self, facts: Facts) -> Mapping[str, Json]:
        self.asked.append(facts.user_id)
        return self.values

    def change(self, **values: Json) -> None:
        self.values = {**self.values, **values}
        self.generation += 1


@pytest.fixture
def source() -> Definitions:
    return Definitions()


@pytest.fixture
async def stage(database_url: str, source: Definitions) -> AsyncIterator[Stage]:
    async with staged(database_url, FlagTeller(DECLARED, source, 100)) as made:
        yield made


def caller(stage: Stage, credential: Credential) -> Caller:
    found = stage.callers.known(credential.digest)
    assert found is not None
    return found


def line_of(found: Caller) -> bytes:
    (line,) = [line for line in found.identity.split(b"\r\n") if line.startswith(b"X-Feature-Flags:")]
    return line


async def test_a_known_caller_is_told_of_new_definitions_without_being_asked_for_anew(
    stage: Stage, source: Definitions
) -> None:
    credentials = await stage.meet("user_a", "user_b")
    questions, misses = stage.first_sight.alone, stage.callers.look_ups.misses
    assert [line_of(caller(stage, one)) for one in credentials] == [b"X-Feature-Flags: limit=1"] * 2

    source.change(limit=2)
    for _ in range(50):
        assert [line_of(caller(stage, one)) for one in credentials] == [b"X-Feature-Flags: limit=2"] * 2

    assert len(source.asked) == 2 * 2
    assert stage.first_sight.alone == questions
    assert stage.callers.look_ups.misses == misses


async def test_a_caller_whose_flags_came_out_the_same_keeps_all_that_was_prepared(
    stage: Stage, source: Definitions
) -> None:
    (credential,) = await stage.meet("user_a")
    before = caller(stage, credential)

    source.change(of_nobody_here=True)

    assert caller(stage, credential) is before
    assert before.told.generation == source.generation


async def test_a_persons_next_session_token_costs_no_evaluation(stage: Stage, source: Definitions) -> None:
    await stage.meet("user_a")
    stage.elapsed_s = 1
    await stage.meet("user_a")

    assert len(source.asked) == 1


async def test_unchanged_definitions_cost_known_callers_nothing(stage: Stage, source: Definitions) -> None:
    (credential,) = await stage.meet("user_a")
    known, digest = stage.callers.known, credential.digest
    for _ in range(100):
        known(digest)
    blocks = sys.getallocatedblocks()

    for _ in range(10_000):
        known(digest)

    assert len(source.asked) == 1
    assert abs(sys.getallocatedblocks() - blocks) < 100


async def test_the_assertion_of_a_known_caller_follows_the_definitions(
    stage: Stage, source: Definitions, database_url: str
) -> None:
    clock = Clock()
    async with Database(database_url, acquire_timeout=60) as database, started(ring_over(database, clock)) as ring:
        assertions = Assertions(ring, {"app"}, 100, clock=clock)
        (credential,) = await stage.meet("user_a")

        def flags() -> object:
            line = assertions.line(caller(stage, credential), "app")
            return ring.verify(token_of(line), audience="app")["flags"]

        first = assertions.line(caller(stage, credential), "app")
        assert assertions.line(caller(stage, credential), "app") is first
        assert flags() == {"limit": 1}
        source.change(limit=2)
        assert flags() == {"limit": 2}


async def test_flags_that_find_no_room_take_no_identity_with_them(
    stage: Stage, source: Definitions, database_url: str
) -> None:
    source.change(limit=5)
    large = {f"flag-{number}": DeclaredFlag(type="string", default="x" * 1000) for number in range(9)}
    clock = Clock()
    async with (
        staged(database_url, FlagTeller(large, source, 100)) as stage,
        Database(database_url, acquire_timeout=60) as database,
        started(ring_over(database, clock)) as ring,
    ):
        (credential,) = await stage.meet("user_a")
        found = caller(stage, credential)

        claims = ring.verify(token_of(Assertions(ring, {"app"}, 100, clock=clock).line(found, "app")), audience="app")

    assert (claims["sub"], claims["flags"]) == (found.actor.user_id, {})
    assert len(line_of(found)) < 4200


@pytest.mark.parametrize("says", [False, True, "yes", None])
async def test_o03_a_right_never_comes_from_a_source_nor_goes_by_it(
    stage: Stage, source: Definitions, says: Json
) -> None:
    source.change(panel=says)
    user, admin = await stage.meet("user_a", "user_b")
    await stage.write("UPDATE users SET role = 'ADMIN' WHERE clerk_id = 'user_b'")
    found = caller(stage, admin)
    stage.callers.forget(found.actor.user_id, "user_b")
    await stage.meet("user_b")

    assert line_of(caller(stage, user)) == b"X-Feature-Flags: limit=1"
    assert "panel" not in caller(stage, user).told.client
    assert line_of(caller(stage, admin)) == b"X-Feature-Flags: limit=1, panel"
    assert caller(stage, admin).told.client == {"panel": True, "theme": "light"}
