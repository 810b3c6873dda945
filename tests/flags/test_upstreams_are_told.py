"""Flags on their whole way: from a file to the upstream, the assertion and the client."""

import asyncio
import json
from pathlib import Path
from typing import Any

import jwt
import pytest

from gateway.commands.flags import evaluate
from gateway.parts import ComposeFailed
from tests.support.fake_posthog import PROJECT_KEY, SECRET_KEY, fake_posthog
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.wire import bearer

DECLARED = {
    "new-editor": {"type": "boolean", "default": False, "expose": ["headers", "client"]},
    "theme": {"type": "string", "default": "light", "expose": ["client"]},
    "limit": {"type": "integer", "default": 10},
}


def flags_asserted(gateway: GatewayUnderTest) -> object:
    """What the last assertion says; that it verifies is tested elsewhere."""
    token = gateway.upstream.last.one("x-actor-assertion")
    return jwt.decode(token, options={"verify_signature": False})["flags"]


def definitions(*, on: bool) -> str:
    flag = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on" if on else "off"}
    return json.dumps({"flags": {"new-editor": flag, "undeclared": flag}})


@pytest.fixture(params=[True, False], ids=["fast_lane", "aiohttp_lane"])
def fast_lane(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def test_a_known_caller_is_told_of_a_change_by_the_next_request(
    database_url: str, tmp_path: Path, fast_lane: bool
) -> None:
    path = tmp_path / "flags.json"
    path.write_text(definitions(on=True))
    flags: dict[str, Any] = {"provider": "file", "file": str(path), "declare": DECLARED}
    async with gateway_under_test(database_url, flags=flags, fast_lane=fast_lane) as gateway:
        line = bearer(mint_token())
        for _ in range(3):  # the first is not known yet
            await gateway.get("/x", line)
        assert await gateway.metric("gateway_cache_requests_total", tier="near", result="hit") > 0
        assert await gateway.metric("gateway_flags_evaluations_total") == 1
        assert flags_asserted(gateway) == {"new-editor": True, "limit": 10}
        assert gateway.upstream.last.one("x-feature-flags") == "new-editor, limit=10"
        user = (await gateway.get("/users/current", line)).json()
        assert user["featureFlags"] == {"new-editor": True, "theme": "light"}

        misses = await gateway.metric("gateway_cache_requests_total", tier="near", result="miss")
        path.write_text(definitions(on=False))
        async with asyncio.timeout(20):
            while gateway.upstream.last.one("x-feature-flags") != "new-editor=?0, limit=10":
                await asyncio.sleep(0.1)
                await gateway.get("/x", line)

        assert flags_asserted(gateway) == {"new-editor": False, "limit": 10}
        user = (await gateway.get("/users/current", line)).json()
        assert user["featureFlags"] == {"new-editor": False, "theme": "light"}
        assert await gateway.metric("gateway_flags_evaluations_total") == 2
        assert await gateway.metric("gateway_cache_requests_total", tier="near", result="miss") == misses


@pytest.mark.parametrize(("trial_days", "told"), [(14, "new-editor"), (0, "new-editor=?0")])
async def test_flags_can_go_by_the_plan(database_url: str, tmp_path: Path, trial_days: int, told: str) -> None:
    path = tmp_path / "flags.json"
    rule = {"if": [{"==": [{"var": "plan"}, "pro"]}, "on", "off"]}
    flag = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off", "targeting": rule}
    path.write_text(json.dumps({"flags": {"new-editor": flag}}))
    declared = {"new-editor": DECLARED["new-editor"]}
    flags: dict[str, Any] = {"provider": "file", "file": str(path), "declare": declared}
    provisioning: dict[str, Any] = {"trial_days": trial_days}
    async with gateway_under_test(database_url, flags=flags, provisioning=provisioning) as gateway:
        user = (await gateway.get("/users/current", bearer(mint_token()))).json()["id"]
        await gateway.get("/x", bearer(mint_token()))
        printed = await asyncio.to_thread(evaluate, gateway.settings, user, None, as_json=True)

        assert gateway.upstream.last.one("x-feature-flags") == told
        assert json.loads(printed.out[0])["header"] == told


async def test_a_client_cannot_choose_its_flags(database_url: str, fast_lane: bool) -> None:
    async with gateway_under_test(database_url, flags={"declare": DECLARED}, fast_lane=fast_lane) as gateway:
        await gateway.get("/x", bearer(mint_token()), "X-Feature-Flags: limit=99", "X_Feature_Flags: limit=98")

        assert gateway.upstream.last.one("x-feature-flags") == "new-editor=?0, limit=10"


async def test_nobody_else_than_users_is_told_any(database_url: str) -> None:
    async with gateway_under_test(database_url, flags={"declare": DECLARED}) as gateway:
        await gateway.get("/public/x")
        await gateway.get("/optional/x")

        assert [one.one("x-feature-flags") for one in gateway.upstream.received] == ["", ""]
        assert await gateway.metric("gateway_flags_evaluations_total") == 0


async def test_flags_that_are_declared_anew_are_told_after_a_reload(database_url: str) -> None:
    async with gateway_under_test(database_url, flags={"declare": DECLARED}) as gateway:
        line = bearer(mint_token())
        await gateway.get("/x", line)
        assert await gateway.reload(flags={"declare": {"limit": {"type": "integer", "default": 11}}})
        await gateway.get("/x", line)

        assert gateway.upstream.last.one("x-feature-flags") == "new-editor=?0, limit=11"


async def test_a_default_that_python_takes_for_the_same_is_told_after_a_reload(database_url: str) -> None:
    def declared(default: object) -> dict[str, Any]:
        return {"declare": {"limits": {"type": "json", "default": {"on": default}, "expose": ["client"]}}}

    async with gateway_under_test(database_url, flags=declared(1)) as gateway:
        line = bearer(mint_token())
        before = (await gateway.get("/users/current", line)).json()["featureFlags"]["limits"]["on"]
        assert await gateway.reload(flags=declared(True))
        after = (await gateway.get("/users/current", line)).json()["featureFlags"]["limits"]["on"]

    assert [before, str(after)] == [1, "True"]  # for 1 == True


async def test_a_file_that_does_not_fit_starts_no_gateway_and_ends_none(database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    path.write_text(definitions(on=True))
    flags: dict[str, Any] = {"provider": "file", "file": str(path), "declare": DECLARED}
    async with gateway_under_test(database_url, flags=flags) as gateway:
        other = tmp_path / "other.json"
        other.write_text('{"flags": {\n"new-editor": {"state": "ON"}}}')

        assert not await gateway.reload(flags={"file": str(other)})

        await gateway.get("/x", bearer(mint_token()))
        assert gateway.upstream.last.one("x-feature-flags") == "new-editor, limit=10"
    with pytest.raises(ComposeFailed, match=r"other\.json:2: flags\.new-editor\.state"):
        async with gateway_under_test(database_url, flags={**flags, "file": str(other)}):
            pass


def from_posthog(url: str, **beside: Any) -> dict[str, Any]:
    posthog = {"host": url, "project_key": PROJECT_KEY, "secret_key": SECRET_KEY}
    return {"flags": {"provider": "posthog", "declare": DECLARED}, "posthog": posthog, **beside}


async def test_o03_without_a_source_everybody_passes_with_declared_defaults_and_it_is_marked(database_url: str) -> None:
    async with gateway_under_test(database_url, **from_posthog("http://127.0.0.1:1")) as gateway:
        reply = await gateway.get("/x", bearer(mint_token()))

        assert (reply.status, gateway.upstream.last.one("x-feature-flags")) == (200, "new-editor=?0, limit=10")
        assert "\ngateway_flags_generation_age_seconds " not in await gateway.metrics()
        assert await gateway.metric("gateway_flags_loads_total", result="failed") == 1


async def test_o03_a_source_that_is_away_leaves_a_new_process_what_the_fleet_knew(
    database_url: str, redis_url: str
) -> None:
    async with fake_posthog() as fake:
        groups = [{"properties": [], "rollout_percentage": 100}]
        fake.flags = [{"id": 1, "key": "new-editor", "active": True, "filters": {"groups": groups}}]
        settings = from_posthog(fake.url, redis={"url": redis_url})
        for status in (200, 402):
            fake.status = status
            async with gateway_under_test(database_url, **settings) as gateway:
                await gateway.get("/x", bearer(mint_token()))

                assert gateway.upstream.last.one("x-feature-flags") == "new-editor, limit=10"
                assert "\ngateway_flags_generation_age_seconds " in await gateway.metrics()
        assert SECRET_KEY not in json.dumps(fake.queries)
