"""Sessions that Clerk ends while their tokens live: refused by the very next request, after a restart, elsewhere."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.revocation.changes import AnythingChanged
from provisioning.database.pool import Database
from provisioning.ended_sessions import EndedSessions
from tests.support.api_tokens import call, execute, made_token, value
from tests.support.clerk_webhooks import SETTINGS, membership, send, user
from tests.support.counted_postgres import CountedPostgres
from tests.support.gateway import GatewayUnderTest, gateway_under_test
from tests.support.minted import ROUTES, websocket_token
from tests.support.people import ACT
from tests.support.sessions import REVOKED, session_over, shows, token_of
from tests.support.websocket_clients import open_with_websockets
from tests.support.websockets import echo_server
from tests.support.wire import bearer

ALICE, BOB = "user_2alice", "user_2bob"
ONE, TWO = "sess_2one", "sess_2two"
KINDS = ("session.revoked", "session.ended", "session.removed")
NOW_MS = 1_700_000_000_000
OK = 200, None


async def after_a_while(gateway: GatewayUnderTest, token: str) -> tuple[int, str | None]:
    """What comes of a token once it does not pass any more; fails when it never does."""
    for _ in range(600):
        shown = await shows(gateway, token)
        if shown != OK:
            return shown
        await asyncio.sleep(0.05)
    raise AssertionError("it still passes")


@pytest.fixture(params=[True, False], ids=["fast_lane", "aiohttp_lane"])
async def gateway(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[GatewayUnderTest]:
    async with gateway_under_test(database_url, fast_lane=request.param, routes=ROUTES, **SETTINGS) as running:
        yield running


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("told_of", [ALICE, None], ids=["whose_is_told", "whose_is_not"])
async def test_v01_next_request_of_a_session_that_is_over_is_refused(
    gateway: GatewayUnderTest, kind: str, told_of: str | None
) -> None:
    over, other, another = token_of(ALICE, ONE), token_of(ALICE, TWO), token_of(BOB, "sess_2bob")
    before = [await shows(gateway, token) for token in (over, over, other, another)]

    await session_over(gateway, kind, ONE, told_of)

    assert before == [OK] * 4
    assert [await shows(gateway, over) for _ in range(2)] == [REVOKED] * 2
    assert [await shows(gateway, token) for token in (other, another)] == [OK] * 2


async def test_new_tokens_of_a_session_that_is_over_are_refused_too(gateway: GatewayUnderTest) -> None:
    await session_over(gateway, KINDS[0], ONE, ALICE)

    assert await shows(gateway, token_of(ALICE, ONE, now=time.time() + 3)) == REVOKED


async def test_nobody_comes_to_be_by_a_session_that_is_over(gateway: GatewayUnderTest) -> None:
    await session_over(gateway, KINDS[0], ONE, ALICE)

    assert await shows(gateway, token_of(ALICE, ONE)) == REVOKED
    assert await value(gateway, "SELECT count(*) FROM users") == 0


async def test_challenge_says_that_the_token_is_bad_and_the_log_why(gateway: GatewayUnderTest) -> None:
    await session_over(gateway, KINDS[0], ONE, ALICE)

    reply = await gateway.get("/x", bearer(token_of(ALICE, ONE)))

    assert reply.challenge.error == "invalid_token"
    labels = {"outcome": "denied", "reason": "session_revoked"}
    assert await gateway.metric("gateway_auth_decisions_total", **labels) == 1


async def test_what_was_minted_for_a_session_dies_with_it(gateway: GatewayUnderTest) -> None:
    shown = (await gateway.get("/users/current", bearer(token_of(ALICE, ONE)))).json()
    agent = shown["agentToken"]
    assert await shows(gateway, agent, "/agents/x") == OK

    await session_over(gateway, KINDS[0], ONE, ALICE)

    assert await shows(gateway, agent, "/agents/x") == REVOKED


async def test_api_tokens_outlive_the_session_that_made_them(gateway: GatewayUnderTest) -> None:
    made = await made_token(gateway, token_of(ALICE, ONE))

    await session_over(gateway, KINDS[0], ONE, ALICE)

    assert await shows(gateway, made["token"]) == OK


async def test_impersonation_ends_with_the_session_it_was_begun_from(gateway: GatewayUnderTest) -> None:
    acting = token_of(ALICE, ONE, act=ACT)
    assert [await shows(gateway, acting) for _ in range(2)] == [OK, OK]

    await session_over(gateway, KINDS[0], ACT["sid"], ACT["sub"])

    assert [await shows(gateway, token) for token in (acting, token_of(ALICE, TWO))] == [REVOKED, OK]


@pytest.mark.parametrize("how", ["deleted", "banned"])
async def test_who_is_refused_acts_as_nobody_any_more(gateway: GatewayUnderTest, how: str) -> None:
    acting = token_of(ALICE, ONE, act=ACT)
    assert await shows(gateway, acting) == OK
    now_ms = int(time.time() * 1000) + 2000

    if how == "deleted":
        await send(gateway, "user.deleted", {"id": ACT["sub"], "deleted": True}, at_ms=now_ms)
    else:
        await send(gateway, "user.updated", user(ACT["sub"], now_ms, banned=True))

    assert await shows(gateway, acting) == REVOKED


@pytest.mark.parametrize("acting", [False, True], ids=["own", "acting"])
async def test_v01_websocket_of_a_session_that_is_over_closes_with_4401(database_url: str, acting: bool) -> None:
    async with (
        echo_server() as url,
        gateway_under_test(database_url, upstreams={"app": {"url": url}}, routes=ROUTES, **SETTINGS) as gateway,
    ):
        claims: dict[str, Any] = {"sid": TWO, "act": {**ACT, "sid": ONE}} if acting else {"sid": ONE}
        token = await websocket_token(gateway, sub=ALICE, **claims)
        other = await websocket_token(gateway, sub=ALICE, sid="sess_2other")
        address = f"ws://127.0.0.1:{gateway.port}/ws/a?token="
        async with open_with_websockets(address + token) as client, open_with_websockets(address + other) as stays:
            await session_over(gateway, KINDS[0], ONE, ALICE)

            assert await client.ended() == 4401
            await stays.send("still here")
            assert await stays.receive() == "still here"


async def test_v01_restart_in_between_forgets_nothing(database_url: str) -> None:
    token = token_of(ALICE, ONE)
    async with gateway_under_test(database_url, **SETTINGS) as gateway:
        assert await shows(gateway, token) == OK
        await session_over(gateway, KINDS[0], ONE, ALICE)

    async with gateway_under_test(database_url, **SETTINGS) as again:
        assert await shows(again, token) == REVOKED


async def test_v01_another_process_denies_within_the_bound_without_redis(database_url: str) -> None:
    token = token_of(ALICE, ONE)
    near: dict[str, Any] = {"cache": {"near_ttl": "1s"}}
    async with (
        gateway_under_test(database_url, **SETTINGS, **near) as told,
        gateway_under_test(database_url, **SETTINGS, **near) as other,
    ):
        for gateway in (told, other):
            assert await shows(gateway, token) == OK
        await session_over(told, KINDS[0], ONE, ALICE)

        assert await shows(told, token) == REVOKED
        assert await after_a_while(other, token) == REVOKED


@pytest.mark.parametrize("how", ["session", "signed_out"])
async def test_v01_another_process_hears_through_redis_and_closes_websockets(
    database_url: str, redis_url: str, how: str
) -> None:
    redis: dict[str, Any] = {"redis": {"url": redis_url}, "cache": {"near_ttl": "10m"}, "routes": ROUTES}
    async with (
        echo_server() as url,
        gateway_under_test(database_url, **SETTINGS, **redis) as told,
        gateway_under_test(database_url, upstreams={"app": {"url": url}}, **SETTINGS, **redis) as other,
    ):
        token = await websocket_token(other, sub=ALICE, sid=ONE)
        session = token_of(ALICE, ONE)
        await shows(told, session)
        async with open_with_websockets(f"ws://127.0.0.1:{other.port}/ws/a?token={token}") as client:
            if how == "session":
                await session_over(told, KINDS[0], ONE, ALICE)
            else:
                await call(told, session, "POST", "/users/current/sign-out-everywhere")

            assert await client.ended() == 4401
        assert await shows(other, session, "/users/current") == REVOKED


async def test_while_the_rows_are_not_known_each_credential_is_asked_about(database_url: str) -> None:
    async with gateway_under_test(database_url, **SETTINGS, cache={"near_ttl": "10m"}) as gateway:
        over, good = token_of(ALICE, ONE), token_of(ALICE, TWO)
        await execute(
            gateway,
            "INSERT INTO ended_sessions VALUES ('sess_2one', NULL, clock_timestamp(), now() + interval '1 h')",
        )
        gateway.reloader.home.endings.apply(AnythingChanged())

        assert await shows(gateway, over) == REVOKED
        assert await shows(gateway, good) == OK


async def test_membership_that_ended_elsewhere_counts_no_more_within_the_bound(database_url: str) -> None:
    token = token_of(ALICE, ONE, o={"id": "org_2acme", "slg": "acme", "rol": "member"})
    near: dict[str, Any] = {"cache": {"near_ttl": "1s"}}
    async with (
        gateway_under_test(database_url, **SETTINGS, **near) as told,
        gateway_under_test(database_url, **SETTINGS, **near) as other,
    ):
        for gateway in (told, other):
            assert await shows(gateway, token) == OK
        now_ms = int(time.time() * 1000) + 2000
        await send(told, "organizationMembership.deleted", membership(ALICE, "org_2acme", 1), at_ms=now_ms)

        assert await after_a_while(other, token) == (403, "organization_left")


async def test_known_caller_costs_no_statement_and_no_look_at_what_is_denied(database_url: str) -> None:
    counted = CountedPostgres(database_url)
    quiet: dict[str, Any] = {
        "outbox": {"deliver": False},
        "cache": {"near_ttl": "10m"},
        "keys": {"refresh_every": "1h"},
    }
    async with counted.running(), gateway_under_test(counted.url, **SETTINGS, **quiet) as gateway:
        token = token_of(ALICE, ONE, exp=int(time.time()) + 600)
        for _ in range(3):
            assert await shows(gateway, token) == OK
        await session_over(gateway, KINDS[0], TWO, BOB)
        await asyncio.sleep(2.5)  # logins and notes are written beside requests
        look_ups = gateway.reloader.current.sources.callers.look_ups
        misses, statements = look_ups.misses, counted.statements

        assert [await shows(gateway, token) for _ in range(50)] == [OK] * 50
        assert look_ups.misses == misses  # what is denied is asked on a miss alone
        assert counted.statements == statements


async def test_reload_keeps_what_is_denied(database_url: str) -> None:
    async with gateway_under_test(database_url, **SETTINGS) as gateway:
        token = token_of(ALICE, ONE)
        assert await shows(gateway, token) == OK
        await session_over(gateway, KINDS[0], ONE, ALICE)
        assert await gateway.reload(cache={"near_ttl": "20s"})

        assert await shows(gateway, token) == REVOKED


async def test_token_older_than_any_may_be_is_refused_as_nobody_can_tell(database_url: str) -> None:
    clerk: dict[str, Any] = {"clerk": {**SETTINGS["clerk"], "longest_session_token": "2m"}}
    async with gateway_under_test(database_url, **clerk) as gateway:
        now = time.time()
        young, old = (token_of(ALICE, ONE, now=now - age, exp=int(now) + 600) for age in (100, 140))

        assert [await shows(gateway, token) for token in (young, old)] == [OK, (401, "invalid_token")]
        assert await gateway.metric("gateway_auth_decisions_total", reason="session_token_too_old") == 1


async def test_rows_are_deleted_once_no_token_lives(database_url: str) -> None:
    async with gateway_under_test(database_url, **SETTINGS) as gateway:
        for session_id in (ONE, TWO):
            await session_over(gateway, KINDS[0], session_id, ALICE)
        await execute(gateway, "UPDATE ended_sessions SET until = now() WHERE session_id = 'sess_2one'")

        async with Database(database_url) as database:
            assert await EndedSessions(database).forget_dead() == 1
        assert await value(gateway, "SELECT string_agg(session_id, ' ') FROM ended_sessions") == TWO
