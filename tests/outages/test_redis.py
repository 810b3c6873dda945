"""O01 and K01: Redis away, hanging, loading, a replica, slow; with PostgreSQL there, and with both away."""

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.api_tokens import made_token
from tests.support.fault_proxy import Fault
from tests.support.gateway import mint_token
from tests.support.load import load_on
from tests.support.minted import websocket_token
from tests.support.outage_stage import ASKING, DEADLINE_S, Stage, asks_to_come_back, outage_stage
from tests.support.redis_server import RedisServer, redis_that_is_a_replica, redis_that_is_full
from tests.support.websockets import frame, handshake, switching, then_echo
from tests.support.wire import Reply, bearer

SINGLE_USE: dict[str, Any] = ASKING | {"websocket": {"single_use": True}}
FAULTS = [
    Fault.REFUSE,
    Fault.RESET,
    Fault.BLACKHOLE,
    Fault.LOADING,
    Fault.LATENCY,
    Fault.HALF,
    Fault.TRICKLE,
]
KIDS = 10_000


@pytest.fixture
async def stage(database_url: str, redis_url: str) -> AsyncIterator[Stage]:
    async with outage_stage(database_url, redis_url, **SINGLE_USE) as running:
        yield running


async def tokens_of(stage: Stage, count: int) -> list[str]:
    """API tokens that were not used yet."""
    return [(await made_token(stage.gateway))["token"] for _ in range(count)]


async def opened(stage: Stage, token: str) -> Reply:
    """Try to open a websocket with a token of single use; the connection ends at once."""
    async with stage.gateway.wire() as wire:
        return await wire.ask(handshake(f"/ws/x?token={token}"))


async def check_that_redis_decides_nothing(stage: Stage, tokens: list[str]) -> None:
    """Sessions and API tokens pass, people are made, bad credentials are bad; single use alone cannot be told."""
    tried = await opened(stage, await websocket_token(stage.gateway))
    good = await stage.ask_all([*tokens, *(mint_token(jti=str(n)) for n in range(20)), mint_token(sub="user_2new")])
    bad = await stage.ask_all([mint_token(key="forger"), tokens[0][:-1] + ("0" if tokens[0][-1] != "0" else "1")])

    assert {reply.status for reply in good} == {200}
    assert {reply.status for reply in bad} == {401}
    assert asks_to_come_back(tried)


async def check_that_it_is_used_again(stage: Stage) -> None:
    """Websocket tokens open websockets again, each of them once; until then they are asked to come back."""
    stage.gateway.upstream.respond = then_echo(switching(rest=frame(1, b"hello")))
    async with asyncio.timeout(DEADLINE_S):
        for number in range(10_000):
            token = await websocket_token(stage.gateway, sid=f"sess_2again{number}")
            reply = await opened(stage, token)
            if reply.status == 101:
                break
            assert asks_to_come_back(reply)
            await asyncio.sleep(0.05)

    assert (await opened(stage, token)).status == 401


@pytest.mark.parametrize("fault", FAULTS)
async def test_o01_sessions_and_api_tokens_pass_while_redis_does_not_serve(stage: Stage, fault: Fault) -> None:
    tokens = await tokens_of(stage, 5)
    await stage.redis.set(fault, latency_s=5)

    await check_that_redis_decides_nothing(stage, tokens)

    await stage.redis.set(Fault.NONE)
    await check_that_it_is_used_again(stage)


@pytest.mark.parametrize("refuses", [redis_that_is_a_replica, redis_that_is_full])
async def test_o01_a_redis_that_takes_no_writes_changes_nothing_either(
    stage: Stage, redis_server: RedisServer, refuses: Callable[[RedisServer], AbstractContextManager[None]]
) -> None:
    tokens = await tokens_of(stage, 5)
    with refuses(redis_server):
        await check_that_redis_decides_nothing(stage, tokens)
    await check_that_it_is_used_again(stage)


@pytest.mark.parametrize("fault", [Fault.BLACKHOLE, Fault.REFUSE])
async def test_o01_with_both_stores_away_known_callers_pass_and_others_come_back(stage: Stage, fault: Fault) -> None:
    known, unknown = await tokens_of(stage, 2)
    assert (await stage.ask(known)).status == 200
    await stage.redis.set(fault)
    await stage.postgresql.set(fault)

    served = await stage.ask_all([known, mint_token(jti="1")])
    refused = await stage.ask_all([unknown, mint_token(sub="user_2new")])
    people = {received.one("x-actor-id") for received in stage.gateway.upstream.received}

    assert [reply.status for reply in served] == [200, 200]
    assert all(asks_to_come_back(reply) for reply in refused)
    assert len(people) == 1

    await stage.redis.set(Fault.NONE)
    await stage.postgresql.set(Fault.NONE)
    await stage.until(200, unknown)
    await stage.until(200, mint_token(sub="user_2new"))


@pytest.mark.parametrize("fault", [Fault.BLACKHOLE, Fault.REFUSE, Fault.RESET])
async def test_o01_while_redis_is_away_few_try_and_afterwards_there_is_no_herd(stage: Stage, fault: Fault) -> None:
    ws_tokens = [await websocket_token(stage.gateway, sid=f"sess_2{n}") for n in range(60)]
    await stage.redis.set(fault)
    await asyncio.gather(*(opened(stage, token) for token in ws_tokens[:20]))
    before = stage.redis.connections
    replies = await asyncio.gather(*(opened(stage, token) for token in ws_tokens[20:40]))
    during = stage.redis.connections - before

    await stage.redis.set(Fault.NONE)
    before = stage.redis.connections
    await check_that_it_is_used_again(stage)
    after = stage.redis.connections - before
    again = await asyncio.gather(*(opened(stage, token) for token in ws_tokens[40:]))

    assert all(asks_to_come_back(reply) for reply in replies)
    assert during <= 8  # probes alone, each with one more try, and the subscription's own
    assert after <= 8  # who finds it back is one; and the subscription
    assert {reply.status for reply in again} == {101}


async def test_redis_killed_and_started_again_under_load_costs_nobody_an_answer(
    database_url: str, tmp_path: Path
) -> None:
    server = RedisServer(tmp_path)
    server.start()
    try:
        async with outage_stage(database_url, server.url, **SINGLE_USE) as stage:
            tokens = await tokens_of(stage, 1)
            port = stage.gateway.port
            few: dict[str, Any] = {"keeping": 4, "dialling": 4}
            async with (
                load_on(port, "/x", lines=[bearer(mint_token())], **few) as sessions,
                load_on(port, "/x", lines=[bearer(tokens[0])], **few) as by_token,
            ):
                for change in (server.stop, server.start, server.stop, server.start):
                    await asyncio.to_thread(change)
                    await sessions.until_answered(100)
                    await by_token.until_answered(100)
            await check_that_it_is_used_again(stage)

            assert (sessions.statuses, by_token.statuses) == ({200}, {200})
            assert (sessions.lost, by_token.lost) == ([], [])
    finally:
        server.stop()


def with_another_kid(token: str, kid: str) -> str:
    """The same token, as if signed by a key of this name."""
    header, payload, signature = token.split(".")
    changed = orjson.loads(urlsafe_b64decode(header + "=" * (-len(header) % 4))) | {"kid": kid}
    return f"{urlsafe_b64encode(orjson.dumps(changed)).decode().rstrip('=')}.{payload}.{signature}"


async def test_k01_flood_of_unknown_key_ids_with_redis_away_makes_one_fetch_and_hurts_nobody(
    database_url: str, redis_url: str
) -> None:
    settings = SINGLE_USE | {"clerk": {"jwks": {"ttl": "1h", "cooldown": "1h"}}}
    async with outage_stage(database_url, redis_url, **settings) as stage:
        await stage.ask(mint_token())
        await stage.redis.set(Fault.BLACKHOLE)
        fetches, unknown, valid = stage.keys.fetches, set[int](), set[int]()
        for batch in range(0, KIDS, 100):
            alice = mint_token(jti=str(batch))
            flood = [with_another_kid(alice, f"ins_{number}") for number in range(batch, batch + 100)]
            *others, hers = await stage.ask_all([*flood, alice])
            unknown.update(reply.status for reply in others)
            valid.add(hers.status)

        assert (unknown, valid) == ({401}, {200})
        assert stage.keys.fetches - fetches <= 1
