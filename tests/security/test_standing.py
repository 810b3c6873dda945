"""Who our records make of a proven person: first sight, organizations, the disabled and the deleted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from tests.support.clerk_backend import SECRET_KEY, ClerkBackend
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.wire import Reply, bearer

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = {"cache": {"near_ttl": "1ms", "degraded_ttl": "1ms"}}  # every request asks the records
Rows = list[tuple[Any, ...]]


@asynccontextmanager
async def connection(gateway: GatewayUnderTest) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    assert gateway.settings.database.url is not None
    connection = await asyncpg.connect(gateway.settings.database.url.get_secret_value())
    try:
        yield connection
    finally:
        await connection.close()


async def rows(gateway: GatewayUnderTest, statement: str, *arguments: object) -> Rows:
    async with connection(gateway) as open_connection:
        return [tuple(row) for row in await open_connection.fetch(statement, *arguments)]


async def ask(gateway: GatewayUnderTest, **claims: Any) -> Reply:
    await asyncio.sleep(0.002)  # longer than anything is remembered
    return await gateway.get("/x", bearer(mint_token(**claims)))


STANDING = """
    SELECT u.name, u.email, o.clerk_id, m.role
    FROM users u JOIN memberships m ON m.user_id = u.id JOIN organizations o ON o.id = m.organization_id
    WHERE u.clerk_id = $1 ORDER BY o.clerk_id NULLS FIRST
"""


async def test_first_sight_makes_one_user_organization_and_membership(gateway: GatewayUnderTest) -> None:
    replies = [await ask(gateway, sub="user_2first", name="Ann", email="ann@example.com") for _ in range(3)]

    assert {reply.status for reply in replies} == {200}
    assert await rows(gateway, STANDING, "user_2first") == [("Ann", "ann@example.com", None, "admin")]
    assert len({seen.one("x-actor-id") for seen in gateway.upstream.received}) == 1


async def test_known_person_with_a_new_clerk_organization_gains_it(gateway: GatewayUnderTest) -> None:
    await ask(gateway, sub="user_2joins")
    reply = await ask(gateway, sub="user_2joins", o={"id": "org_2joined", "slg": "joined", "rol": "member"})

    first, second = gateway.upstream.received
    assert reply.status == 200
    assert first.one("x-actor-id") == second.one("x-actor-id")
    assert first.one("x-organization-id") != second.one("x-organization-id")
    assert [row[2:] for row in await rows(gateway, STANDING, "user_2joins")] == [
        (None, "admin"),
        ("org_2joined", "member"),
    ]


async def test_organization_role_follows_the_token(gateway: GatewayUnderTest) -> None:
    for role in ("member", "admin"):
        await ask(gateway, sub="user_2promoted", o={"id": "org_2promotes", "slg": "p", "rol": role})

        assert gateway.upstream.last.one("x-organization-role") == role
        assert (await rows(gateway, STANDING, "user_2promoted"))[0][3] == role


async def test_profile_follows_the_claims(gateway: GatewayUnderTest) -> None:
    await ask(gateway, sub="user_2renamed", name="Ann", email="ann@example.com")
    await ask(gateway, sub="user_2renamed", name="Anna")

    assert (await rows(gateway, STANDING, "user_2renamed"))[0][:2] == ("Anna", "ann@example.com")


async def test_x04_organization_is_known_by_id_and_not_by_slug(gateway: GatewayUnderTest) -> None:
    ids = []
    for clerk_id in ("org_2before", "org_2after"):
        await ask(gateway, sub="user_2slugs", o={"id": clerk_id, "slg": "acme", "rol": "member"})
        ids.append(gateway.upstream.last.one("x-organization-id"))

    assert ids[0] != ids[1]


async def test_x03_two_organizations_of_one_person_are_never_crossed(gateway: GatewayUnderTest) -> None:
    tokens = {
        name: mint_token(sub="user_2both", o={"id": f"org_2{name}", "slg": name, "rol": "member"})
        for name in ("left", "right")
    }
    told: dict[str, set[str]] = {"left": set(), "right": set()}
    for _ in range(10):
        for name, token in tokens.items():
            await gateway.get("/x", bearer(token))
            told[name].add(gateway.upstream.last.one("x-organization-id"))

    assert len(told["left"]) == len(told["right"]) == 1
    assert told["left"] != told["right"]


async def test_deleted_person_is_refused_while_the_token_lives(gateway: GatewayUnderTest) -> None:
    await ask(gateway, sub="user_2deleted")
    await rows(gateway, "UPDATE users SET deleted_at = now() WHERE clerk_id = 'user_2deleted'")

    reply = await ask(gateway, sub="user_2deleted")

    assert reply.status == 401
    assert reply.code == "user_deleted"
    assert reply.challenge.error == "invalid_token"


async def test_deleted_person_is_not_made_again_by_another_organization(gateway: GatewayUnderTest) -> None:
    await ask(gateway, sub="user_2gone")
    await rows(gateway, "UPDATE users SET deleted_at = now() WHERE clerk_id = 'user_2gone'")

    reply = await ask(gateway, sub="user_2gone", o={"id": "org_2late", "slg": "late", "rol": "admin"}, name="New")

    assert reply.code == "user_deleted"
    assert await rows(gateway, "SELECT 1 FROM organizations WHERE clerk_id = 'org_2late'") == []


async def test_disabled_person_is_denied_and_may_return(gateway: GatewayUnderTest) -> None:
    await ask(gateway, sub="user_2disabled")
    await rows(gateway, "UPDATE users SET disabled_at = now() WHERE clerk_id = 'user_2disabled'")
    denied = await ask(gateway, sub="user_2disabled")
    await rows(gateway, "UPDATE users SET disabled_at = NULL WHERE clerk_id = 'user_2disabled'")
    back = await ask(gateway, sub="user_2disabled")

    assert denied.status == 403
    assert denied.code == "user_disabled"
    assert back.status == 200


async def test_role_of_our_records_is_told_and_judged(database_url: str) -> None:
    routes = [{"path": "/**", "auth": "required", "roles": ["ADMIN"], "upstream": "app"}]
    async with gateway_under_test(database_url, routes=routes, **SETTINGS) as gateway:
        before = await ask(gateway, role="ADMIN")
        await rows(gateway, "UPDATE users SET role = 'ADMIN'")
        after = await ask(gateway)

    assert (before.status, after.status) == (403, 200)
    assert gateway.upstream.last.one("x-actor-role") == "ADMIN"


async def test_person_without_an_organization_is_asked_to_choose_where_personal_ones_are_off(database_url: str) -> None:
    async with gateway_under_test(database_url, provisioning={"personal_organizations": False}) as gateway:
        without = await ask(gateway)
        within = await ask(gateway, o={"id": "org_2chosen", "slg": "chosen", "rol": "member"})

    assert without.status == 403
    assert without.code == "organization_required"
    assert within.status == 200


async def test_personal_organization_of_before_does_not_count_where_they_are_off(database_url: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        before = await ask(gateway)
    async with gateway_under_test(database_url, provisioning={"personal_organizations": False}) as gateway:
        after = await ask(gateway)

    assert before.status == 200
    assert after.code == "organization_required"


async def test_profile_the_claims_do_not_tell_is_asked_of_clerk(database_url: str) -> None:
    async with ClerkBackend().running() as clerk:
        clerk.add_user("user_2asked")
        clerk.add_organization("org_2asked", "Asked Ltd")
        told = {"api_url": clerk.url, "secret_key": SECRET_KEY}
        async with gateway_under_test(database_url, clerk=told) as gateway:
            organization = {"id": "org_2asked", "slg": "asked", "rol": "member"}
            replies = [await ask(gateway, sub="user_2asked", o=organization, jti=str(number)) for number in range(3)]
            found = await rows(gateway, STANDING, "user_2asked")
            names = await rows(gateway, "SELECT name FROM organizations")

    assert {reply.status for reply in replies} == {200}
    assert found == [("Alice Ng", "alice@example.com", "org_2asked", "member")]
    assert names == [("Asked Ltd",)]
    assert len(clerk.asked) == 2


async def test_person_clerk_does_not_tell_of_is_made_without_a_profile(database_url: str) -> None:
    async with ClerkBackend(failure="failed").running() as clerk:
        told = {"api_url": clerk.url, "secret_key": SECRET_KEY}
        async with gateway_under_test(database_url, clerk=told) as gateway:
            reply = await ask(gateway, sub="user_2unasked")
            found = await rows(gateway, STANDING, "user_2unasked")

    assert reply.status == 200
    assert found == [(None, None, None, "admin")]


async def test_x05_hundred_first_requests_of_one_person_make_one_user(database_url: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        replies = await asyncio.gather(*(ask(gateway, sub="user_2crowd", jti=str(number)) for number in range(100)))
        made = await gateway.metric("gateway_provisioned_users_total")
        found = await rows(gateway, STANDING, "user_2crowd")

    assert {reply.status for reply in replies} == {200}
    assert made == 1
    assert len(found) == 1
