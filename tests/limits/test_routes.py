"""Routes with limits, on both lanes: who shares a count, what clients are told, and whom nothing limits."""

import asyncio
import secrets
from typing import Any

import pytest

from tests.support.api_tokens import call, made_token
from tests.support.gateway import ORIGIN, GatewayUnderTest, mint_token
from tests.support.people import administrator
from tests.support.upstream import answering
from tests.support.websockets import handshake, switching, then_echo
from tests.support.wire import Reply, Wire, bearer

pytestmark = pytest.mark.asyncio(loop_scope="module")
BYS = ("token", "user", "organization", "address")
SETTINGS: dict[str, Any] = {
    "trusted_proxies": ["127.0.0.0/8"],
    "rate_limits": {
        **{by: {"limit": "3/minute", "by": by} for by in BYS},
        "soon": {"limit": "1/400ms"},
        "burst": {"limit": "2/minute"},
        "sustained": {"limit": "100/hour", "by": "organization"},
    },
    "websocket": {"max_per_principal": 2},
    "routes": [
        *({"path": f"/{by}/**", "auth": "required", "upstream": "app", "rate_limit": by} for by in BYS),
        {"path": "/soon", "auth": "required", "upstream": "app", "rate_limit": "soon"},
        {"path": "/both", "auth": "required", "upstream": "app", "rate_limit": ["burst", "sustained"]},
        {"path": "/admins", "auth": "required", "roles": ["ADMIN"], "upstream": "app", "rate_limit": "user"},
        {"path": "/anybody", "auth": "optional", "upstream": "app", "rate_limit": "user"},
        {"path": "/public/**", "auth": "none", "upstream": "app", "rate_limit": "address"},
        {"path": "/**", "auth": "required", "upstream": "app"},
    ],
}


def person(**claims: Any) -> str:
    """A session of somebody who was not here before."""
    return mint_token(**({"sub": f"user_{secrets.token_hex(8)}", "sid": f"sess_{secrets.token_hex(8)}"} | claims))


def address() -> str:
    """One that was not here before."""
    return f"198.51.{secrets.randbelow(256)}.{secrets.randbelow(256)}"


async def statuses(gateway: GatewayUnderTest, times: int, target: str, *lines: str) -> list[int]:
    return [(await gateway.get(target, *lines)).status for _ in range(times)]


def limits_of(reply: Reply) -> tuple[str | None, str | None]:
    return reply.get("ratelimit-policy"), reply.get("ratelimit")


async def test_what_is_left_is_told_with_every_answer_and_429_says_when_to_return(gateway: GatewayUnderTest) -> None:
    lines = (bearer(person()), f"X-Forwarded-For: {address()}", f"Origin: {ORIGIN}")
    replies = [await gateway.get("/user/a", *lines) for _ in range(4)]
    refused = replies[3]

    assert [reply.status for reply in replies] == [200, 200, 200, 429]
    assert {reply.get("ratelimit-policy") for reply in replies} == {'"user";q=3;w=60'}
    assert [(reply.get("ratelimit") or "").rpartition(";")[0] for reply in replies] == [
        '"user";r=2',
        '"user";r=1',
        '"user";r=0',
        '"user";r=0',
    ]
    assert refused.code == "rate_limited"
    assert 58 <= int(refused.get("retry-after") or "") <= 60
    assert (refused.get("ratelimit") or "").endswith(f";t={refused.get('retry-after')}")
    assert refused.get("access-control-allow-origin") == ORIGIN
    assert "RateLimit" in (refused.get("access-control-expose-headers") or "")
    assert refused.get("www-authenticate") is None
    assert len(gateway.upstream.received) == 3


async def test_a_browser_gets_a_page(gateway: GatewayUnderTest) -> None:
    token = bearer(person())
    await statuses(gateway, 3, "/user/a", token)
    page = await gateway.get("/user/a", token, "Accept: text/html")

    assert page.status == 429
    assert (page.get("content-type") or "").startswith("text/html")
    assert page.get("retry-after") is not None


async def test_after_the_time_that_was_told_requests_pass_again(gateway: GatewayUnderTest) -> None:
    token = bearer(person())
    before = await statuses(gateway, 2, "/soon", token)
    await asyncio.sleep(0.45)

    assert before == [200, 429]
    assert await statuses(gateway, 1, "/soon", token) == [200]


async def test_a_limit_by_user_holds_for_all_of_their_sessions_and_nobody_else(gateway: GatewayUnderTest) -> None:
    one, other = f"user_{secrets.token_hex(8)}", bearer(person())
    sessions = [bearer(person(sub=one)) for _ in range(2)]
    first = await statuses(gateway, 2, "/user/a", sessions[0])
    second = await statuses(gateway, 2, "/user/b", sessions[1])

    assert first + second == [200, 200, 200, 429]
    assert await statuses(gateway, 1, "/user/a", other) == [200]


async def test_a_limit_by_token_holds_for_a_session_however_often_its_jwt_is_replaced(
    gateway: GatewayUnderTest,
) -> None:
    one = {"sub": f"user_{secrets.token_hex(8)}", "sid": f"sess_{secrets.token_hex(8)}"}
    renewed = [(await statuses(gateway, 1, "/token/a", bearer(person(**one, nonce=turn))))[0] for turn in range(4)]

    assert renewed == [200, 200, 200, 429]
    assert await statuses(gateway, 1, "/token/a", bearer(person(sub=one["sub"]))) == [200]


async def test_a_limit_by_organization_holds_for_its_members_together(gateway: GatewayUnderTest) -> None:
    organization = {"id": f"org_{secrets.token_hex(8)}", "slg": "acme", "rol": "member"}
    members = [bearer(person(o=organization, v=2)) for _ in range(4)]
    together = [(await statuses(gateway, 1, "/organization/a", member))[0] for member in members]

    assert together == [200, 200, 200, 429]
    assert await statuses(gateway, 1, "/organization/a", bearer(person())) == [200]


async def test_a_limit_by_address_counts_what_a_trusted_proxy_says_and_before_credentials(
    gateway: GatewayUnderTest,
) -> None:
    here, there = f"X-Forwarded-For: {address()}", f"X-Forwarded-For: {address()}"
    guesses = await statuses(gateway, 2, "/address/a", here, "Authorization: Bearer a.b.c")
    good = await statuses(gateway, 2, "/address/a", here, bearer(person()))

    assert guesses == [401, 401]
    assert good == [200, 429]
    assert await statuses(gateway, 1, "/address/a", there, bearer(person())) == [200]


async def test_an_address_of_ipv6_counts_with_its_network(gateway: GatewayUnderTest) -> None:
    network = f"2001:db8:{secrets.randbelow(65536):x}:{secrets.randbelow(65536):x}"
    neighbours = [
        (await statuses(gateway, 1, "/public/a", f"X-Forwarded-For: {network}::{host:x}"))[0] for host in range(1, 5)
    ]

    assert neighbours == [200, 200, 200, 429]
    assert await statuses(gateway, 1, "/public/a", "X-Forwarded-For: 2001:db9::1") == [200]


async def test_who_is_nobody_counts_by_address(gateway: GatewayUnderTest) -> None:
    here = f"X-Forwarded-For: {address()}"

    assert await statuses(gateway, 4, "/anybody", here) == [200, 200, 200, 429]
    assert await statuses(gateway, 1, "/anybody", here, bearer(person())) == [200]


async def test_each_of_several_limits_holds_and_is_told(gateway: GatewayUnderTest) -> None:
    token = bearer(person())
    replies = [await gateway.get("/both", token) for _ in range(3)]

    assert [reply.status for reply in replies] == [200, 200, 429]
    assert limits_of(replies[0])[0] == '"burst";q=2;w=60, "sustained";q=100;w=3600'
    assert '"sustained";r=99' in (limits_of(replies[0])[1] or "")


async def test_what_the_upstream_says_of_limits_of_its_own_goes_down_beside_ours(gateway: GatewayUnderTest) -> None:
    gateway.upstream.respond = answering(
        b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRateLimit: "db";r=7;t=1\r\nRetry-After: 9\r\n\r\nok'
    )
    reply = await gateway.get("/user/a", bearer(person()))

    assert reply.all("ratelimit")[0] == '"db";r=7;t=1'
    assert reply.all("ratelimit")[1].startswith('"user";r=2')
    assert reply.get("retry-after") == "9"


async def test_a_request_that_policy_refuses_uses_nothing_up(gateway: GatewayUnderTest) -> None:
    token = bearer(person())

    assert await statuses(gateway, 5, "/admins", token) == [403] * 5
    assert await statuses(gateway, 1, "/user/a", token) == [200]


async def test_routes_without_a_limit_say_nothing_of_any(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get("/free", bearer(person()))

    assert reply.status == 200
    assert limits_of(reply) == (None, None)


async def test_no_more_pass_however_many_come_at_once(gateway: GatewayUnderTest) -> None:
    token = bearer(person())
    await gateway.get("/free", token)
    together = await asyncio.gather(*(gateway.get("/user/a", token) for _ in range(40)))

    assert sorted(reply.status for reply in together) == [200] * 3 + [429] * 37


async def test_a_token_of_an_administrator_may_be_free_of_limits_and_a_session_is_not(
    gateway: GatewayUnderTest,
) -> None:
    sub = f"user_{secrets.token_hex(8)}"
    await administrator(gateway, sub)
    session = person(sub=sub)
    made = await made_token(gateway, session, scopes=["rate-limit:unlimited"])
    plain = await made_token(gateway, session, scopes=[])

    assert await statuses(gateway, 6, "/token/a", bearer(made["token"])) == [200] * 6
    assert await statuses(gateway, 4, "/token/a", bearer(plain["token"])) == [200, 200, 200, 429]
    assert await statuses(gateway, 4, "/token/a", bearer(session)) == [200, 200, 200, 429]


async def test_nobody_else_can_make_a_token_that_is_free_of_limits(gateway: GatewayUnderTest) -> None:
    body = {"name": "Robot", "scopes": ["rate-limit:unlimited"]}
    reply = await call(gateway, person(), "POST", "/users/current/api-tokens", body)

    assert (reply.status, reply.code) == (403, "insufficient_scope")


async def test_refusals_are_counted_by_limit(gateway: GatewayUnderTest) -> None:
    before = await gateway.metric("gateway_rate_limited_total", rule="user")
    await statuses(gateway, 5, "/user/a", bearer(person()))

    assert await gateway.metric("gateway_rate_limited_total", rule="user") == before + 2


async def test_a_reload_forgives_nothing_and_a_changed_limit_begins_anew(gateway: GatewayUnderTest) -> None:
    token = bearer(person())
    await statuses(gateway, 3, "/user/a", token)

    assert await gateway.reload(drain_grace="19s", websocket={"max_per_principal": 2})
    assert await statuses(gateway, 1, "/user/a", token) == [429]
    assert await gateway.reload(rate_limits={"user": {"limit": "4/minute", "by": "user"}})
    assert await statuses(gateway, 1, "/user/a", token) == [200]
    assert await gateway.reload()


async def opened(wire: Wire, *lines: str) -> Reply | None:
    """Open a websocket; gives what was answered in its place, if it was refused."""
    await wire.send(handshake("/ws", *lines))
    head = await wire.reader.readuntil(b"\r\n\r\n")
    return None if head.startswith(b"HTTP/1.1 101 ") else Reply(int(head[9:12]), [], head)


async def test_one_websocket_too_many_is_refused_before_it_goes_up(gateway: GatewayUnderTest) -> None:
    gateway.upstream.respond_early = then_echo(switching())
    token = bearer(person())
    async with gateway.wire() as first, gateway.wire() as second, gateway.wire() as somebody:
        assert [await opened(wire, token) for wire in (first, second)] == [None, None]
        refused = await gateway.ask(handshake("/ws", token))
        assert await opened(somebody, bearer(person())) is None
    async with asyncio.timeout(10):
        while True:
            async with gateway.wire() as again:
                if await opened(again, token) is None:  # as soon as one of them is gone
                    break
                await asyncio.sleep(0.02)

    assert (refused.status, refused.code) == (429, "websocket_limit_reached")
    assert refused.get("retry-after") == "5"
