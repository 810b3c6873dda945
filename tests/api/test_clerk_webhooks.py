"""`POST /webhooks/clerk` over a real socket: what is taken, what is refused, and what ends at once."""

import asyncio
import time
from typing import Any

import pytest

from tests.support.api_tokens import PATH, call, made_token, value
from tests.support.clerk_webhooks import (
    INSTANCE,
    OTHER_SECRET,
    SECRET,
    SETTINGS,
    TARGET,
    Delivery,
    envelope,
    membership,
    send,
    session,
    user,
)
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.minted import ROUTES, websocket_token
from tests.support.postgres import PostgresServer
from tests.support.upstream import until
from tests.support.websocket_clients import open_with_websockets
from tests.support.websockets import echo_server
from tests.support.wire import Reply, bearer, request

ALICE, ACME = "user_2alice", "org_2acme"
NOW_MS = 1_700_000_000_000


def at_acme(role: str = "member", **claims: Any) -> str:
    return mint_token(sub=ALICE, o={"id": ACME, "slg": "acme", "rol": role}, **claims)


async def comes(gateway: GatewayUnderTest, token: str) -> Reply:
    return await gateway.get("/x", bearer(token))


@pytest.fixture(params=[True, False], ids=["fast_lane", "aiohttp_lane"])
async def gateway(request: pytest.FixtureRequest, database_url: str) -> Any:
    async with gateway_under_test(database_url, fast_lane=request.param, **SETTINGS) as running:
        yield running


async def test_person_is_told_of_before_they_come(gateway: GatewayUnderTest) -> None:
    assert await send(gateway, "user.created", user(ALICE, NOW_MS, email="alice@example.com")) == "applied"

    shown = (await gateway.get("/users/current", bearer(mint_token(sub=ALICE)))).json()

    assert (shown["name"], shown["email"], shown["clerkId"]) == ("Alice Ng", "alice@example.com", ALICE)
    assert len(shown["apiTokens"]) == 1
    assert await value(gateway, "SELECT count(*) FROM users") == 1


async def test_change_is_seen_by_the_next_request(gateway: GatewayUnderTest) -> None:
    token = mint_token(sub=ALICE)
    before = (await gateway.get("/users/current", bearer(token))).json()
    await send(gateway, "user.updated", user(ALICE, NOW_MS))

    after = (await gateway.get("/users/current", bearer(token))).json()

    assert (before["name"], after["name"]) == (None, "Alice Ng")


async def test_delivery_that_comes_again_is_told_from_a_new_one(gateway: GatewayUnderTest) -> None:
    delivery = Delivery(envelope("user.created", user(ALICE, NOW_MS)))

    outcomes = [(await delivery.send(gateway)).json()["outcome"] for _ in range(2)]

    assert outcomes == ["applied", "duplicate"]


async def test_events_without_an_effect_are_acknowledged(gateway: GatewayUnderTest) -> None:
    for kind in ("email.created", "session.created", "session.pending", "role.deleted", "something.new"):
        assert await send(gateway, kind, {"id": "x"}) == "ignored"


async def test_v01_deleted_person_is_refused_while_their_token_lives(gateway: GatewayUnderTest) -> None:
    token = mint_token(sub=ALICE)
    assert (await comes(gateway, token)).status == 200
    await send(gateway, "user.deleted", {"object": "user", "id": ALICE, "deleted": True})

    refused = [await comes(gateway, token) for _ in range(2)]
    await send(gateway, "user.created", user(ALICE, NOW_MS * 2))
    refused.append(await comes(gateway, mint_token(sub=ALICE)))

    assert {(reply.status, reply.code) for reply in refused} == {(401, "user_deleted")}


async def test_person_deleted_before_they_came_is_refused(gateway: GatewayUnderTest) -> None:
    await send(gateway, "user.deleted", {"object": "user", "id": ALICE, "deleted": True})

    for token in (mint_token(sub=ALICE), at_acme()):
        reply = await comes(gateway, token)
        assert (reply.status, reply.code) == (401, "user_deleted")
    assert await value(gateway, "SELECT count(*) FROM organizations") == 0


async def test_api_token_ends_with_its_person(gateway: GatewayUnderTest) -> None:
    made = await made_token(gateway, mint_token(sub=ALICE))
    assert (await comes(gateway, made["token"])).status == 200

    await send(gateway, "user.deleted", {"id": ALICE, "deleted": True})

    reply = await comes(gateway, made["token"])
    assert (reply.status, reply.code) == (401, "user_deleted")


async def test_v01_banned_person_is_refused_until_they_are_not(gateway: GatewayUnderTest) -> None:
    token = mint_token(sub=ALICE)
    made = await made_token(gateway, mint_token(sub=ALICE))
    statuses = []
    for banned in (True, False):
        await send(gateway, "user.updated", user(ALICE, NOW_MS + (not banned), banned=banned))
        statuses.append([(await comes(gateway, one)).status for one in (token, made["token"])])

    assert statuses == [[403, 403], [200, 200]]


async def test_v01_who_left_is_out_at_once_and_a_new_token_tells_of_their_return(gateway: GatewayUnderTest) -> None:
    old = at_acme()
    made = (await call(gateway, old, "POST", PATH, {"name": "CI", "scopes": []})).json()
    now = await value(gateway, "SELECT (extract(epoch FROM now()) * 1000)::bigint")
    assert [(await comes(gateway, one)).status for one in (old, made["token"])] == [200, 200]

    await send(gateway, "organizationMembership.deleted", membership(ALICE, ACME, 1), at_ms=now + 1000)
    refused = [await comes(gateway, one) for one in (old, made["token"], old)]
    back = await comes(gateway, at_acme(now=now / 1000 + 3))

    assert {(reply.status, reply.code) for reply in refused} == {(403, "organization_left")}
    assert back.status == 200
    assert await value(gateway, "SELECT count(*) FROM memberships") == 1


async def test_v01_changed_role_is_seen_by_what_goes_by_the_records(gateway: GatewayUnderTest) -> None:
    await send(gateway, "organizationMembership.created", membership(ALICE, ACME, NOW_MS, "org:admin"))
    made = (await call(gateway, at_acme("admin"), "POST", PATH, {"name": "CI", "scopes": []})).json()
    later = await value(gateway, "SELECT (extract(epoch FROM now()) * 1000)::bigint + 5000")
    roles = []
    for _ in range(2):
        await comes(gateway, made["token"])
        roles.append(gateway.upstream.last.one("x-organization-role"))
        await send(gateway, "organizationMembership.updated", membership(ALICE, ACME, later, "org:member"))

    assert roles == ["admin", "member"]


@pytest.mark.parametrize(
    ("before", "after", "kept"), [("admin", "member", ""), ("member", "admin", "org:reports:read")]
)
async def test_v01_changed_role_counts_for_session_tokens_from_before_it_too(
    gateway: GatewayUnderTest, before: str, after: str, kept: str
) -> None:
    place = {"id": ACME, "slg": "acme", "rol": before, "per": "read", "fpm": "1"}
    old = mint_token(sub=ALICE, o=place, fea="o:reports")
    later = await value(gateway, "SELECT (extract(epoch FROM now()) * 1000)::bigint + 1000")
    seen = []
    for _ in range(2):
        assert (await comes(gateway, old)).status == 200
        last = gateway.upstream.last
        seen.append((last.one("x-organization-role"), last.one("x-organization-permissions")))
        changed = membership(ALICE, ACME, later, f"org:{after}")
        await send(gateway, "organizationMembership.updated", changed, at_ms=later)
    statements = await value(gateway, "SELECT count(*) FROM audit_events WHERE action = 'membership.role_changed'")

    assert seen == [(before, "org:reports:read"), (after, kept)]
    assert statements == 1
    await comes(gateway, at_acme(before, now=later / 1000 + 3))
    assert gateway.upstream.last.one("x-organization-role") == before  # a token from after it knows better


async def test_v01_members_of_a_deleted_organization_are_out(gateway: GatewayUnderTest) -> None:
    token = at_acme()
    assert (await comes(gateway, token)).status == 200
    await send(gateway, "organization.deleted", {"object": "organization", "id": ACME, "deleted": True})

    reply = await comes(gateway, token)

    assert (reply.status, reply.code) == (403, "organization_left")
    assert (await comes(gateway, mint_token(sub=ALICE))).status == 200


async def test_v01_other_processes_see_it_once_what_they_remember_is_old(
    gateway: GatewayUnderTest, database_url: str
) -> None:
    brief = {"near_ttl": "1ms", "degraded_ttl": "1ms"}
    async with gateway_under_test(database_url, cache=brief) as other:
        tokens = [mint_token(sub=ALICE), at_acme()]
        assert [(await comes(other, token)).status for token in tokens] == [200, 200]
        left = membership(ALICE, ACME, 1)
        await send(gateway, "organizationMembership.deleted", left, at_ms=int(time.time() * 1000) + 1000)
        await asyncio.sleep(0.002)
        first = [(await comes(other, token)).status for token in tokens]
        await send(gateway, "user.deleted", {"id": ALICE, "deleted": True})
        await asyncio.sleep(0.002)
        second = [(await comes(other, token)).status for token in tokens]

    assert (first, second) == ([200, 403], [401, 401])


async def test_v01_person_known_to_have_changed_is_not_served_from_memory_in_an_outage(
    postgres_server: PostgresServer,
) -> None:
    async with gateway_under_test(postgres_server.url, **SETTINGS) as gateway:
        alice, bob = mint_token(sub=ALICE), mint_token(sub="user_2bob")
        assert [(await comes(gateway, token)).status for token in (alice, bob)] == [200, 200]
        await send(gateway, "user.updated", user(ALICE, NOW_MS, banned=True))
        await postgres_server.stop()

        replies = [await comes(gateway, token) for token in (alice, bob)]

    assert [reply.status for reply in replies] == [503, 200]


async def test_x04_organization_that_takes_the_slug_of_a_deleted_one_is_another(gateway: GatewayUnderTest) -> None:
    await comes(gateway, at_acme())
    before = gateway.upstream.last.one("x-organization-id")
    await send(gateway, "organization.deleted", {"id": ACME, "slug": "acme", "deleted": True})

    heir = mint_token(sub="user_2bob", o={"id": "org_2heir", "slg": "acme", "rol": "member"})
    assert (await comes(gateway, heir)).status == 200

    assert gateway.upstream.last.one("x-organization-id") != before
    assert (await comes(gateway, at_acme())).status == 403


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("session.revoked", session("session.revoked", "sess_2testSession", ALICE)["data"]),
        ("user.deleted", {"id": ALICE, "deleted": True}),
        ("user.updated", user(ALICE, NOW_MS, banned=True)),
        ("organizationMembership.deleted", membership(ALICE, ACME, NOW_MS * 2)),
        ("organization.deleted", {"id": ACME, "deleted": True}),
        ("organizationMembership.updated", membership(ALICE, ACME, NOW_MS * 2, "org:admin")),
    ],
    ids=lambda word: word if isinstance(word, str) else "",
)
async def test_w07_what_ends_at_clerk_closes_its_websockets_here(database_url: str, kind: str, data: Any) -> None:
    async with (
        echo_server() as url,
        gateway_under_test(database_url, upstreams={"app": {"url": url}}, routes=ROUTES, **SETTINGS) as gateway,
    ):
        place = {"id": ACME, "slg": "acme", "rol": "member"}
        token = await websocket_token(gateway, sub=ALICE, o=place)
        other = await websocket_token(gateway, sub="user_2bob", sid="sess_2bob", o={**place, "id": "org_2other"})
        address = f"ws://127.0.0.1:{gateway.port}/ws/a?token="
        async with open_with_websockets(address + token) as client, open_with_websockets(address + other) as stays:
            await send(gateway, kind, data)

            assert await client.ended() == 4401
            await stays.send("still here")
            assert await stays.receive() == "still here"
        await until(lambda: not len(gateway.reloader.home.live))


async def test_other_sessions_of_a_person_stay(database_url: str) -> None:
    async with (
        echo_server() as url,
        gateway_under_test(database_url, upstreams={"app": {"url": url}}, routes=ROUTES, **SETTINGS) as gateway,
    ):
        token = await websocket_token(gateway, sub=ALICE)
        async with open_with_websockets(f"ws://127.0.0.1:{gateway.port}/ws/a?token={token}") as client:
            for kind in ("session.ended", "session.created"):
                event = session(kind, "sess_another" if kind == "session.ended" else "sess_2testSession", ALICE)
                await send(gateway, kind, event["data"])
            await client.send("hello")

            assert await client.receive() == "hello"


async def test_whatever_is_malformed_is_400(gateway: GatewayUnderTest) -> None:
    good = Delivery(envelope("user.created", user(ALICE, NOW_MS)))
    kind, id_, timestamp, signed = good.lines
    deliveries: list[tuple[list[str], bytes]] = [
        ([], b""),
        ([kind], good.body),
        ([id_, timestamp], good.body),
        ([id_, timestamp, "svix-signature:  "], good.body),
        ([id_, timestamp, "svix-signature: v1"], good.body),
        ([id_, timestamp, "svix-signature: v1,!!"], good.body),
        ([id_, timestamp, "svix-signature: v1,\xe4\xf6"], good.body),
        ([id_, timestamp, signed, signed], good.body),
        ([id_, "svix-timestamp: soon", signed], good.body),
        ([id_, "svix-timestamp: 1e9", signed], good.body),
        ([id_, f"svix-timestamp: {9**30}", signed], good.body),
        ([f"{id_}x", timestamp, signed], good.body),
        ([id_, timestamp, signed], good.body + b" "),
        ([id_, timestamp, signed], b"\xff\xfe"),
        ([id_, timestamp, signed], b""),
        (Delivery(good.event, OTHER_SECRET).lines, good.body),
        (Delivery(good.event, sent_at=good.sent_at - 400).lines, good.body),
        (Delivery(good.event, sent_at=good.sent_at + 400).lines, good.body),
    ]
    bodies = [b"", b"{", b"[]", b"null", b'"x"', b"{}", b"[" * 5000, b'{"type": 1}', b'{"type": "user.created"}']
    deliveries += [(Delivery(body).lines, body) for body in bodies]
    events = [
        envelope("user.created", user("user_\x00", NOW_MS)),
        envelope("user.created", user(ALICE, -5)),
        envelope("organizationMembership.created", {"role": "org:member"}),
    ]
    deliveries += [(delivery.lines, delivery.body) for delivery in map(Delivery, events)]

    replies = [await gateway.ask(request(TARGET, *lines, method="POST", body=body)) for lines, body in deliveries]

    assert {(reply.status, reply.code) for reply in replies} == {(400, "webhook_refused")}
    assert await value(gateway, "SELECT count(*) FROM users") == 0
    assert await value(gateway, "SELECT count(*) FROM webhook_deliveries") == 0


async def test_text_that_postgresql_cannot_keep_is_cleaned(gateway: GatewayUnderTest) -> None:
    person = user(ALICE, NOW_MS, first_name="A\x00b\ud800", email="a\x00@example.com")
    event = envelope("user.created", person)
    event["event_attributes"]["http_request"] = {"client_ip": "1\x00", "user_agent": "\x00"}

    reply = await Delivery(event).send(gateway)

    assert reply.status in (200, 400)
    if reply.status == 200:
        assert await value(gateway, "SELECT name FROM users") == "A b Ng"


async def test_body_has_a_bound(gateway: GatewayUnderTest) -> None:
    event = envelope("user.created", user(ALICE, NOW_MS, public_metadata={"x": "x" * 1024 * 1024}))

    reply = await Delivery(event).send(gateway)

    assert (reply.status, reply.code) == (413, "content_too_large")


async def test_only_events_of_the_instance_count_where_it_is_named(database_url: str) -> None:
    clerk = {"webhook_secrets": [SECRET, OTHER_SECRET], "instance_id": INSTANCE}
    async with gateway_under_test(database_url, clerk=clerk) as gateway:
        events = [
            envelope("user.created", user(ALICE, NOW_MS), instance_id=instance)
            for instance in (INSTANCE, "ins_2x", None)
        ]
        statuses = [(await Delivery(event, OTHER_SECRET).send(gateway)).status for event in events]

    assert statuses == [200, 400, 400]


async def test_prefix_goes_before_it_and_other_methods_are_refused(database_url: str) -> None:
    async with gateway_under_test(database_url, api={"prefix": "/gw"}, **SETTINGS) as gateway:
        delivery = Delivery(envelope("user.created", user(ALICE, NOW_MS)))
        taken = await delivery.send(gateway, f"/gw{TARGET}")
        elsewhere = await delivery.send(gateway)
        read = await gateway.get(f"/gw{TARGET}")
        paths = (await gateway.get("/gw/openapi.json")).json()["paths"]

    assert (taken.status, elsewhere.status, read.status) == (200, 401, 405)
    assert f"/gw{TARGET}" in paths


async def test_nothing_is_there_without_secrets(database_url: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        reply = await Delivery(envelope("user.created", user(ALICE, NOW_MS))).send(gateway)
        paths = (await gateway.get("/openapi.json")).json()["paths"]

    assert reply.status == 401  # as any path below `/**`
    assert TARGET not in paths


async def test_what_cannot_be_written_down_is_sent_again(postgres_server: PostgresServer) -> None:
    async with gateway_under_test(postgres_server.url, **SETTINGS) as gateway:
        delivery = Delivery(envelope("user.created", user(ALICE, NOW_MS)))
        await postgres_server.stop()
        refused = await delivery.send(gateway)
        forged = await Delivery(delivery.event, OTHER_SECRET).send(gateway)
        await postgres_server.start(migrated=False)
        reply = await delivery.send(gateway)
        for _ in range(200):
            if reply.status != 503:
                break
            await asyncio.sleep(0.1)
            reply = await delivery.send(gateway)

    assert (refused.status, refused.code, forged.status) == (503, "store_unavailable", 400)
    assert refused.get("retry-after") is not None
    assert (reply.status, reply.json()) == (200, {"outcome": "applied"})


async def test_new_secret_counts_after_a_reload(gateway: GatewayUnderTest) -> None:
    delivery = Delivery(envelope("user.created", user(ALICE, NOW_MS)), OTHER_SECRET)
    before = await delivery.send(gateway)
    assert await gateway.reload(clerk={"webhook_secrets": [SECRET, OTHER_SECRET]})

    assert (before.status, (await delivery.send(gateway)).status) == (400, 200)


async def test_x05_a_hundred_first_requests_and_a_webhook_at_once_make_one_person(gateway: GatewayUnderTest) -> None:
    deliveries = [Delivery(envelope("user.created", user(ALICE, NOW_MS))) for _ in range(5)]
    token = mint_token(sub=ALICE)

    replies = await asyncio.gather(
        *(comes(gateway, token) for _ in range(100)), *(delivery.send(gateway) for delivery in deliveries)
    )

    assert {reply.status for reply in replies} == {200}
    assert await value(gateway, "SELECT count(*) FROM users") == 1
    assert await value(gateway, "SELECT count(*) FROM audit_events WHERE action = 'user.created'") == 1
    assert await value(gateway, "SELECT count(*) FROM api_tokens") == 1
    assert await value(gateway, "SELECT name FROM users") == "Alice Ng"
