"""API tokens against a hostile caller: what is none, is none any more, or is worth less than it was (T01 to T04)."""

import asyncio
import hmac
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning.token_text import new_system_token, new_token
from tests.support.api_tokens import (
    ASKING,
    PATH,
    call,
    execute,
    made_token,
    refusals,
    use,
    with_another_secret,
    written_token,
)
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.postgres import PostgresServer
from tests.support.wire import bearer

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = ASKING

GOOD = new_token().text
JUNK = [
    "agt_",
    "agt_short",
    GOOD[:-1],
    GOOD + "0",
    GOOD[:-6] + "000000",
    "agt_" + GOOD[4:].swapcase(),
    GOOD.replace("agt_", "agt_agt_"),
    "agt_" + "0" * 61,
    "agt_" + "a" * 16_000,
    "agt_" + "a" * 17_000,
    "agt_" + GOOD[4:8] + "." + GOOD[9:],
    new_system_token().text.replace("ags_", "agt_"),
]


@pytest.mark.parametrize("token", JUNK, ids=range(len(JUNK)))
async def test_t01_junk_is_refused(gateway: GatewayUnderTest, token: str) -> None:
    for lines in ((bearer(token),), (f"X-API-Key: {token}",)):
        reply = await gateway.get("/x", *lines)

        assert reply.status == 401
        assert reply.code == "invalid_token"
        assert reply.challenge.error == "invalid_token"
    assert gateway.upstream.received == []


@pytest.mark.parametrize("fast", [True, False])
async def test_t01_junk_asks_no_store(postgres_server: PostgresServer, fast: bool) -> None:
    async with gateway_under_test(postgres_server.url, fast_lane=fast) as gateway:
        await postgres_server.stop()
        refused = [await gateway.get("/x", bearer(token)) for token in JUNK]
        failures = await gateway.metric("gateway_database_failures_total")
        asked = await gateway.get("/x", bearer(GOOD))

    assert {reply.status for reply in refused} == {401}
    assert failures == 0
    assert (asked.status, asked.code) == (503, "store_unavailable")
    assert asked.get("retry-after") is not None


@given(st.text("agts_0aZ.~+/=-", max_size=80))
@settings(max_examples=60, deadline=None)
async def test_t01_any_text_that_begins_like_one_is_refused(module_gateway: GatewayUnderTest, rest: str) -> None:
    assert (await module_gateway.get("/x", bearer(f"agt_{rest}"))).status == 401


OWNERS = {
    "token_revoked": "UPDATE api_tokens SET revoked_at = now() WHERE id = $1",
    "token_expired": "UPDATE api_tokens SET expires_at = now() WHERE id = $1",
    "user_disabled": "UPDATE users SET disabled_at = now() WHERE id = (SELECT user_id FROM api_tokens WHERE id = $1)",
    "user_deleted": "UPDATE users SET deleted_at = now() WHERE id = (SELECT user_id FROM api_tokens WHERE id = $1)",
    "organization_left": "DELETE FROM memberships WHERE user_id = (SELECT user_id FROM api_tokens WHERE id = $1)",
}


@pytest.mark.parametrize(
    "reason,status,code",
    [
        ("token_revoked", 401, "invalid_token"),
        ("token_expired", 401, "invalid_token"),
        ("user_deleted", 401, "user_deleted"),
        ("user_disabled", 403, "user_disabled"),
        ("organization_left", 403, "organization_left"),
    ],
)
async def test_t02_token_that_counts_no_longer_is_refused_for_a_reason_of_its_own(
    gateway: GatewayUnderTest, reason: str, status: int, code: str
) -> None:
    made = await made_token(gateway, mint_token(sub=f"user_2{reason}"))
    before = await use(gateway, made["token"])
    counted = await refusals(gateway, reason)
    await execute(gateway, OWNERS[reason], made["id"])

    after = await use(gateway, made["token"])

    assert before.status == 200
    assert (after.status, after.code) == (status, code)
    assert await refusals(gateway, reason) == counted + 1


async def test_t02_token_is_worth_what_its_owner_may_do_now(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2downgraded")
    await gateway.get("/x", bearer(session))
    await execute(gateway, "UPDATE users SET role = 'ADMIN' WHERE clerk_id = 'user_2downgraded'")
    await asyncio.sleep(0.002)
    made = await made_token(gateway, session, scopes=["admin", "reports:read"])
    above = await use(gateway, made["token"], "/admins/x")
    told = gateway.upstream.last.one("x-actor-role"), gateway.upstream.last.one("x-actor-scopes")
    await execute(gateway, "UPDATE users SET role = 'USER' WHERE clerk_id = 'user_2downgraded'")

    below = await use(gateway, made["token"], "/admins/x")
    elsewhere = await use(gateway, made["token"], "/reports/x")

    assert (above.status, *told) == (200, "ADMIN", "admin reports:read")
    assert below.status == 403
    assert elsewhere.status == 200
    assert gateway.upstream.last.one("x-actor-role") == "USER"
    assert gateway.upstream.last.one("x-actor-scopes") == "reports:read"


async def test_t02_role_in_the_organization_is_that_of_now(gateway: GatewayUnderTest) -> None:
    organization = {"id": "org_2token", "slg": "token", "rol": "admin"}
    made = await made_token(gateway, mint_token(sub="user_2member", o=organization))
    await use(gateway, made["token"])
    before = gateway.upstream.last.one("x-organization-role")
    await execute(
        gateway,
        "UPDATE memberships m SET role = 'member' FROM users u WHERE u.id = m.user_id AND u.clerk_id = 'user_2member'",
    )

    await use(gateway, made["token"])

    assert (before, gateway.upstream.last.one("x-organization-role")) == ("admin", "member")
    assert gateway.upstream.last.one("x-organization-permissions") == ""


async def test_t03_unknown_id_and_wrong_secret_take_the_same_way(
    gateway: GatewayUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []

    compare = hmac.compare_digest

    def counting(one: bytes, two: bytes) -> bool:
        compared.append((len(one), len(two)))
        return compare(one, two)

    token = (await made_token(gateway))["token"]
    wrong, unknown = with_another_secret(token), written_token("0" * 12, token[16:59])
    monkeypatch.setattr(hmac, "compare_digest", counting)
    replies = []
    for presented in (wrong, unknown):
        before = await refusals(gateway, "token_unknown")
        replies.append(await use(gateway, presented))

        assert await refusals(gateway, "token_unknown") == before + 1

    bodies = [{**reply.json(), "requestId": ""} for reply in replies]
    names = [[name for name, _ in reply.fields] for reply in replies]
    assert compared == [(32, 32), (32, 32)]
    assert replies[0].status == replies[1].status == 401
    assert bodies[0] == bodies[1]
    assert names[0] == names[1]
    assert (await use(gateway, token)).status == 200


async def test_t04_both_are_good_during_the_overlap_and_the_old_one_is_refused_after_it(
    gateway: GatewayUnderTest,
) -> None:
    session = mint_token(sub="user_2rotates")
    old = await made_token(gateway, session)
    reply = await call(gateway, session, "POST", f"{PATH}/{old['id']}/rotate", {"overlapSeconds": 600})
    new = reply.json()
    during = [(await use(gateway, token["token"])).status for token in (old, new)]
    await execute(gateway, "UPDATE api_tokens SET expires_at = now() WHERE id = $1", old["id"])

    after = [(await use(gateway, token["token"])).status for token in (old, new)]

    assert reply.status == 201
    assert during == [200, 200]
    assert after == [401, 200]


async def test_t04_rotation_without_an_overlap_ends_the_old_one(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2hurries")
    old = await made_token(gateway, session)
    new = (await call(gateway, session, "POST", f"{PATH}/{old['id']}/rotate", {"overlapSeconds": 0})).json()

    assert [(await use(gateway, token["token"])).status for token in (old, new)] == [401, 200]
