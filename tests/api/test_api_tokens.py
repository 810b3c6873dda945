"""`/users/current/api-tokens` over a real socket: the life of a token, and what is refused on the way."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.api_tokens import PATH, call, made_token
from tests.support.gateway import ROUTES, GatewayUnderTest, gateway_under_test, mint_token
from tests.support.load import load_on
from tests.support.wire import bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = {
    "tokens": {"scopes": ["reports:read", "reports:write"], "per_user": 3, "max_life": "365d"},
    "routes": [{"path": "/reports/**", "auth": "required", "scopes": ["reports:read"], "upstream": "app"}, *ROUTES],
}


async def hits(gateway: GatewayUnderTest) -> float:
    return await gateway.metric("gateway_cache_requests_total", result="hit")


async def test_token_is_made_used_and_revoked_and_refused_at_once(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2life")
    made = await made_token(gateway, session, name=" Night\tly ", scopes=["reports:read"])
    before = await hits(gateway)
    used = [await gateway.get("/reports/x", bearer(made["token"])) for _ in range(5)]
    seen = gateway.upstream.last
    known = await hits(gateway) - before
    revoked = await call(gateway, session, "DELETE", f"{PATH}/{made['id']}")

    after = await gateway.get("/reports/x", bearer(made["token"]))

    assert made["name"] == "Night ly"
    assert {reply.status for reply in used} == {200}
    assert known == 4
    assert seen.one("x-actor-auth") == "api_token"
    assert seen.one("x-actor-token-id") == made["id"]
    assert seen.one("x-actor-scopes") == "reports:read"
    assert seen.one("x-actor-session-id") == ""
    assert b"agt_" not in b"".join(content for _, content in seen.fields)
    assert (revoked.status, revoked.body, revoked.get("cache-control")) == (204, b"", "no-store")
    assert (after.status, after.code) == (401, "invalid_token")


async def test_key_in_a_field_of_its_own_stays_here_too(gateway: GatewayUnderTest) -> None:
    made = await made_token(gateway, mint_token(sub="user_2key"))

    reply = await gateway.get("/x", f"X-API-Key: {made['token']}")

    assert reply.status == 200
    assert gateway.upstream.last.one("x-actor-token-id") == made["id"]
    assert b"agt_" not in b"".join(content for _, content in gateway.upstream.last.fields)


async def test_rotation_under_load_fails_no_request_and_ends_the_old_one_after_it(database_url: str) -> None:
    async with gateway_under_test(database_url, **SETTINGS) as gateway:
        session = mint_token()
        tokens = [await made_token(gateway, session, scopes=["reports:read"])]
        statuses: list[int] = []
        done = asyncio.Event()

        async def client() -> None:
            async with gateway.wire() as wire:
                while not done.is_set():
                    reply = await wire.ask(request("/reports/x", bearer(tokens[-1]["token"])))
                    statuses.append(reply.status)

        async with asyncio.TaskGroup() as clients:
            for _ in range(8):
                clients.create_task(client())
            for _ in range(5):
                asked = len(statuses)
                old = tokens[-1]
                reply = await call(gateway, session, "POST", f"{PATH}/{old['id']}/rotate", {"overlapSeconds": 60})
                assert reply.status == 201
                both = [(await gateway.get("/reports/x", bearer(t["token"]))).status for t in (old, reply.json())]
                assert both == [200, 200]
                tokens.append(reply.json())
                while len(statuses) < asked + 50:  # noqa: ASYNC110 - counted by many tasks
                    await asyncio.sleep(0.001)
            done.set()
        first, *_, last = [(await gateway.get("/reports/x", bearer(token["token"]))).status for token in tokens]

    assert set(statuses) == {200}
    assert len({token["id"] for token in tokens}) == 6
    assert (first, last) == (401, 200)


async def test_revocation_under_load_lets_nothing_through_after_its_answer(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2raced")
    for _ in range(5):
        made = await made_token(gateway, session)
        async with load_on(gateway.port) as load:
            await load.until_answered(10)
            early = [asyncio.create_task(gateway.get("/x", bearer(made["token"]))) for _ in range(10)]
            await asyncio.sleep(0)
            revoked = await call(gateway, session, "DELETE", f"{PATH}/{made['id']}")
            late = [(await gateway.get("/x", bearer(made["token"]))).status for _ in range(5)]
            await asyncio.gather(*early)

        assert revoked.status == 204
        assert set(late) == {401}


async def test_rescoping_counts_at_once(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2rescoped")
    made = await made_token(gateway, session, scopes=["reports:read"])
    before = await gateway.get("/reports/x", bearer(made["token"]))

    changed = await call(gateway, session, "PATCH", f"{PATH}/{made['id']}", {"name": "Less", "scopes": []})
    after = await gateway.get("/reports/x", bearer(made["token"]))

    assert (before.status, after.status) == (200, 403)
    assert (changed.status, changed.json()["name"], changed.json()["scopes"]) == (200, "Less", [])


async def test_tokens_are_listed_and_shown_without_their_secrets(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2lists")
    made = await made_token(gateway, session, name="Listed", scopes=["reports:read"])

    listed = (await call(gateway, session, "GET", PATH)).json()
    shown = (await call(gateway, session, "GET", f"{PATH}/{made['id']}")).json()

    assert list(listed) == ["items"]
    assert shown in listed["items"]
    assert shown == {
        "id": made["id"],
        "name": "Listed",
        "publicId": made["token"][4:16],
        "scopes": ["reports:read"],
        "createdAt": made["createdAt"],
        "expiresAt": made["expiresAt"],
        "lastUsedAt": None,
        "revokedAt": None,
    }


async def test_use_is_told_in_the_list(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2usage")
    made = await made_token(gateway, session)
    await gateway.get("/x", bearer(made["token"]))
    await gateway.reloader.current.sources.token_uses.write()

    shown = (await call(gateway, session, "GET", f"{PATH}/{made['id']}")).json()

    assert shown["lastUsedAt"] is not None


async def test_first_token_is_revealed_once(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2first")
    (first,) = (await call(gateway, session, "GET", PATH)).json()["items"]
    reveal = f"{PATH}/{first['id']}/reveal"

    replies = [await call(gateway, session, "POST", reveal) for _ in range(2)]

    assert [reply.status for reply in replies] == [200, 410]
    assert replies[0].json()["scopes"] == ["reports:read", "reports:write"]
    assert replies[1].code == "secret_gone"
    assert (await gateway.get("/reports/x", bearer(replies[0].json()["token"]))).status == 200


async def test_life_of_a_token_is_the_default_or_as_asked(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2lives")
    asked = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)

    default = await made_token(gateway, session)
    named = await made_token(gateway, session, expiresAt=asked.astimezone().isoformat())

    life = datetime.fromisoformat(default["expiresAt"]) - datetime.fromisoformat(default["createdAt"])
    assert life == timedelta(days=180)
    assert datetime.fromisoformat(named["expiresAt"]) == asked


async def test_token_without_an_end_is_made_where_that_is_allowed(database_url: str) -> None:
    async with gateway_under_test(database_url, tokens={"max_life": "never"}) as gateway:
        made = await made_token(gateway, expiresAt=None)
        used = [(await gateway.get("/x", bearer(made["token"]))).status for _ in range(2)]
        known = await hits(gateway)

    assert made["expiresAt"] is None
    assert used == [200, 200]
    assert known >= 1


@pytest.mark.parametrize(
    "body,code,pointers",
    [
        ({"scopes": []}, "content_invalid", ["/name"]),
        ({"name": ""}, "content_invalid", ["/name"]),
        ({"name": " \t\u0000"}, "content_invalid", ["/name"]),
        ({"name": "x" * 101}, "content_invalid", ["/name"]),
        ({"name": 1}, "content_invalid", ["/name"]),
        ({"name": "x", "scopes": "reports:read"}, "content_invalid", ["/scopes"]),
        ({"name": "x", "scopes": None}, "content_invalid", ["/scopes"]),
        ({"name": "x", "scopes": ["reports:read", 1]}, "content_invalid", ["/scopes/1"]),
        ({"name": "x", "scopes": ["a"] * 101}, "content_invalid", ["/scopes"]),
        ({"name": "x", "life": 1}, "content_invalid", [""]),
        ([], "content_invalid", [""]),
        ({"name": "x", "scopes": ["reports:read", "typo"]}, "scope_unknown", ["/scopes/1"]),
        ({"name": "x", "scopes": ["*"]}, "scope_unknown", ["/scopes/0"]),
        ({"name": "x", "expiresAt": None}, "expiry_invalid", ["/expiresAt"]),
        ({"name": "x", "expiresAt": "2001-01-01T00:00:00Z"}, "expiry_invalid", ["/expiresAt"]),
        ({"name": "x", "expiresAt": "9999-12-31T23:59:59Z"}, "expiry_invalid", ["/expiresAt"]),
        ({"name": "x", "expiresAt": "9999-12-31T23:59:59-14:00"}, "content_invalid", ["/expiresAt"]),
        ({"name": "x", "expiresAt": "2030-01-01T00:00:00"}, "content_invalid", ["/expiresAt"]),
        ({"name": "x", "expiresAt": "2030-01-01"}, "content_invalid", ["/expiresAt"]),
        ({"name": "x", "expiresAt": 1900000000}, "content_invalid", ["/expiresAt"]),
        ({"name": "x", "expiresAt": ""}, "content_invalid", ["/expiresAt"]),
    ],
)
async def test_token_that_cannot_be_is_refused_with_the_place(
    gateway: GatewayUnderTest, body: object, code: str, pointers: list[str]
) -> None:
    reply = await call(gateway, mint_token(sub="user_2wrong"), "POST", PATH, body)

    assert (reply.status, reply.code) == (422, code)
    assert [fault["pointer"] for fault in reply.json()["errors"]] == pointers
    assert all(fault["detail"] for fault in reply.json()["errors"])


@pytest.mark.parametrize(
    "body", [{"overlapSeconds": -1}, {"overlapSeconds": 604801}, {"overlapSeconds": "60"}, {"overlapSeconds": True}, 60]
)
async def test_overlap_that_cannot_be_is_refused(gateway: GatewayUnderTest, body: object) -> None:
    session = mint_token(sub="user_2overlap")
    (first,) = (await call(gateway, session, "GET", PATH)).json()["items"]

    reply = await call(gateway, session, "POST", f"{PATH}/{first['id']}/rotate", body)

    assert (reply.status, reply.code) == (422, "content_invalid")


async def test_rotation_without_a_body_has_an_hour_of_overlap(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2bare")
    made = await made_token(gateway, session)
    reply = await call(gateway, session, "POST", f"{PATH}/{made['id']}/rotate")

    left = datetime.fromisoformat((await call(gateway, session, "GET", f"{PATH}/{made['id']}")).json()["expiresAt"])

    assert reply.status == 201
    assert timedelta(minutes=59) < left - datetime.now(UTC) <= timedelta(hours=1)


async def test_change_that_says_nothing_is_refused(gateway: GatewayUnderTest) -> None:
    made = await made_token(gateway, mint_token(sub="user_2nothing"))

    for body in ({}, {"name": None}, {"expiresAt": None}):
        reply = await call(gateway, mint_token(sub="user_2nothing"), "PATCH", f"{PATH}/{made['id']}", body)

        assert (reply.status, reply.code) == (422, "content_invalid")


async def test_nobody_has_more_tokens_than_the_setting_says(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2many")
    made = [await made_token(gateway, session) for _ in range(2)]  # beside the first one

    refused = await call(gateway, session, "POST", PATH, {"name": "One more"})
    await call(gateway, session, "DELETE", f"{PATH}/{made[0]['id']}")
    again = await call(gateway, session, "POST", PATH, {"name": "One more"})

    assert (refused.status, refused.code) == (409, "token_limit_reached")
    assert again.status == 201


async def test_what_has_ended_cannot_be_changed_and_ends_only_once(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2ended")
    one = f"{PATH}/{(await made_token(gateway, session))['id']}"
    first = await call(gateway, session, "DELETE", one)
    calls: list[tuple[str, str, object]] = [("PATCH", one, {"name": "X"}), ("POST", f"{one}/rotate", None)]

    replies = [await call(gateway, session, *given) for given in calls]
    second = await call(gateway, session, "DELETE", one)

    assert {(reply.status, reply.code) for reply in replies} == {(409, "token_ended")}
    assert (first.status, second.status) == (204, 204)


@pytest.mark.parametrize(
    "target,method,allowed",
    [
        (PATH, "DELETE", {"GET", "HEAD", "POST"}),
        (f"{PATH}/atk_0", "POST", {"GET", "HEAD", "PATCH", "DELETE"}),
        (f"{PATH}/atk_0/rotate", "GET", {"POST"}),
    ],
)
async def test_other_methods_are_refused_with_those_allowed(
    gateway: GatewayUnderTest, target: str, method: str, allowed: set[str]
) -> None:
    reply = await gateway.ask(request(target, bearer(mint_token()), method=method))

    assert (reply.status, reply.code) == (405, "method_not_allowed")
    assert set((reply.get("allow") or "").split(", ")) == allowed


async def test_head_answers_as_get_without_the_body(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2head")
    made = await made_token(gateway, session)
    for target in (PATH, f"{PATH}/{made['id']}"):
        head = await call(gateway, session, "HEAD", target)
        got = await call(gateway, session, "GET", target)

        assert (head.status, head.body) == (200, b"")
        assert head.get("content-length") == str(len(got.body))


@pytest.mark.parametrize("target", [f"{PATH}/", f"{PATH}/x/", f"{PATH}/x/y", f"{PATH}/x/rotate/y"])
async def test_paths_beside_them_are_the_applications(gateway: GatewayUnderTest, target: str) -> None:
    await gateway.get(target, bearer(mint_token()))

    assert gateway.upstream.last.target == target.encode()


async def test_path_that_decodes_to_one_of_ours_is_refused(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get("/users/current/api%2Dtokens/x", bearer(mint_token()))

    assert (reply.status, reply.code) == (400, "target_invalid")


async def test_preflight_of_a_path_with_a_parameter_is_answered(gateway: GatewayUnderTest) -> None:
    lines = (f"Origin: {gateway.settings.public_url}", "Access-Control-Request-Method: DELETE")

    reply = await gateway.ask(request(f"{PATH}/atk_0", *lines, method="OPTIONS"))

    assert reply.status == 204
    assert gateway.upstream.received == []


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["name", "scopes", "expiresAt"]), JSON) | JSON)
@settings(max_examples=80, deadline=None)
async def test_any_body_is_taken_or_refused_and_never_an_error_of_ours(
    module_gateway: GatewayUnderTest, body: object
) -> None:
    reply = await call(module_gateway, mint_token(sub="user_2any"), "POST", PATH, body)

    assert reply.status in (201, 409, 413, 415, 422)
