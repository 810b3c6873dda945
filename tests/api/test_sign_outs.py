"""Signing out everywhere, by oneself and by an administrator, over a real socket; and what Clerk is told of it."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.api_tokens import call, execute, made_token, value
from tests.support.clerk_backend import SECRET_KEY, ClerkBackend, Failure
from tests.support.gateway import ORIGIN, GatewayUnderTest, gateway_under_test
from tests.support.minted import ROUTES, websocket_token
from tests.support.people import ACT, administrator, recorded
from tests.support.sessions import REVOKED, shows, token_of
from tests.support.upstream import until
from tests.support.websocket_clients import open_with_websockets
from tests.support.websockets import echo_server
from tests.support.wire import Reply, request

PATH = "/users/current/sign-out-everywhere"
ALICE, BOB, BOSS = "user_2alice", "user_2bob", "user_2boss"
ONE, TWO = "sess_2one", "sess_2two"
OK = 200, None


@pytest.fixture
async def backend() -> AsyncIterator[ClerkBackend]:
    async with ClerkBackend().running() as running:
        yield running


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[GatewayUnderTest]:
    async with gateway_under_test(database_url, routes=ROUTES) as running:
        yield running


@pytest.fixture
async def managed(database_url: str, backend: ClerkBackend) -> AsyncIterator[GatewayUnderTest]:
    """A gateway that may ask Clerk."""
    clerk = {"secret_key": SECRET_KEY, "api_url": backend.url}
    async with gateway_under_test(database_url, clerk=clerk, routes=ROUTES) as running:
        yield running


async def signed_out(gateway: GatewayUnderTest, token: str, body: object = None, target: str = PATH) -> dict[str, Any]:
    reply = await call(gateway, token, "POST", target, body)
    assert reply.status == 200, reply.body
    document: dict[str, Any] = reply.json()
    return document


async def seen(gateway: GatewayUnderTest, *sessions: str) -> None:
    """Wait until it is written down that these came here."""

    for _ in range(600):
        if await value(gateway, "SELECT count(*) FROM logins") == len(sessions):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("no login was written")


async def test_every_session_of_the_person_ends_and_nobody_elses(gateway: GatewayUnderTest) -> None:
    one, two, bob = token_of(ALICE, ONE), token_of(ALICE, TWO), token_of(BOB, "sess_2bob")
    assert [await shows(gateway, token) for token in (one, two, bob)] == [OK] * 3

    done = await signed_out(gateway, one)

    assert [await shows(gateway, token) for token in (one, two, bob)] == [REVOKED, REVOKED, OK]
    assert (done["atClerk"], done["apiTokens"]) == ("unmanaged", 0)


async def test_who_signs_in_afterwards_is_let_in(gateway: GatewayUnderTest) -> None:
    await shows(gateway, token_of(ALICE, ONE))
    await signed_out(gateway, token_of(ALICE, ONE))

    later = token_of(ALICE, TWO, now=time.time() + 5)  # by a clock that is ahead by what is tolerated
    await execute(gateway, "UPDATE signed_out SET before = before - interval '9 s'")
    assert await shows(gateway, later) == REVOKED  # it could have been issued before

    async with gateway_under_test(str(gateway.written["database"]["url"])) as again:
        assert await shows(again, later) == OK


async def test_session_that_was_seen_stays_out_with_every_new_token(gateway: GatewayUnderTest) -> None:
    token = token_of(ALICE, ONE)
    await shows(gateway, token)
    await seen(gateway, ONE)

    assert (await signed_out(gateway, token))["sessions"] == 1
    await execute(gateway, "DELETE FROM signed_out")

    async with gateway_under_test(str(gateway.written["database"]["url"])) as again:
        assert await shows(again, token_of(ALICE, ONE, now=time.time() + 4)) == REVOKED


async def test_session_that_signs_out_with_its_first_request_stays_out_too(gateway: GatewayUnderTest) -> None:
    done = await signed_out(gateway, token_of(ALICE, ONE))  # before anybody wrote down that it was seen
    await execute(gateway, "DELETE FROM signed_out")

    async with gateway_under_test(str(gateway.written["database"]["url"])) as again:
        assert await shows(again, token_of(ALICE, ONE, now=time.time() + 4)) == REVOKED
    assert done["sessions"] == 1


async def test_api_tokens_end_only_when_it_is_asked_for(gateway: GatewayUnderTest) -> None:
    made, bobs = [await made_token(gateway, token_of(*whose)) for whose in ((ALICE, ONE), (BOB, TWO))]
    assert (await signed_out(gateway, token_of(BOB, TWO), {"apiTokens": False}))["apiTokens"] == 0
    assert await shows(gateway, bobs["token"]) == OK

    done = await signed_out(gateway, token_of(ALICE, ONE), {"apiTokens": True})

    assert done["apiTokens"] == 2  # the one made at sign-up too
    assert await shows(gateway, made["token"]) == (401, "invalid_token")
    assert await shows(gateway, bobs["token"]) == OK


async def test_websockets_of_sessions_close_and_those_of_api_tokens_stay(database_url: str) -> None:
    async with (
        echo_server() as url,
        gateway_under_test(database_url, upstreams={"app": {"url": url}}, routes=ROUTES) as gateway,
    ):
        made = await made_token(gateway, token_of(ALICE, ONE), scopes=["tokens:mint"])
        minted = (await call(gateway, made["token"], "GET", "/users/current")).json()["websocketToken"]
        token = await websocket_token(gateway, sub=ALICE, sid=TWO)
        address = f"ws://127.0.0.1:{gateway.port}/ws/a?token="
        async with open_with_websockets(address + token) as client, open_with_websockets(address + minted) as stays:
            await signed_out(gateway, token_of(ALICE, ONE))

            assert await client.ended() == 4401
            await stays.send("still here")
            assert await stays.receive() == "still here"


async def test_only_a_session_of_ones_own_may_ask(gateway: GatewayUnderTest) -> None:
    made = await made_token(gateway, token_of(ALICE, ONE), scopes=["profile:write", "tokens:manage"])

    by_token = await call(gateway, made["token"], "POST", PATH)
    acting = await call(gateway, token_of(ALICE, TWO, act=ACT), "POST", PATH)
    nobody = await gateway.ask(request(PATH, method="POST"))

    assert (by_token.status, by_token.code) == (403, "forbidden")
    assert (acting.status, acting.code) == (403, "impersonation_refused")
    assert (nobody.status, nobody.code) == (401, "credential_missing")
    assert await shows(gateway, token_of(ALICE, ONE)) == OK


async def test_another_site_signs_nobody_out(gateway: GatewayUnderTest) -> None:
    async def by_cookie(origin: str) -> Reply:
        lines = (f"Cookie: __session={token_of(ALICE, ONE)}; __client_uat=1", f"Origin: {origin}")
        return await gateway.ask(request(PATH, *lines, method="POST"))

    elsewhere = await by_cookie("https://evil.example")
    own = await by_cookie(ORIGIN)

    assert (elsewhere.status, elsewhere.code, own.status) == (403, "cross_site", 200)


@pytest.mark.parametrize("body", [{"apiTokens": "yes"}, {"tokens": True}, []])
async def test_body_of_another_shape_ends_nothing(gateway: GatewayUnderTest, body: object) -> None:
    reply = await call(gateway, token_of(ALICE, ONE), "POST", PATH, body)

    assert (reply.status, reply.code) == (422, "content_invalid")
    assert await shows(gateway, token_of(ALICE, ONE)) == OK


async def test_clerk_ends_the_sessions_that_began_before(managed: GatewayUnderTest, backend: ClerkBackend) -> None:
    for session_id, person in ((ONE, ALICE), (TWO, ALICE), ("sess_2bob", BOB)):
        backend.add_session(session_id, person)
    backend.add_session("sess_2task", ALICE, status="pending")
    backend.add_session("sess_2later", ALICE, created_at=time.time() + 60)

    done = await signed_out(managed, token_of(ALICE, ONE))

    assert (done["atClerk"], done["sessions"]) == ("ended", 3)
    assert {key for key, status in backend.statuses().items() if status == "revoked"} == {ONE, TWO, "sess_2task"}
    assert await value(managed, "SELECT state FROM outbox WHERE topic = 'sessions'") == "delivered"
    assert await shows(managed, token_of(ALICE, TWO, now=time.time() + 4)) == REVOKED


async def test_pages_of_sessions_are_all_read(managed: GatewayUnderTest, backend: ClerkBackend) -> None:
    for number in range(501):
        backend.add_session(f"sess_2n{number}", ALICE, status="active" if number else "pending")
    await shows(managed, token_of(ALICE, ONE))

    await signed_out(managed, token_of(ALICE, ONE))

    asked = [target for target in backend.asked if target.startswith("/v1/sessions?")]
    assert [target.rpartition("status=")[2] for target in asked][:3] == [
        "active&limit=500&offset=0",
        "active&limit=500&offset=500",
        "pending&limit=500&offset=0",
    ]


@pytest.mark.parametrize("failure", ["failed", "rate_limited", "reset", "garbage", "hang"])
async def test_while_clerk_is_away_the_gateway_denies_and_says_so_and_tells_clerk_later(
    managed: GatewayUnderTest, backend: ClerkBackend, failure: Failure
) -> None:
    backend.add_session(ONE, ALICE)
    token = token_of(ALICE, ONE)
    await shows(managed, token)
    backend.failure, backend.retry_after = failure, "1"

    done = await signed_out(managed, token)

    assert done["atClerk"] == "pending"
    assert await shows(managed, token) == REVOKED
    backend.failure = None
    await execute(managed, "UPDATE outbox SET next_attempt_at = now() WHERE topic = 'sessions'")
    await until(lambda: backend.statuses()[ONE] == "revoked", 30)


async def test_half_a_success_is_pending_and_finished_later(managed: GatewayUnderTest, backend: ClerkBackend) -> None:
    for session_id in (ONE, TWO):
        backend.add_session(session_id, ALICE)
    await shows(managed, token_of(ALICE, ONE))
    backend.revocable = 1

    done = await signed_out(managed, token_of(ALICE, ONE))

    assert done["atClerk"] == "pending"
    assert sorted(backend.statuses().values()) == ["active", "revoked"]
    assert await value(managed, "SELECT count(*) FROM ended_sessions") == 2  # both are denied here all the same
    backend.revocable = None
    await execute(managed, "UPDATE outbox SET next_attempt_at = now() WHERE topic = 'sessions'")
    await until(lambda: set(backend.statuses().values()) == {"revoked"}, 30)


async def test_administrator_ends_anothers_sessions_on_record(gateway: GatewayUnderTest) -> None:
    boss = await administrator(gateway, BOSS)
    token = token_of(ALICE, ONE)
    user_id = (await call(gateway, token, "GET", "/users/current")).json()["id"]
    target = f"/admin/users/{user_id}/revoke"

    done = await signed_out(gateway, token_of(BOSS, "sess_2boss"), {"apiTokens": True}, target)

    assert (done["apiTokens"], await shows(gateway, token)) == (1, REVOKED)
    events = [event for event in await recorded(gateway, user_id) if event["action"] == "user.signed_out"]
    assert [event["actor_id"] for event in events] == [boss.id]


async def test_only_administrators_end_others_and_none_themselves_there(gateway: GatewayUnderTest) -> None:
    boss = await administrator(gateway, BOSS)
    session = token_of(BOSS, "sess_2boss")
    user_id = (await call(gateway, token_of(ALICE, ONE), "GET", "/users/current")).json()["id"]
    replies = [
        await call(gateway, token_of(ALICE, ONE), "POST", f"/admin/users/{boss.id}/revoke"),
        await call(gateway, token_of(BOSS, "sess_2x", act=ACT), "POST", f"/admin/users/{user_id}/revoke"),
        await call(gateway, session, "POST", f"/admin/users/{boss.id}/revoke"),
        await call(gateway, session, "POST", "/admin/users/usr_0000000000000000000000/revoke"),
    ]

    assert [(reply.status, reply.code) for reply in replies] == [
        (403, "forbidden"),
        (403, "impersonation_refused"),
        (409, "own_account"),
        (404, "not_found"),
    ]
    assert [await shows(gateway, token) for token in (session, token_of(ALICE, ONE))] == [OK, OK]
