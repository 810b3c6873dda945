"""Other settings of Redis for gateways that serve: who moved hears those who moved too, and nobody stays deaf."""

from pathlib import Path
from typing import Any

import pytest

from tests.revocation.test_two_gateways import LONG_LIVES, OVER, a_token, refused, revoke, status, two_gateways
from tests.support.gateway import ROUTES, gateway_under_test
from tests.support.redis_server import RedisServer

SETTINGS: dict[str, Any] = {"routes": ROUTES, **LONG_LIVES}


async def test_gateways_that_move_to_another_redis_hear_of_changes_there(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    elsewhere = RedisServer(tmp_path / "elsewhere")
    elsewhere.start()
    try:
        async with two_gateways(database_url, redis_url, **LONG_LIVES) as (one, other):
            token_id, token = await a_token(one)
            before = await status(one, token), await status(other, token)
            for gateway in (one, other):
                assert await gateway.reload(redis={"url": elsewhere.url})
            kept = await status(one, token), await status(other, token)
            await revoke(one, token_id)
            await refused(other, token)

            assert before == kept == (200, 200)
            assert await status(one, token) == OVER
    finally:
        elsewhere.stop()


async def test_what_was_revoked_where_a_gateway_does_not_listen_any_more_is_not_believed_when_it_comes_back(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    elsewhere = RedisServer(tmp_path / "elsewhere")
    elsewhere.start()
    try:
        async with two_gateways(database_url, redis_url, **LONG_LIVES) as (one, other):
            token_id, token = await a_token(one)
            assert await status(other, token) == 200
            assert await other.reload(redis={"url": elsewhere.url})
            assert await status(other, token) == 200  # remembered for five minutes
            await revoke(one, token_id)
            assert await other.reload(redis={"url": redis_url})

            assert await status(other, token) == OVER
    finally:
        elsewhere.stop()


@pytest.mark.parametrize("fast_lane", [True, False], ids=["fast_lane", "aiohttp_lane"])
async def test_a_single_gateway_takes_redis_into_use_and_gives_it_up(
    database_url: str, redis_url: str, fast_lane: bool
) -> None:
    async with gateway_under_test(database_url, fast_lane=fast_lane, **SETTINGS) as gateway:
        token_id, token = await a_token(gateway)
        alone = await status(gateway, token)
        assert await gateway.reload(redis={"url": redis_url})
        with_redis = await status(gateway, token)
        in_touch = await gateway.metric("gateway_revocations_in_touch")
        assert await gateway.reload(redis={"url": None})
        without = await status(gateway, token)
        await revoke(gateway, token_id)

        assert (alone, with_redis, without, in_touch) == (200, 200, 200, 1.0)
        assert await status(gateway, token) == OVER
