"""Clerk's Backend API away in every way: people come in without their names, opaque machine tokens come back."""

import asyncio

import asyncpg
import pytest

from tests.support.clerk_machines import USER
from tests.support.fault_proxy import Fault
from tests.support.gateway import mint_token
from tests.support.outage_stage import ASKING, asks_to_come_back, outage_stage

FAULTS = [Fault.LATENCY, Fault.BLACKHOLE, Fault.RESET, Fault.REFUSE, Fault.HALF, Fault.TRICKLE]
FORGETTING_NO_CLERK = ASKING | {"cache": {"near_ttl": "10s", "degraded_ttl": "1ms"}}


async def names(database_url: str) -> dict[str, str | None]:
    """What people are called."""
    connection = await asyncpg.connect(database_url)
    try:
        return {row["clerk_id"]: row["name"] for row in await connection.fetch("SELECT clerk_id, name FROM users")}
    finally:
        await connection.close()


@pytest.mark.parametrize("fault", FAULTS)
async def test_first_sight_goes_on_without_names_which_follow_when_clerk_is_back(
    database_url: str, redis_url: str, fault: Fault
) -> None:
    async with outage_stage(database_url, redis_url, **ASKING) as stage:
        people = [f"user_2p{number}" for number in range(10)]
        for person in people:
            stage.backend.add_user(person, name=("Ada", person))
        await stage.clerk.set(fault, latency_s=5)

        replies = [await stage.ask(mint_token(sub=person)) for person in people]
        nameless = await names(database_url)
        tried = len(people) - await stage.gateway.metric("gateway_clerk_api_requests_total", outcome="breaker_open")
        await stage.clerk.set(Fault.NONE)
        async with asyncio.timeout(60):
            while None in (await names(database_url)).values():  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.1)

        assert {reply.status for reply in replies} == {200}
        assert set(nameless.values()) == {None}
        assert tried < len(people)  # who came later did not wait for an answer that nobody got
        assert (await names(database_url))[people[0]] == f"Ada {people[0]}"


@pytest.mark.parametrize("fault", FAULTS)
async def test_machine_tokens_that_are_believed_pass_and_others_come_back_until_clerk_does(
    database_url: str, redis_url: str, fault: Fault
) -> None:
    async with outage_stage(database_url, redis_url, **FORGETTING_NO_CLERK) as stage:
        known, *unknown = [stage.backend.machines.api_key(USER) for _ in range(30)]
        assert (await stage.ask(known, "/machines/x")).status == 200
        await stage.clerk.set(fault, latency_s=5)
        asked = len(stage.backend.machines.asked)

        refused = await stage.ask_all(unknown, "/machines/x")
        more = [await stage.ask(token, "/machines/x") for token in unknown]
        served = await stage.ask(known, "/machines/x")

        assert all(asks_to_come_back(reply) for reply in (*refused, *more))
        assert served.status == 200

        await stage.clerk.set(Fault.NONE)
        await stage.until(200, unknown[0], "/machines/x")
        junk = await stage.ask("ak_of_nobody_whatever", "/machines/x")
        questions = len(stage.backend.machines.asked) - asked

        assert junk.status == 401
        assert questions <= len(unknown) + 10
