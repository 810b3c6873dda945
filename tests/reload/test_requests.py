"""What requests see of a reload: those under way nothing, the next one everything."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from config.model import Settings
from gateway.composition import compose
from gateway.upstream.pool import Upstream
from tests.support.clerk_keys import jwk, jwks
from tests.support.gateway import ORIGIN, ROUTES, GatewayUnderTest, gateway_under_test, merged, mint_token
from tests.support.jwks_server import serve_jwks
from tests.support.upstream import OK, Received, Responder, recording_upstream, until
from tests.support.wire import bearer, request

NARROW: list[dict[str, Any]] = [{"path": "/public/**", "auth": "none", "upstream": "app"}]
OTHER_ISSUER = "https://other.example.test"


def held(gate: asyncio.Event, before: bytes = b"", after: bytes = OK) -> Responder:
    async def respond(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(before)
        await gate.wait()
        writer.write(after)

    return respond


def upstream_of(gateway: GatewayUnderTest, name: str = "app") -> Upstream:
    return gateway.reloader.current.sources.upstreams[name]


def settings_like(gateway: GatewayUnderTest, changes: dict[str, Any]) -> Settings:
    return Settings.model_validate(merged(gateway.written, changes))


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_added_route_is_served_on_an_open_connection(gateway: GatewayUnderTest, method: str) -> None:
    assert await gateway.reload(routes=NARROW)
    body = b"x" if method == "POST" else b""
    async with gateway.wire() as wire:
        before = await wire.ask(request("/optional/x", method=method, body=body))

        assert await gateway.reload(routes=ROUTES)
        after = await wire.ask(request("/optional/x", method=method, body=body))

    assert (before.status, after.status) == (404, 200)


async def test_a_removed_route_is_not_found_on_an_open_connection(gateway: GatewayUnderTest) -> None:
    async with gateway.wire() as wire:
        before = await wire.ask(request("/optional/x"))

        assert await gateway.reload(routes=NARROW)
        after = await wire.ask(request("/optional/x"))

    assert (before.status, after.status) == (200, 404)


async def test_own_endpoints_follow_the_settings_on_an_open_connection(gateway: GatewayUnderTest) -> None:
    async with gateway.wire() as wire:
        before = await wire.ask(request("/openapi.json"))
        assert await gateway.reload(api={"prefix": "/gateway"}, routes=NARROW)

        moved = await wire.ask(request("/gateway/openapi.json"))
        gone = await wire.ask(request("/openapi.json"))

    assert (before.status, moved.status, gone.status) == (200, 200, 404)


async def test_a_request_under_way_finishes_where_it_began(gateway: GatewayUnderTest) -> None:
    gate = asyncio.Event()
    gateway.upstream.respond = held(gate)
    async with recording_upstream() as other, gateway.wire() as wire:
        await wire.send(request("/optional/x"))
        await gateway.upstream.seen(1)
        assert await gateway.reload(routes=NARROW, upstreams={"app": {"url": other.url}})
        gate.set()
        finished = await wire.reply()
        following = await wire.ask(request("/public/x"))

        assert (finished.status, finished.body, following.status) == (200, b"ok", 200)
        assert len(gateway.upstream.received) == len(other.received) == 1


async def test_a_stream_goes_on_over_a_reload(gateway: GatewayUnderTest) -> None:
    gate = asyncio.Event()
    gateway.upstream.respond = held(gate, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun", b"done")
    async with recording_upstream() as other, gateway.wire() as wire:
        await wire.send(request("/public/x"))
        await wire.reader.readuntil(b"begun")
        assert await gateway.reload(upstreams={"app": {"url": other.url}})
        gate.set()

        assert await wire.reader.readexactly(4) == b"done"
        assert (await wire.ask(request("/public/x"))).status == 200


async def test_an_upload_goes_on_over_a_reload(gateway: GatewayUnderTest) -> None:
    async with recording_upstream() as other, gateway.wire() as wire:
        await wire.send(request("/public/x", "Content-Length: 200000", method="POST") + bytes(50_000))
        await gateway.upstream.seen(1)
        assert await gateway.reload(upstreams={"app": {"url": other.url}})
        await wire.send(bytes(150_000))

        assert (await wire.reply()).status == 200
        assert len(gateway.upstream.last.body) == 200_000


async def test_a_caller_being_looked_up_passes_by_the_rooms_it_entered(database_url: str, fast_lane: bool) -> None:
    gate = asyncio.Event()

    async def wait(_: web.Request) -> web.StreamResponse:
        await gate.wait()
        return web.Response(body=jwks(), content_type="application/json")

    async with (
        gateway_under_test(database_url, fast_lane=fast_lane, jwks_answer=wait) as gateway,
        recording_upstream() as other,
        gateway.wire() as wire,
    ):
        old = gateway.reloader.current
        changes = {"routes": NARROW, "upstreams": {"app": {"url": other.url}}}
        new = await compose(settings_like(gateway, changes), database_url, gateway.reloader.home, old)
        await wire.send(request("/x", bearer(mint_token())))
        await until(lambda: old.pipeline.rooms.lease.inside)
        gateway.reloader.put_into_force(new)  # nothing between here and there may take longer than the request waits
        gate.set()
        reply = await wire.reply()
        following = await wire.ask(request("/x", bearer(mint_token())))

    assert (reply.status, following.status) == (200, 404)
    assert (len(gateway.upstream.received), len(other.received)) == (1, 0)


async def test_an_own_endpoint_under_way_keeps_the_database_it_began_with(gateway: GatewayUnderTest) -> None:
    body = b'{"theme":"dark"}'
    old = gateway.reloader.current
    head = request(
        "/users/current/settings",
        bearer(mint_token()),
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        method="PATCH",
    )
    await gateway.get("/x", bearer(mint_token()))
    async with gateway.wire() as wire:
        await wire.send(head + body[:5])
        await until(lambda: old.pipeline.rooms.lease.inside)
        assert await gateway.reload(database={"pool_size": 3})
        assert gateway.reloader.current.sources.database is not old.sources.database
        await gateway.get("/users/current", bearer(mint_token()))  # time in which it could be closed too early
        await asyncio.sleep(0.1)
        await wire.send(body[5:])
        reply = await wire.reply()

    assert (reply.status, reply.json()["theme"]) == (200, "dark")
    await until(lambda: old.sources.database._pool is None)


async def test_new_requests_go_to_the_new_address_and_old_idle_connections_are_closed(
    gateway: GatewayUnderTest,
) -> None:
    async with recording_upstream() as other, gateway.wire() as wire:
        await wire.ask(request("/public/x"))
        idle = len(gateway.upstream.writers)
        assert await gateway.reload(upstreams={"app": {"url": other.url}})
        await until(lambda: not gateway.upstream.writers)
        await wire.ask(request("/public/x"))

        assert idle == 1
        assert (len(gateway.upstream.received), len(other.received)) == (1, 1)


async def test_a_busy_connection_to_an_old_address_is_closed_after_its_answer(gateway: GatewayUnderTest) -> None:
    gate = asyncio.Event()
    gateway.upstream.respond = held(gate)
    async with recording_upstream() as other, gateway.wire() as wire:
        await wire.send(request("/public/x"))
        await gateway.upstream.seen(1)
        assert await gateway.reload(upstreams={"app": {"url": other.url}})
        busy = await gateway.metric("gateway_upstream_connections", upstream="app", state="busy")
        gate.set()
        await wire.reply()
        await until(lambda: not gateway.upstream.writers)

        assert busy == 1
        assert await gateway.metric("gateway_upstream_connections", upstream="app") == 0


async def test_an_upstream_that_stayed_keeps_its_connections_and_what_is_known_of_it(
    gateway: GatewayUnderTest,
) -> None:
    async with recording_upstream() as other, gateway.wire() as wire:
        await wire.ask(request("/public/x"))
        before = upstream_of(gateway)
        assert await gateway.reload(upstreams={"other": {"url": other.url}})
        await wire.ask(request("/public/x"))

    assert upstream_of(gateway) is before
    assert gateway.upstream.connections == 1


async def test_a_removed_authorized_party_is_refused_at_once_though_its_caller_was_cached(
    gateway: GatewayUnderTest,
) -> None:
    asking = request("/x", bearer(mint_token()))
    async with gateway.wire() as wire:
        before = [(await wire.ask(asking)).status for _ in range(2)]
        assert await gateway.reload(clerk={"authorized_parties": ["https://else.example.test"]})
        after = await wire.ask(asking)

    assert before == [200, 200]
    assert (after.status, after.challenge.error) == (401, "invalid_token")


async def test_a_removed_issuer_is_refused_at_once_though_its_caller_was_cached(gateway: GatewayUnderTest) -> None:
    asking = request("/x", bearer(mint_token()))
    async with gateway.wire() as wire:
        before = await wire.ask(asking)
        assert await gateway.reload(clerk={"issuer": [OTHER_ISSUER]})
        after = await wire.ask(asking)
        moved = await wire.ask(request("/x", bearer(mint_token(iss=OTHER_ISSUER))))

    assert (before.status, after.status, moved.status) == (200, 401, 200)


async def test_keys_of_another_address_are_the_only_ones_believed(gateway: GatewayUnderTest) -> None:
    asking = request("/x", bearer(mint_token()))
    async with serve_jwks() as keys, gateway.wire() as wire:
        keys.body = jwks(jwk("other"))
        before = await wire.ask(asking)
        assert await gateway.reload(clerk={"jwks_url": keys.url})
        after = await wire.ask(asking)
        signed_by_other = await wire.ask(request("/x", bearer(mint_token(key="other"))))

    assert (before.status, after.status, signed_by_other.status) == (200, 401, 200)


async def test_a_stricter_rule_counts_for_a_cached_caller_at_once(gateway: GatewayUnderTest) -> None:
    admins = [{"path": "/**", "auth": "required", "roles": ["ADMIN"], "upstream": "app"}]
    asking = request("/x", bearer(mint_token()))
    async with gateway.wire() as wire:
        before = await wire.ask(asking)
        assert await gateway.reload(routes=admins)
        after = await wire.ask(asking)

    assert (before.status, after.status) == (200, 403)


async def test_limits_count_for_an_open_connection(gateway: GatewayUnderTest, fast_lane: bool) -> None:
    asking = request("/public/x", "X-Pad: " + "p" * 9000)
    async with gateway.wire() as wire:
        before = await wire.ask(asking)
        assert await gateway.reload(limits={"head_bytes": "8 KiB"})
        after = await wire.ask(asking)

    assert (before.status, after.status) == (200, 431)


async def test_origins_of_cors_follow_the_settings(gateway: GatewayUnderTest) -> None:
    asking = request("/public/x", "Origin: https://new.example.test")
    async with gateway.wire() as wire:
        before = await wire.ask(asking)
        assert await gateway.reload(cors={"origins": [ORIGIN, "https://new.example.test"]})
        after = await wire.ask(asking)

    assert before.get("access-control-allow-origin") is None
    assert after.get("access-control-allow-origin") == "https://new.example.test"
