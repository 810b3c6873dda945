"""D07: whoever guesses credentials is stopped, and nobody else is."""

import asyncio
import secrets
from typing import Any

import pytest

from tests.support.api_tokens import made_token, written_token
from tests.support.gateway import ROUTES, GatewayUnderTest, mint_token
from tests.support.wire import bearer

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = {
    "trusted_proxies": ["127.0.0.0/8"],
    "rate_limits": {"guesses": {"limit": "5/minute", "counts": "failed_credentials"}},
    "routes": ROUTES,
}


def guess(public_id: str | None = None) -> str:
    """An API token of the right form that does not exist."""
    return bearer(written_token(public_id or secrets.token_hex(6), secrets.token_hex(22)[:43]))


def at(address: str) -> str:
    return f"X-Forwarded-For: {address}"


def anywhere() -> str:
    return f"203.0.{secrets.randbelow(256)}.{secrets.randbelow(256)}"


async def statuses(gateway: GatewayUnderTest, *requests: tuple[str, ...]) -> list[int]:
    return [(await gateway.get("/a", *lines)).status for lines in requests]


STOPPED = [401] * 5 + [429] * 3


async def test_d07_many_ids_from_one_address(gateway: GatewayUnderTest) -> None:
    here = at(anywhere())
    known, unknown = mint_token(), mint_token(sub=f"user_{secrets.token_hex(8)}")
    assert await statuses(gateway, *[(at(anywhere()), bearer(known))] * 3) == [200] * 3

    assert await statuses(gateway, *[(here, guess()) for _ in range(8)]) == STOPPED
    assert await statuses(gateway, (here, bearer(unknown)), (here, bearer(known))) == [429, 200]
    assert await statuses(gateway, (at(anywhere()), bearer(unknown))) == [200]


async def test_d07_one_id_from_many_addresses_which_does_not_lock_its_owner_out(gateway: GatewayUnderTest) -> None:
    token = (await made_token(gateway))["token"]
    public_id = token[4:16]

    assert await statuses(gateway, *[(at(anywhere()), guess(public_id)) for _ in range(8)]) == STOPPED
    assert await statuses(gateway, (at(anywhere()), bearer(token))) == [200]


async def test_d07_one_prefix_of_ipv6(gateway: GatewayUnderTest) -> None:
    network = f"2001:db8:{secrets.randbelow(65536):x}:1"

    assert await statuses(gateway, *[(at(f"{network}::{host:x}"), guess()) for host in range(1, 9)]) == STOPPED
    assert await statuses(gateway, (at("2001:db8:ffff:2::1"), guess())) == [401]


async def test_d07_sessions_signed_by_somebody_else_are_guesses(gateway: GatewayUnderTest) -> None:
    here, token = at(anywhere()), mint_token(sub=f"user_{secrets.token_hex(8)}")
    forged = [f"{token[:-8]}{secrets.token_hex(4)}" for _ in range(8)]

    assert await statuses(gateway, *[(here, bearer(one)) for one in forged]) == STOPPED


async def test_d07_guesses_on_any_route_count_together(gateway: GatewayUnderTest) -> None:
    here = at(anywhere())
    found = [(await gateway.get(path, here, guess())).status for path in ("/a", "/users/current", "/optional/b") * 2]

    assert found == [401] * 5 + [429]


async def test_d07_many_guesses_at_once_are_stopped_too(gateway: GatewayUnderTest) -> None:
    here = at(anywhere())
    found = await asyncio.gather(*(gateway.get("/a", here, guess()) for _ in range(30)))

    assert sorted(reply.status for reply in found) == [401] * 5 + [429] * 25
    refused = next(reply for reply in found if reply.status == 429)
    assert refused.code == "rate_limited"
    assert 1 <= int(refused.get("retry-after") or "") <= 60


async def test_d07_what_is_stale_or_missing_is_no_guess(gateway: GatewayUnderTest) -> None:
    here = at(anywhere())
    expired = [mint_token(sub=f"user_{number}", exp=1_600_000_000, iat=1_500_000_000) for number in range(8)]

    assert await statuses(gateway, *[(here, bearer(one)) for one in expired]) == [401] * 8
    assert await statuses(gateway, *[(here,)] * 8) == [401] * 8
    assert await statuses(gateway, (here, bearer(mint_token(sub=f"user_{secrets.token_hex(8)}")))) == [200]


async def test_d07_refusals_are_counted(gateway: GatewayUnderTest) -> None:
    before = await gateway.metric("gateway_rate_limited_total", rule="guesses")
    here = at(anywhere())
    await statuses(gateway, *[(here, guess()) for _ in range(7)])

    assert await gateway.metric("gateway_rate_limited_total", rule="guesses") == before + 2
