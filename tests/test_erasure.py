"""What is left of a person who is deleted: every column of every table is looked through."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from provisioning.database.pool import Database
from provisioning.erasure import erase_late
from tests.support.api_tokens import made_token
from tests.support.clerk_webhooks import SECRET, send, user
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.outboxes import rows
from tests.support.tokens import execute
from tests.support.wire import bearer, request

GONE, KEPT = "user_2gone", "user_2kept"
ADDRESS, AGENT = "203.0.113.77", "Marked/1.0"
MARKS = "marked|203[.]0[.]113[.]77"
NAMED = {
    "api_tokens.last_used_address",
    "api_tokens.name",
    "logins.address",
    "logins.user_agent",
    "organizations.name",
    "outbox.payload",
    "users.email",
    "users.name",
    "users.settings",
    "users.verified_email",
}
TRAIL = {"audit_events.address", "audit_events.metadata", "audit_events.user_agent"}
"""Nothing is taken out of it: docs/decisions/032."""
NOWHERE = "http://127.0.0.1:9"
SETTINGS: dict[str, Any] = {
    "trusted_proxies": ["127.0.0.1"],
    "clerk": {"webhook_secrets": [SECRET], "allow_insecure_http": True},
    "slack": {"webhook_url": f"{NOWHERE}/services/x"},
    "posthog": {"host": NOWHERE, "project_key": "phc_x"},
    "stripe": {"secret_key": "sk_test_x", "price_id": "price_x", "api_url": NOWHERE},
    "outbox": {"deliver": False},
}


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        yield opened


def session(clerk_id: str, number: int = 1, **claims: Any) -> str:
    """A token that says what a person is called."""
    named: dict[str, Any] = {"name": "Marked Person", "email": "marked@example.com"}
    return mint_token(sub=clerk_id, sid=f"sess_{clerk_id}{number}", **named, **claims)


async def ask(gateway: GatewayUnderTest, token: str, target: str = "/x", **how: Any) -> int:
    """Ask from a place of their own."""
    where = f"X-Forwarded-For: {ADDRESS}", f"User-Agent: {AGENT}"
    return (await gateway.ask(request(target, bearer(token), *where, *how.pop("lines", ()), **how))).status


async def named(database: Database) -> set[str]:
    """Every column in which a mark is."""
    async with database.connection() as connection:
        columns = await connection.fetch(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        )
        found = set()
        for table, column in columns:
            query = f'SELECT EXISTS (SELECT FROM "{table}" WHERE "{column}"::text ~* $1)'
            if await connection.fetchval(query, MARKS):
                found.add(f"{table}.{column}")
    return found


async def until_named(database: Database, wanted: set[str]) -> set[str]:
    """Wait for what is written beside requests."""
    async with asyncio.timeout(30):
        while not wanted <= (found := await named(database)):  # noqa: ASYNC110 - a row wakes nobody
            await asyncio.sleep(0.1)
    return found


async def waiting(database: Database) -> list[tuple[int, object]]:
    """What is still to be told, and of whom it says what."""
    return [(row["id"], row["payload"]) for row in await rows(database) if row["state"] == "pending"]


async def live(gateway: GatewayUnderTest, clerk_id: str) -> None:
    """Do whatever leaves something behind."""
    person = {"first_name": "Marked", "last_name": "Person", "email": "marked@example.com"}
    body = orjson.dumps({"note": "marked"})
    lines = ("Content-Type: application/json",)
    assert await send(gateway, "user.created", user(clerk_id, 1, **person)) == "applied"
    assert await ask(gateway, session(clerk_id)) == 200
    assert await ask(gateway, session(clerk_id, 2, o={"id": f"org_2{clerk_id}", "slg": "x", "rol": "admin"})) == 200
    settings = await ask(gateway, session(clerk_id), "/users/current/settings", method="PATCH", body=body, lines=lines)
    assert settings == 200
    token = await made_token(gateway, session(clerk_id), name="Marked's laptop")
    assert await ask(gateway, token["token"]) == 200


async def test_nothing_but_the_audit_trail_names_a_person_who_is_deleted(database_url: str, database: Database) -> None:
    async with gateway_under_test(database_url, **SETTINGS) as gateway:
        await live(gateway, GONE)
        acting = mint_token(sub="user_2other", sid="sess_other", act={"sub": GONE})
        assert await ask(gateway, acting) == 200
        before = await until_named(database, NAMED)
        outcome = await send(gateway, "user.deleted", {"id": GONE, "object": "user", "deleted": True})
        refused = await ask(gateway, session(GONE))
        left = await named(database)

    assert before == NAMED | TRAIL
    assert (outcome, refused) == ("applied", 401)
    assert left == TRAIL


async def test_nobody_else_loses_anything(database_url: str, database: Database) -> None:
    async with gateway_under_test(database_url, **SETTINGS) as gateway:
        await live(gateway, KEPT)
        await until_named(database, NAMED)
        before = await waiting(database)
        assert await ask(gateway, mint_token(sub=GONE, sid="sess_gone")) == 200
        await send(gateway, "user.deleted", {"id": GONE, "object": "user", "deleted": True})
        after = await waiting(database)

        assert await named(database) == NAMED | TRAIL
        assert len(before) >= 5
        assert after == before


async def test_the_trial_of_an_organization_goes_on_without_the_address_of_who_began_it(
    database_url: str, database: Database
) -> None:
    async with gateway_under_test(database_url, **SETTINGS) as gateway:
        await live(gateway, GONE)
        await until_named(database, NAMED)
        await send(gateway, "user.deleted", {"id": GONE, "object": "user", "deleted": True})
    (trial,) = [row for row in await rows(database) if row["state"] == "pending"]

    assert (trial["topic"], trial["payload"]["email"], trial["payload"]["erased"]) == ("stripe", None, True)
    assert {row["state"] for row in await rows(database) if row["id"] != trial["id"]} == {"delivered"}


async def test_what_is_written_while_a_person_is_being_deleted_is_erased_a_little_later(
    database_url: str, database: Database
) -> None:
    async with gateway_under_test(database_url, **SETTINGS) as gateway:
        await live(gateway, GONE)
        await until_named(database, NAMED)
        await send(gateway, "user.deleted", {"id": GONE, "object": "user", "deleted": True})
    await execute(database, f"UPDATE api_tokens SET last_used_address = '{ADDRESS}'")
    await execute(
        database,
        "INSERT INTO logins SELECT 'sess_late', id, 'org_x', NULL, $1, 'Marked', $2, $2 FROM users WHERE clerk_id = $3",
        ADDRESS,
        datetime.now(UTC),
        GONE,
    )

    assert await named(database) > TRAIL
    assert await erase_late(database) == 1
    assert await named(database) == TRAIL
