"""Signing keys that change, lie or stay away, end to end; `tests/verify/test_signing_keys.py` holds the timing."""

import asyncio
from typing import Any

import pytest

from tests.support.clerk_keys import jwk, jwks
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.jwks_server import (
    Answer,
    dropped,
    empty_keys,
    hang,
    html,
    redirect,
    slow_body,
    status_500,
    too_large,
)
from tests.support.wire import Reply, bearer

BAD_SOURCES = [status_500, html, empty_keys, too_large, dropped, redirect, hang, slow_body]
QUICK: dict[str, Any] = {"clerk": {"jwks": {"ttl": "200ms", "cooldown": "50ms", "stale_ceiling": "600ms"}}}
DEADLINE_S = 20.0


async def until(gateway: GatewayUnderTest, status: int, **claims: Any) -> Reply:
    """Ask until the answer has this status, for as long as a slow machine may need."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            reply = await gateway.get("/x", bearer(mint_token(**claims)))
            if reply.status == status:
                return reply
            await asyncio.sleep(0.02)


async def test_k01_flood_of_unknown_key_ids_makes_one_fetch(database_url: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        await gateway.get("/x", bearer(mint_token()))
        before = gateway.jwks.fetches

        replies = [await gateway.get("/x", bearer(mint_token(kid=f"ins_{number}"))) for number in range(50)]
        good = await gateway.get("/x", bearer(mint_token()))

        assert {reply.status for reply in replies} == {401}
        assert good.status == 200
        assert gateway.jwks.fetches <= before + 1


async def test_k02_flood_of_bad_signatures_makes_one_fetch_and_the_key_stays(database_url: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        await gateway.get("/x", bearer(mint_token()))
        before = gateway.jwks.fetches

        replies = [await gateway.get("/x", bearer(mint_token(key="forger", jti=str(n)))) for n in range(50)]
        good = await gateway.get("/x", bearer(mint_token()))

        assert {reply.status for reply in replies} == {401}
        assert good.status == 200
        assert gateway.jwks.fetches <= before + 1


@pytest.mark.parametrize("answer", BAD_SOURCES, ids=lambda answer: answer.__name__)
async def test_k03_old_keys_serve_while_their_source_fails(database_url: str, answer: Answer) -> None:
    async with gateway_under_test(database_url, clerk={"jwks": {"ttl": "100ms", "cooldown": "50ms"}}) as gateway:
        await gateway.get("/x", bearer(mint_token()))
        gateway.jwks.answer = answer
        await asyncio.sleep(0.2)

        reply = await gateway.get("/x", bearer(mint_token(jti="another")))

        assert reply.status == 200


async def test_k03_after_the_ceiling_nobody_can_be_checked_until_the_source_is_back(database_url: str) -> None:
    async with gateway_under_test(database_url, **QUICK) as gateway:
        await gateway.get("/x", bearer(mint_token()))
        gateway.jwks.answer = status_500

        reply = await until(gateway, 503)

        assert reply.code == "verifier_unavailable"
        assert int(reply.get("retry-after") or 0) >= 1
        assert reply.all("www-authenticate") == []
        assert await gateway.metric("gateway_jwks_fetches_total", result="status") > 0
        gateway.jwks.answer = None
        await until(gateway, 200)


@pytest.mark.parametrize("answer", [status_500, hang, dropped], ids=lambda answer: answer.__name__)
async def test_k03_cold_start_without_keys_is_unavailable_and_never_anonymous(
    database_url: str, answer: Answer
) -> None:
    async with gateway_under_test(database_url, jwks_answer=answer) as gateway:
        required, optional, anonymous = await asyncio.gather(
            *(gateway.get(target, bearer(mint_token())) for target in ("/x", "/optional/x", "/public/x"))
        )

        assert [required.status, optional.status, anonymous.status] == [503, 503, 200]
        assert required.get("retry-after")
        assert len(gateway.upstream.received) == 1


async def test_k04_rotated_key_is_found_while_many_wait_and_the_old_one_is_refused(database_url: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        old = mint_token()
        await gateway.get("/x", bearer(old))
        before = gateway.jwks.fetches
        gateway.jwks.body = jwks(jwk("rotated", "ins_2new"))

        replies = await asyncio.gather(
            *(gateway.get("/x", bearer(mint_token(key="rotated", kid="ins_2new", jti=str(n)))) for n in range(100))
        )
        stale = await gateway.get("/x", bearer(old))

        assert {reply.status for reply in replies} == {200}
        assert gateway.jwks.fetches == before + 1
        assert stale.status == 401


async def test_k05_keys_that_cannot_be_used_are_skipped(database_url: str) -> None:
    odd: list[Any] = [
        {"kty": "oct", "kid": "ins_oct", "k": "c2VjcmV0"},
        jwk("private", "ins_private", d="AQAB"),
        jwk("encrypting", "ins_enc", use="enc"),
        jwk("main", "ins_wrong_alg", alg="RS512"),
        {"kty": "EC", "kid": "ins_ec", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "RSA", "kid": "ins_small", "n": "AQAB", "e": "AQAB"},
        "text",
        None,
    ]
    async with gateway_under_test(database_url, jwks_body=jwks(*odd, jwk())) as gateway:
        good = await gateway.get("/x", bearer(mint_token()))
        bad = [await gateway.get("/x", bearer(mint_token(kid=f"ins_{n}"))) for n in ("oct", "enc", "wrong_alg", "ec")]

        assert good.status == 200
        assert {reply.status for reply in bad} == {401}


async def test_r03_redirect_of_the_key_set_is_not_followed(database_url: str) -> None:
    async with gateway_under_test(database_url, jwks_answer=redirect) as gateway:
        reply = await gateway.get("/x", bearer(mint_token()))

        assert reply.status == 503
        assert gateway.jwks.elsewhere == 0
