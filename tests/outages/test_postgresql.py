"""O02: PostgreSQL away in every way. Known people pass, nobody else is let in or turned away, no half row is left."""

import asyncio
from typing import Any

import asyncpg
import pytest

from tests.support.api_tokens import made_token
from tests.support.fault_proxy import Fault
from tests.support.gateway import mint_token
from tests.support.outage_stage import ASKING, Stage, asks_to_come_back, outage_stage
from tests.support.websockets import handshake
from tests.support.wire import bearer

FAULTS = [Fault.LATENCY, Fault.BLACKHOLE, Fault.RESET, Fault.REFUSE, Fault.HALF, Fault.TRICKLE]
POOL = 10
HALF_ROWS = """
    SELECT (SELECT count(*) FROM users u WHERE NOT EXISTS (SELECT FROM memberships m WHERE m.user_id = u.id))
         + (SELECT count(*) FROM users u WHERE NOT EXISTS (SELECT FROM api_tokens t WHERE t.user_id = u.id))
         + (SELECT count(*) FROM organizations o
             WHERE NOT EXISTS (SELECT FROM memberships m WHERE m.organization_id = o.id))
"""


async def half_rows(database_url: str) -> int:
    """How many people and organizations lack what is written with them."""
    connection = await asyncpg.connect(database_url)
    try:
        return int(await connection.fetchval(HALF_ROWS))
    finally:
        await connection.close()


def session(person: str = "user_2alice", **claims: Any) -> str:
    """A session token that was not used yet."""
    return mint_token(sub=person, **claims)


@pytest.mark.parametrize("fault", FAULTS)
async def test_o02_known_callers_pass_others_are_asked_to_come_back_and_all_is_well_after(
    database_url: str, redis_url: str, fault: Fault
) -> None:
    async with outage_stage(database_url, redis_url, **ASKING) as stage:
        known, unknown = [(await made_token(stage.gateway, session()))["token"] for _ in range(2)]
        assert (await stage.ask(known)).status == 200
        await stage.postgresql.set(fault, latency_s=5)

        served = await stage.ask_all([session(jti="1"), session(jti="2"), known])
        refused = await stage.ask_all([session("user_2new"), unknown, *(session(f"user_2n{n}") for n in range(20))])
        optional = await stage.ask(session("user_2new"), "/optional/x")
        socket = await stage.gateway.ask(handshake("/ws/x", bearer(session("user_2new"))))
        served += await stage.ask_all([session(jti="3"), known])
        let_in = {received.one("x-actor-id") for received in stage.gateway.upstream.received}

        assert [reply.status for reply in served] == [200] * 5
        assert await stage.gateway.metric("gateway_breaker_trips_total", dependency="postgresql") == 1
        assert all(asks_to_come_back(reply) for reply in (*refused, optional, socket))
        assert len(let_in) == 1  # nobody went up as somebody else, or as nobody

        await stage.postgresql.set(Fault.NONE)
        await stage.until(200, session("user_2new"))
        await stage.until(200, unknown)

        assert await half_rows(database_url) == 0


@pytest.mark.parametrize("fault", [Fault.BLACKHOLE, Fault.REFUSE, Fault.RESET])
async def test_o02_what_comes_back_meets_no_herd(database_url: str, redis_url: str, fault: Fault) -> None:
    async with outage_stage(database_url, redis_url, **ASKING) as stage:
        people = [session(f"user_2p{number}") for number in range(40)]
        await asyncio.gather(*(stage.until(200, token) for token in people))
        await stage.postgresql.set(fault)
        await stage.ask_all(people)
        away = stage.postgresql.connections
        await stage.ask_all(people * 3)
        probes = stage.postgresql.connections - away

        await stage.postgresql.set(Fault.NONE)
        connections, statements = stage.postgresql.connections, stage.database.statements
        await stage.until(200, session("user_2new"))
        rounds = [await stage.ask_all(people) for _ in range(5)]
        connections = stage.postgresql.connections - connections
        statements = stage.database.statements - statements

        assert {reply.status for replies in rounds for reply in replies} == {200}
        # While it is away, one try at a time, and few of them; afterwards a pool's worth, its watches beside.
        assert probes <= 5
        assert connections <= 2 * POOL
        assert statements <= 2 * 5 * len(people) + 50


async def test_answers_that_come_when_nobody_waits_any_more_are_nobodys(database_url: str, redis_url: str) -> None:
    """What a blackhole held back arrives on connections that were in use: it must not answer the next question."""
    async with outage_stage(database_url, redis_url, **ASKING) as stage:
        people = {f"user_2p{number}": session(f"user_2p{number}") for number in range(20)}
        ids = {}
        for person, token in people.items():
            assert (await stage.ask(token)).status == 200
            ids[person] = stage.gateway.upstream.last.one("x-actor-id")
        for _ in range(3):
            await stage.postgresql.set(Fault.BLACKHOLE)
            asking = asyncio.create_task(stage.ask_all(list(people.values())))
            await asyncio.sleep(0.1)
            await stage.postgresql.set(Fault.NONE)
            await asking
            for person, token in people.items():
                own = await stage.ask(token, "/users/current")

                assert (own.status, own.json()["id"], own.json()["clerkId"]) == (200, ids[person], person)


async def test_first_sight_over_a_slow_line_is_waited_for_and_whole(database_url: str, redis_url: str) -> None:
    async with outage_stage(database_url, redis_url, **ASKING) as stage:
        await stage.ask(session())
        await stage.postgresql.set(Fault.LATENCY, latency_s=0.2)

        first = await stage.ask(session("user_2new"))

        assert first.status == 200  # a dozen statements, none of them late by itself
        assert await half_rows(database_url) == 0


async def known_by(stage: Stage, count: int) -> list[str]:
    """So many people who were seen."""
    tokens = [session(f"user_2p{number}") for number in range(count)]
    await asyncio.gather(*(stage.until(200, token) for token in tokens))
    return tokens


async def test_o02_beyond_stale_if_error_nobody_is_believed(database_url: str, redis_url: str) -> None:
    settings = ASKING | {"cache": ASKING["cache"] | {"stale_if_error": "200ms"}}
    async with outage_stage(database_url, redis_url, **settings) as stage:
        people = await known_by(stage, 5)
        await stage.postgresql.set(Fault.BLACKHOLE)
        refused = await stage.until(503, people[0])
        others = await stage.ask_all(people)

        assert all(asks_to_come_back(reply) for reply in (refused, *others))
