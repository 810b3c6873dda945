"""Replicas that hear nothing of each other: one cut from Redis by itself, and all of them when it hangs (O01, V02).

What is believed is believed for ten minutes while all is well, and for half a second by who knows that it is not.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.replicas.test_changes import ALL, ends, session, sockets
from tests.support.api_tokens import PATH, call, made_token
from tests.support.fault_proxy import Fault, FaultProxy, fault_proxy
from tests.support.fleet import Fleet, fleet_under_test
from tests.support.gateway import ROUTES
from tests.support.redis_server import RedisServer
from tests.support.websockets import echo_server
from tests.support.wire import bearer

CACHE: dict[str, Any] = {"near_ttl": "10m", "degraded_ttl": "500ms"}
SOCKETS = {"path": "/sockets/**", "auth": "required", "accept": ["session", "api_token"], "upstream": "echo"}


@pytest.fixture
async def own_way(redis_url: str) -> AsyncIterator[FaultProxy]:
    """The last replica's way to Redis."""
    async with fault_proxy(redis_url) as running:
        yield running


@asynccontextmanager
async def three(folder: Path, database_url: str, *redis_urls: str) -> AsyncIterator[Fleet]:
    async with echo_server() as echo:
        settings: dict[str, Any] = {"upstreams": {"echo": {"url": echo}}, "routes": [SOCKETS, *ROUTES], "cache": CACHE}
        async with fleet_under_test(folder, database_url, redis_urls, **settings) as fleet:
            await fleet.until_whole()
            yield fleet


async def test_o01_replica_cut_from_redis_finds_out_by_itself_and_the_others_do_not_notice(
    tmp_path: Path, database_url: str, redis_url: str, own_way: FaultProxy
) -> None:
    async with three(tmp_path, database_url, redis_url, redis_url, own_way.through(redis_url)) as fleet:
        owner, (first, _, last) = session("user_2cut"), fleet.replicas
        lost, kept, later = [await made_token(first, owner) for _ in range(3)]
        for token in (lost, kept, later):
            assert await fleet.each("/x", bearer(token["token"])) == ALL
        async with sockets(fleet, lost["token"]) as open_now:
            await own_way.set(Fault.BLACKHOLE)
            assert (await call(first, owner, "DELETE", f"{PATH}/{lost['id']}")).status == 204
            await fleet.until_each(401, "/x", bearer(lost["token"]))
            codes = await ends(open_now)
        await fleet.until_whole(1, 1, 0)
        meanwhile = await fleet.each("/x", bearer(kept["token"])), await fleet.each("/x", bearer(owner))
        ready = [(await replica.admin("/readyz")).status for replica in fleet.replicas]
        await own_way.set(Fault.NONE)
        await fleet.until_whole()
        assert await fleet.each("/x", bearer(later["token"])) == ALL
        assert (await call(last, owner, "DELETE", f"{PATH}/{later['id']}")).status == 204
        await fleet.until_each(401, "/x", bearer(later["token"]))

        assert codes == [4401] * 3
        assert meanwhile == (ALL, ALL)
        assert ready == ALL
        assert await fleet.each("/x", bearer(kept["token"])) == ALL


async def test_v02_revoked_token_is_refused_by_all_also_while_redis_hangs(tmp_path: Path, database_url: str) -> None:
    redis = RedisServer(tmp_path / "own-redis")
    redis.start()
    try:
        async with three(tmp_path, database_url, *[redis.url] * 3) as fleet:
            owner, first = session("user_2hangs"), fleet.replicas[0]
            lost, kept = await made_token(first, owner), await made_token(first, owner)
            for token in (lost, kept):
                assert await fleet.each("/x", bearer(token["token"])) == ALL
            async with sockets(fleet, lost["token"]) as open_now:
                redis.freeze()
                revoked = await call(first, owner, "DELETE", f"{PATH}/{lost['id']}")
                await fleet.until_each(401, "/x", bearer(lost["token"]))
                codes = await ends(open_now)
            meanwhile = await fleet.each("/x", bearer(kept["token"])), await fleet.each("/x", bearer(owner))
            redis.thaw()
            await fleet.until_whole()

            assert (revoked.status, codes, meanwhile) == (204, [4401] * 3, (ALL, ALL))
            assert await fleet.each("/x", bearer(lost["token"])) == [401] * 3
    finally:
        redis.stop()
