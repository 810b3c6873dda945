"""What a proxy that the settings name may tell of the client."""

import pytest
from pydantic import ValidationError

from tests.support.gateway import GatewayUnderTest, gateway_under_test
from tests.support.wire import request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS = {"trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8"]}


async def test_trusted_proxy_tells_address_scheme_host_and_request_id(gateway: GatewayUnderTest) -> None:
    await gateway.get(
        "/public/x",
        "X-Forwarded-For: 203.0.113.9, 10.0.0.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: www.example.com",
        "X-Request-Id: of-the-edge-123",
    )

    seen = gateway.upstream.last
    assert seen.one("x-forwarded-for") == "203.0.113.9"
    assert seen.one("x-forwarded-proto") == "https"
    assert seen.one("x-forwarded-host") == "www.example.com"
    assert seen.one("x-forwarded-port") == "443"
    assert seen.one("x-request-id") == "of-the-edge-123"
    assert seen.one("host") == "app.example.test"


@pytest.mark.parametrize("proto", ["https, http", "javascript", ""])
async def test_f04_scheme_that_is_none_is_ignored(gateway: GatewayUnderTest, proto: str) -> None:
    await gateway.get("/public/x", f"X-Forwarded-Proto: {proto}")

    assert gateway.upstream.last.one("x-forwarded-proto") == "http"


@pytest.mark.parametrize(
    "value,address",
    [
        ("1.1.1.1, 10.0.0.1", "1.1.1.1"),
        ("6.6.6.6, 1.1.1.1, 10.0.0.1", "1.1.1.1"),
        ("unknown", "127.0.0.1"),
        ('"::1"', "127.0.0.1"),
        (", ".join(["10.0.0.1"] * 200), "10.0.0.1"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
async def test_f05_client_is_the_first_untrusted_hop_from_the_right(
    gateway: GatewayUnderTest, value: str, address: str
) -> None:
    await gateway.get("/public/x", f"X-Forwarded-For: {value}")

    assert gateway.upstream.last.one("x-forwarded-for") == address


@pytest.mark.parametrize("name", ["X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-Prefix", "X-Original-URL"])
async def test_f03_even_a_trusted_proxy_does_not_choose_the_target(gateway: GatewayUnderTest, name: str) -> None:
    reply = await gateway.get("/x", f"{name}: /public/x")

    assert reply.status == 401
    assert gateway.upstream.received == []


@pytest.mark.parametrize("request_id", ["a b c d e f g h", 'x"y' * 5, "x" * 129])
async def test_request_id_that_could_forge_a_log_line_is_replaced(gateway: GatewayUnderTest, request_id: str) -> None:
    await gateway.ask(request("/public/x", f"X-Request-Id: {request_id}"))

    assert gateway.upstream.last.one("x-request-id") != request_id


@pytest.mark.parametrize("everybody", ["0.0.0.0/0", "::/0"])
async def test_f06_gateway_does_not_start_when_everybody_is_trusted(database_url: str, everybody: str) -> None:
    with pytest.raises((ValueError, ValidationError)):
        async with gateway_under_test(database_url, trusted_proxies=[everybody]):
            pass
