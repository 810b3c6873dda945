"""What administrators do to people, over a real socket; and what nobody else does."""

import json
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from provisioning.records import User
from tests.support.api_tokens import call, execute, made_token, value
from tests.support.gateway import ORIGIN, ROUTES, GatewayUnderTest, gateway_under_test, mint_token
from tests.support.people import ACT, administrator, met, recorded
from tests.support.wire import Reply, bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = {
    "debug": {"enabled": True},
    "routes": [{"path": "/admins/**", "auth": "required", "roles": ["ADMIN"], "upstream": "app"}, *ROUTES],
}
NOBODY = "usr_0000000000000000000000"
CALLS: list[tuple[str, str, object]] = [
    ("GET", "/admin/users", None),
    ("GET", "/admin/users/{id}", None),
    ("PATCH", "/admin/users/{id}/role", {"role": "ADMIN"}),
    ("POST", "/admin/users/{id}/disable", None),
    ("POST", "/admin/users/{id}/enable", None),
    ("POST", "/users/{id}/debug/provision", None),
]
BOSS = "user_2boss"


async def boss(gateway: GatewayUnderTest) -> User:
    """An administrator the gateway has not met, the same for all tests of a module."""
    return await administrator(gateway, BOSS)


async def as_boss(gateway: GatewayUnderTest, method: str, target: str, body: object = None) -> Reply:
    return await call(gateway, mint_token(sub=BOSS), method, target, body)


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _boss(gateway: GatewayUnderTest) -> None:
    await boss(gateway)


async def test_an_administrator_sees_people_and_where_they_belong(gateway: GatewayUnderTest) -> None:
    user_id = await met(gateway, "user_2seen", name="Sam", email="sam@example.com")
    await met(gateway, "user_2seen", o={"id": "org_2seen", "slg": "seen", "rol": "member"})

    shown = (await as_boss(gateway, "GET", f"/admin/users/{user_id}")).json()
    listed = (await as_boss(gateway, "GET", "/admin/users")).json()

    assert (shown["id"], shown["clerkId"], shown["name"], shown["email"]) == (
        user_id,
        "user_2seen",
        "Sam",
        "sam@example.com",
    )
    assert (shown["role"], shown["disabledAt"], shown["deletedAt"]) == ("USER", None, None)
    assert [(one["clerkId"], one["role"]) for one in shown["organizations"]] == [
        (None, "admin"),
        ("org_2seen", "member"),
    ]
    assert {key: shown[key] for key in shown if key != "organizations"} in listed["items"]
    assert "settings" not in shown


async def test_a_ban_is_shown_apart_from_being_disabled(gateway: GatewayUnderTest) -> None:
    user_id = await met(gateway, "user_2banned")
    await execute(gateway, "UPDATE users SET banned_at = '2026-11-23T04:00:05Z' WHERE id = $1", user_id)

    shown = (await as_boss(gateway, "GET", f"/admin/users/{user_id}")).json()

    assert (shown["disabledAt"], shown["bannedAt"]) == (None, "2026-11-23T04:00:05.000Z")


async def test_people_come_in_pages(gateway: GatewayUnderTest) -> None:
    for number in range(5):
        await met(gateway, f"user_2page{number}", email=f"page{number}@pages.example")
    target, seen, pages = "/admin/users?search=page&limit=2", [], 0
    cursor = None
    while pages < 10:
        reply = await as_boss(gateway, "GET", target + (f"&cursor={cursor}" if cursor else ""))
        document = reply.json()
        seen += [item["clerkId"] for item in document["items"]]
        pages, cursor = pages + 1, document["nextCursor"]
        if cursor is None:
            break

    assert pages == 3
    assert seen == [f"user_2page{number}" for number in reversed(range(5))]


@pytest.mark.parametrize("search", ["user_2found", "FOUND+1@", "found+1@example.com"])
async def test_people_are_found(gateway: GatewayUnderTest, search: str) -> None:
    await met(gateway, "user_2found", email="found+1@example.com")

    reply = await as_boss(gateway, "GET", f"/admin/users?search={quote(search, safe='')}")

    assert [item["clerkId"] for item in reply.json()["items"]] == ["user_2found"]


OTHER_QUERIES = ["limit=0", "limit=201", "limit=x", "limit=%C2%B2", "limit=1&limit=2", "cursor=x", "cursor=", "q=a"]
OTHER_QUERIES += ["search=%FF", f"search={'x' * 321}", "&".join(f"a{number}=" for number in range(11))]


@pytest.mark.parametrize("query", OTHER_QUERIES)
async def test_a_query_of_another_shape_is_refused(gateway: GatewayUnderTest, query: str) -> None:
    reply = await as_boss(gateway, "GET", f"/admin/users?{query}")

    assert (reply.status, reply.code) == (400, "query_invalid")


async def test_a_role_counts_at_once_and_is_on_record(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2rises")
    user_id = await met(gateway, "user_2rises")
    before = [(await gateway.get("/admins/x", bearer(session))).status for _ in range(2)]

    changed = await as_boss(gateway, "PATCH", f"/admin/users/{user_id}/role", {"role": "ADMIN"})
    during = await gateway.get("/admins/x", bearer(session))
    role = gateway.upstream.last.one("x-actor-role")
    await as_boss(gateway, "PATCH", f"/admin/users/{user_id}/role", {"role": "USER"})
    after = await gateway.get("/admins/x", bearer(session))

    assert before == [403, 403]
    assert (changed.status, changed.json()["role"], during.status, role) == (200, "ADMIN", 200, "ADMIN")
    assert after.status == 403
    events = await recorded(gateway, user_id)
    assert [event["metadata"] for event in events] == [
        {"before": "USER", "after": "ADMIN"},
        {"before": "ADMIN", "after": "USER"},
    ]
    assert {(event["action"], event["actor_kind"], event["address"]) for event in events} == {
        ("user.role_changed", "user", "127.0.0.1")
    }


async def test_a_disabled_person_is_refused_at_once_and_may_return(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2off")
    user_id = await met(gateway, "user_2off")
    token = (await made_token(gateway, session))["token"]
    before = [(await gateway.get("/x", bearer(each))).status for each in (session, token)]

    disabled = await as_boss(gateway, "POST", f"/admin/users/{user_id}/disable")
    refused = [await gateway.get("/x", bearer(each)) for each in (session, token)]
    enabled = await as_boss(gateway, "POST", f"/admin/users/{user_id}/enable")
    after = [(await gateway.get("/x", bearer(each))).status for each in (session, token)]

    assert before == after == [200, 200]
    assert (disabled.status, enabled.status) == (200, 200)
    assert disabled.json()["disabledAt"] is not None
    assert enabled.json()["disabledAt"] is None
    assert [(reply.status, reply.code) for reply in refused] == [(403, "user_disabled")] * 2
    assert [event["action"] for event in await recorded(gateway, user_id)] == ["user.disabled", "user.enabled"]


async def test_nobody_takes_their_own_rights(gateway: GatewayUnderTest) -> None:
    me = (await as_boss(gateway, "GET", "/users/current")).json()["id"]

    demoted = await as_boss(gateway, "PATCH", f"/admin/users/{me}/role", {"role": "USER"})
    disabled = await as_boss(gateway, "POST", f"/admin/users/{me}/disable")

    assert [(reply.status, reply.code) for reply in (demoted, disabled)] == [(409, "own_account")] * 2
    assert (await as_boss(gateway, "GET", "/admin/users")).status == 200


async def test_v01_remembered_rights_change_nothing(gateway: GatewayUnderTest) -> None:
    other = await administrator(gateway, "user_2demoted")
    session = mint_token(sub="user_2demoted")
    assert (await call(gateway, session, "GET", "/admin/users")).status == 200
    await execute(gateway, "UPDATE users SET role = 'USER' WHERE id = $1", other.id)  # by another process

    still = await call(gateway, session, "GET", "/admin/users")
    back = await call(gateway, session, "PATCH", f"/admin/users/{other.id}/role", {"role": "ADMIN"})
    after = await call(gateway, session, "GET", "/admin/users")

    assert still.status == 200  # remembered for `cache.near_ttl`
    assert [(reply.status, reply.code) for reply in (back, after)] == [(403, "forbidden")] * 2
    assert await value(gateway, "SELECT role FROM users WHERE id = $1", other.id) == "USER"


async def test_a_tombstone_is_shown_and_not_changed(gateway: GatewayUnderTest) -> None:
    user_id = await met(gateway, "user_2tomb")
    await execute(gateway, "UPDATE users SET deleted_at = now() WHERE id = $1", user_id)

    shown = await as_boss(gateway, "GET", f"/admin/users/{user_id}")
    changed = [
        await as_boss(gateway, method, path.replace("{id}", user_id), body)
        for method, path, body in CALLS
        if method != "GET"
    ]

    assert shown.json()["deletedAt"] is not None
    assert {(reply.status, reply.code) for reply in changed} == {(409, "conflict")}


@pytest.mark.parametrize("user_id", [NOBODY, "nobody", "user_2boss", "usr_%30000000000000000000000"])
async def test_nobody_is_404(gateway: GatewayUnderTest, user_id: str) -> None:
    calls = [entry for entry in CALLS if "{id}" in entry[1]]

    replies = [await as_boss(gateway, method, path.replace("{id}", user_id), body) for method, path, body in calls]

    assert {(reply.status, reply.code) for reply in replies} == {(404, "not_found")}


@pytest.mark.parametrize(
    "body", [{"role": "SYSTEM"}, {"role": "admin"}, {"role": None}, {}, {"role": "USER", "x": 1}, []]
)
async def test_other_roles_are_refused(gateway: GatewayUnderTest, body: object) -> None:
    user_id = await met(gateway, "user_2body")

    reply = await as_boss(gateway, "PATCH", f"/admin/users/{user_id}/role", body)

    assert (reply.status, reply.code) == (422, "content_invalid")


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_others_are_refused(gateway: GatewayUnderTest, method: str, path: str, body: object) -> None:
    me = await met(gateway, "user_2plain")
    target = path.replace("{id}", me)
    plain = mint_token(sub="user_2plain", o={"id": "org_2plain", "slg": "plain", "rol": "admin"})
    acted = mint_token(sub=BOSS, act=ACT)
    content = b"" if body is None else json.dumps(body).encode()
    typed = () if body is None else ("Content-Type: application/json",)

    anonymous = await gateway.ask(request(target, *typed, method=method, body=content))
    by_user = await call(gateway, plain, method, target, body)
    by_impersonator = await call(gateway, acted, method, target, body)

    assert (anonymous.status, anonymous.code) == (401, "credential_missing")
    assert (by_user.status, by_user.code) == (403, "forbidden")
    assert (by_impersonator.status, by_impersonator.code) == (403, "impersonation_refused")
    assert gateway.upstream.received == []
    assert await value(gateway, "SELECT role FROM users WHERE id = $1", me) == "USER"


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_l06_a_borrowed_cookie_changes_nothing(
    gateway: GatewayUnderTest, method: str, path: str, body: object
) -> None:
    user_id = await met(gateway, "user_2victim")
    cookie = f"Cookie: __session={mint_token(sub=BOSS)}; __client_uat=1"
    content = b"" if body is None else json.dumps(body).encode()
    target, typed = path.replace("{id}", user_id), () if body is None else ("Content-Type: application/json",)

    foreign = await gateway.ask(
        request(target, cookie, *typed, "Origin: https://evil.example", method=method, body=content)
    )
    silent = await gateway.ask(request(target, cookie, *typed, method=method, body=content))
    own = await gateway.ask(request(target, cookie, *typed, f"Origin: {ORIGIN}", method=method, body=content))

    expected = 200 if method == "GET" else 403
    assert (foreign.status, silent.status) == (expected, expected)
    assert foreign.get("access-control-allow-origin") is None
    assert own.status == 200
    await as_boss(gateway, "PATCH", f"/admin/users/{user_id}/role", {"role": "USER"})
    await as_boss(gateway, "POST", f"/admin/users/{user_id}/enable")


async def test_a_token_needs_the_scope_and_its_owner_the_role_of_now(gateway: GatewayUnderTest) -> None:
    owner = await administrator(gateway, "user_2owner")
    session = mint_token(sub="user_2owner")
    wide = await made_token(gateway, session, scopes=["admin"])
    narrow = await made_token(gateway, session, scopes=["tokens:manage"])
    other = await met(gateway, "user_2other")

    by_narrow = await call(gateway, narrow["token"], "GET", "/admin/users")
    by_wide = await call(gateway, wide["token"], "POST", f"/admin/users/{other}/disable")
    await as_boss(gateway, "PATCH", f"/admin/users/{owner.id}/role", {"role": "USER"})
    demoted = await call(gateway, wide["token"], "GET", "/admin/users")
    await as_boss(gateway, "PATCH", f"/admin/users/{owner.id}/role", {"role": "ADMIN"})
    again = await call(gateway, wide["token"], "GET", "/admin/users")

    assert (by_narrow.status, by_narrow.challenge.scope) == (403, "admin")
    assert by_wide.status == 200
    (event,) = await recorded(gateway, other)
    assert (event["actor_kind"], event["actor_id"]) == ("api_token", wide["id"])
    assert demoted.status == 403
    assert again.status == 200


async def test_what_is_missing_is_made_by_an_administrator_and_told(gateway: GatewayUnderTest) -> None:
    user_id = await met(gateway, "user_2broken", o={"id": "org_2broken", "slg": "b", "rol": "member"})

    first = await as_boss(gateway, "POST", f"/users/{user_id}/debug/provision")
    second = await as_boss(gateway, "POST", f"/users/{user_id}/debug/provision")

    found = dict.fromkeys(("user", "apiToken"), "found")
    assert first.json()["steps"] == found | dict.fromkeys(("organization", "membership", "trial"), "made")
    assert set(second.json()["steps"].values()) == {"found"}
    assert [event["action"] for event in await recorded(gateway, user_id)] == ["user.repaired"] * 2


async def test_endpoints_go_behind_the_prefix_and_can_be_switched_off(database_url: str) -> None:
    async with gateway_under_test(database_url, api={"prefix": "/gw"}) as gateway:
        await boss(gateway)
        prefixed = await as_boss(gateway, "GET", "/gw/admin/users")
        document = (await gateway.get("/gw/openapi.json")).json()
    async with gateway_under_test(database_url, api={"admin": False}) as gateway:
        routed = await as_boss(gateway, "GET", "/admin/users")
        without = (await gateway.get("/openapi.json")).json()

    assert prefixed.status == 200
    assert "/gw/admin/users/{id}/role" in document["paths"]
    assert routed.body == b"ok"
    assert [path for path in without["paths"] if "admin" in path] == []


async def test_the_debug_endpoint_is_nowhere_until_it_is_switched_on(database_url: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        user = await boss(gateway)
        replies = [
            await as_boss(gateway, "POST", f"/users/{user.id}/debug/provision"),
            await gateway.ask(request(f"/users/{user.id}/debug/provision", method="POST")),
        ]
        seen = list(gateway.upstream.received)
        document = (await gateway.get("/openapi.json")).json()

    assert {(reply.status, reply.code) for reply in replies} == {(404, "not_found")}
    assert seen == []
    assert [path for path in document["paths"] if "debug" in path] == []
