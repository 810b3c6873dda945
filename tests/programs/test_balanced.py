"""Three gateways behind HAProxy, on one PostgreSQL and one Redis: what clients of the whole see."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.revocation import CLOSED, measured, running
from tests.support.api_tokens import made_token
from tests.support.fleet import Fleet, fleet_under_test
from tests.support.gateway import mint_token
from tests.support.load import Load, load_on
from tests.support.postgres import PostgresServer
from tests.support.upstream import Received
from tests.support.wire import bearer, connected, request

REQUESTS, SOCKETS = 1000, 45
BELIEVED: dict[str, Any] = {"cache": {"near_ttl": "10m", "degraded_ttl": "10m"}}
"""So that nothing but a message from replica to replica ends a belief."""


@pytest.fixture
async def fleet(tmp_path: Path, database_url: str, redis_url: str) -> AsyncIterator[Fleet]:
    async with fleet_under_test(tmp_path, database_url, redis_url, balanced=True, **BELIEVED) as running_now:
        yield running_now


async def tell_who_calls(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with what the gateway says of the caller."""
    body = " ".join(received.one(name) for name in ("x-actor-id", "x-organization-id", "x-organization-role")).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


async def test_x03_one_person_in_two_organizations_is_never_crossed_behind_a_balancer(fleet: Fleet) -> None:
    fleet.upstream.respond = tell_who_calls
    credentials = [
        mint_token(o={"id": f"org_2{name}", "slg": name, "rol": role})
        for name, role in (("first", "member"), ("second", "admin"))
    ]
    credentials += [(await made_token(fleet.replicas[0], credential))["token"] for credential in credentials]
    lines = [bearer(credential) for credential in credentials]
    expected = [(await fleet.replicas[0].get("/x", line)).body for line in lines]
    warm = [[(await replica.get("/x", line)).body for line in lines] for replica in fleet.replicas]

    async def lane(first: int) -> list[tuple[int, int, bytes]]:
        """Alternate on one connection, beside others that do."""
        answers = []
        async with connected(fleet.door.port) as wire:
            for number in range(first, first + REQUESTS // 10):
                reply = await wire.ask(request("/x", lines[number % len(lines)]))
                answers.append((number % len(lines), reply.status, reply.body))
        return answers

    answers = [answer for part in await asyncio.gather(*(lane(first) for first in range(10))) for answer in part]

    assert len(set(expected)) == 2
    assert expected[:2] == expected[2:]
    assert warm == [expected] * 3
    assert len(answers) == REQUESTS
    assert {(status, body == expected[which]) for which, status, body in answers} == {(200, True)}


async def kept_busy(fleet: Fleet, load: Load, change: Any) -> None:
    """Do something to each replica in turn, with requests before and after."""
    for replica in fleet.replicas:
        await load.until_answered(100)
        await change(replica)
        await replica.start()
        await load.until_answered(100)


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_replicas_restarted_one_after_another_fail_no_request(fleet: Fleet, end: str) -> None:
    async with load_on(fleet.door.port) as load:
        await kept_busy(fleet, load, lambda replica: getattr(replica, end)())

    assert load.statuses == {200}
    assert (load.lost, load.refused) == ([], 0)


async def test_v02_revoked_token_counts_nowhere_behind_a_balancer_and_its_websockets_end(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    async with running(tmp_path, database_url, redis_url, **BELIEVED) as fleet:
        lags = [await measured(fleet, f"user_2round{number}", SOCKETS, 100.0) for number in range(2)]

    for lag in lags:
        assert lag.codes == Counter({CLOSED: SOCKETS})
        assert set(lag.statuses) - {200} == {401}
        assert min(lag.spread) > 0
        assert sum(lag.spread) == SOCKETS


async def test_o02_balancer_goes_on_asking_those_who_serve_known_people_while_postgresql_is_away(
    tmp_path: Path, postgres_server: PostgresServer, redis_url: str
) -> None:
    """`/readyz` fails at every replica at once then: a balancer that believed it would refuse everybody."""
    url = postgres_server.url
    async with fleet_under_test(tmp_path, url, redis_url, balanced=True, cache={"near_ttl": "1s"}) as fleet:
        known = bearer(mint_token())
        assert await fleet.each("/x", known) == [200] * 3
        await postgres_server.stop()
        ready = [(await replica.admin("/readyz")).status for replica in fleet.replicas]
        await asyncio.sleep(2)  # longer than anything is believed unasked, and than the balancer looks
        answers = Counter([(await fleet.door.get("/x", known)).status for _ in range(30)])
        stranger = await fleet.door.get("/x", bearer(mint_token(sub="user_2nobody")))
        await postgres_server.start(migrated=False)

        assert ready == [503] * 3
        assert answers == {200: 30}
        assert (stranger.status, stranger.code) == (503, "store_unavailable")
