"""K03 and K04 by the wire: the source of signing keys away in every way, with keys in memory and without."""

from typing import Any

import pytest

from tests.support.clerk_keys import jwk, jwks
from tests.support.fault_proxy import Fault
from tests.support.gateway import mint_token
from tests.support.outage_stage import ASKING, asks_to_come_back, outage_stage
from tests.support.websockets import handshake
from tests.support.wire import bearer

FAULTS = [Fault.LATENCY, Fault.BLACKHOLE, Fault.RESET, Fault.REFUSE, Fault.HALF, Fault.TRICKLE]
SHORT: dict[str, Any] = ASKING | {"clerk": {"jwks": {"ttl": "200ms", "cooldown": "1s", "stale_ceiling": "1s"}}}


def rotated(**claims: Any) -> str:
    """A token signed by a key that the source has and the gateway has not seen."""
    return mint_token(key="rotated", kid="ins_2new", **claims)


@pytest.mark.parametrize("fault", FAULTS)
async def test_keys_in_memory_serve_known_and_new_people_and_a_new_key_cannot_be_judged(
    database_url: str, redis_url: str, fault: Fault
) -> None:
    async with outage_stage(database_url, redis_url, **ASKING) as stage:
        await stage.ask(mint_token())
        stage.keys.body = jwks(jwk(), jwk("rotated", "ins_2new"))
        await stage.jwks.set(fault, latency_s=5)

        served = await stage.ask_all([mint_token(jti="1"), mint_token(sub="user_2new")])
        refused = await stage.ask_all([rotated(jti=str(number)) for number in range(100)])
        forged = await stage.ask(mint_token(jti="2", exp=1_000_000_000))

        assert [reply.status for reply in served] == [200, 200]
        assert all(asks_to_come_back(reply) for reply in refused)
        assert forged.status == 401
        assert stage.gateway.upstream.received[-1].one("x-actor-id")

        fetches = stage.keys.fetches
        await stage.jwks.set(Fault.NONE)
        await stage.until(200, rotated())
        replies = await stage.ask_all([rotated(jti=str(number)) for number in range(100)])

        assert {reply.status for reply in replies} == {200}
        assert stage.keys.fetches - fetches <= 3


@pytest.mark.parametrize("fault", FAULTS)
async def test_k03_beyond_the_ceiling_all_come_back_until_one_fetch_serves_them_all(
    database_url: str, redis_url: str, fault: Fault
) -> None:
    async with outage_stage(database_url, redis_url, **SHORT) as stage:
        await stage.ask(mint_token())
        await stage.jwks.set(fault, latency_s=5)
        await stage.until(503, mint_token(jti="1"))
        before = len(stage.gateway.upstream.received)

        refused = await stage.ask_all([mint_token(sub=f"user_2p{number}") for number in range(50)])
        refused.append(await stage.ask(mint_token(), "/optional/x"))
        refused.append(await stage.gateway.ask(handshake("/ws/x", bearer(mint_token()))))

        assert all(asks_to_come_back(reply) for reply in refused)
        assert len(stage.gateway.upstream.received) == before

        fetches = stage.keys.fetches
        await stage.jwks.set(Fault.NONE)
        await stage.until(200, mint_token())
        fetches = stage.keys.fetches - fetches

        assert fetches <= 3  # one that was held back on the way, the one that found it back, a refresh


async def test_k03_beyond_the_ceiling_a_token_that_was_verified_is_believed_no_longer_either(
    database_url: str, redis_url: str
) -> None:
    remembered = {"cache": {"near_ttl": "1m", "degraded_ttl": "1m"}}
    token = mint_token()
    async with outage_stage(database_url, redis_url, **SHORT | remembered) as stage:
        assert (await stage.ask(token)).status == 200
        await stage.jwks.set(Fault.RESET)

        assert asks_to_come_back(await stage.until(503, token))

        await stage.jwks.set(Fault.NONE)
        await stage.until(200, token)


async def test_the_source_is_probed_by_nobody_but_one_while_it_is_away(database_url: str, redis_url: str) -> None:
    async with outage_stage(database_url, redis_url, **SHORT) as stage:
        await stage.ask(mint_token())
        await stage.jwks.set(Fault.RESET)
        await stage.until(503, mint_token(jti="1"))
        dials = stage.jwks.connections
        for _ in range(20):
            await stage.ask_all([mint_token(sub=f"user_2p{number}") for number in range(20)])
        dials = stage.jwks.connections - dials
        probes = await stage.gateway.metric("gateway_jwks_fetches_total", result="unreachable")

        assert dials <= 2 * probes + 2  # aiohttp dials once more when a connection is cut
