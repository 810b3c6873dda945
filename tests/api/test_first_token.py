"""The API token that a new user finds waiting, made by a gateway that serves."""

from typing import Any

import asyncpg

from provisioning.new_tokens import ONE_TIME_SECRETS
from provisioning.sealing import Sealer
from provisioning.token_text import parse_token
from tests.support.gateway import MASTER_KEY, GatewayUnderTest, gateway_under_test, mint_token
from tests.support.wire import bearer


async def token_rows(database_url: str) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(database_url)
    try:
        return [dict(row) for row in await connection.fetch("SELECT * FROM api_tokens ORDER BY created_at")]
    finally:
        await connection.close()


async def arrive(gateway: GatewayUnderTest, subject: str) -> str:
    reply = await gateway.get("/users/current", bearer(mint_token(sub=subject)))
    return str(reply.json()["id"])


async def test_a_new_user_gets_one_token_with_the_scopes_and_the_life_of_the_settings(database_url: str) -> None:
    tokens = {"scopes": ["reports:read", "reports:write"], "max_life": "30d"}
    async with gateway_under_test(database_url, tokens=tokens) as gateway:
        user_id = await arrive(gateway, "user_alice")
        await arrive(gateway, "user_alice")
        (row,) = await token_rows(database_url)

    assert row["user_id"] == user_id
    assert row["scopes"] == ["reports:read", "reports:write"]
    assert (row["expires_at"] - row["created_at"]).days == 30


async def test_its_secret_is_sealed_under_the_master_key_and_nowhere_else(database_url: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        await arrive(gateway, "user_alice")
        (row,) = await token_rows(database_url)
    text = Sealer(MASTER_KEY, ONE_TIME_SECRETS).unseal(row["sealed_secret"], row["id"]).decode()
    parsed = parse_token(text)

    assert parsed is not None
    assert (parsed.public_id, parsed.digest()) == (row["public_id"], row["digest"])
    assert text[16:].encode() not in b"".join(value for value in row.values() if isinstance(value, bytes))


async def test_it_can_be_switched_off_and_reloaded(database_url: str) -> None:
    async with gateway_under_test(database_url, provisioning={"first_api_token": False}) as gateway:
        await arrive(gateway, "user_alice")
        before = await token_rows(database_url)
        reloaded = await gateway.reload(provisioning={"first_api_token": True}, tokens={"scopes": ["reports:read"]})
        await arrive(gateway, "user_bob")
        (row,) = await token_rows(database_url)

    assert (before, reloaded) == ([], True)
    assert row["scopes"] == ["reports:read"]


async def test_another_master_key_is_not_taken_while_signing_keys_are_sealed_under_this_one(database_url: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        assert not await gateway.reload(secrets={"master_key": "other-" + MASTER_KEY})


async def test_a_reload_of_its_rules_counts_for_the_next_user(database_url: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        assert await gateway.reload(tokens={"scopes": ["a"]})
        await arrive(gateway, "user_alice")
        (row,) = await token_rows(database_url)
        key = gateway.reloader.current.settings.secrets.master_key
    assert key is not None
    sealer = Sealer(key.get_secret_value(), ONE_TIME_SECRETS)

    assert parse_token(sealer.unseal(row["sealed_secret"], row["id"]).decode()) is not None
    assert row["scopes"] == ["a"]
