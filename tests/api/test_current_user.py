"""`/users/current`, its settings, and `/organizations/current`, over a real socket."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.wire import Reply, bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
TOKEN_PATHS = [f"/users/current/api-tokens{rest}" for rest in ("", "/{id}", "/{id}/rotate", "/{id}/reveal")]
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


async def patch(
    gateway: GatewayUnderTest,
    body: bytes,
    *,
    media_type: str = "application/json",
    target: str = "/users/current/settings",
    **claims: Any,
) -> Reply:
    lines = (bearer(mint_token(**claims)), f"Content-Type: {media_type}")
    return await gateway.ask(request(target, *lines, method="PATCH", body=body))


async def test_current_user_says_who_calls(gateway: GatewayUnderTest) -> None:
    token = mint_token(sub="user_2alice", name="Alice Ng", email="alice@example.com")

    user = (await gateway.get("/users/current", bearer(token))).json()

    assert user["id"].startswith("usr_")
    assert user["clerkId"] == "user_2alice"
    assert (user["name"], user["email"], user["role"], user["isAdmin"]) == (
        "Alice Ng",
        "alice@example.com",
        "USER",
        False,
    )
    assert user["settings"] == {}
    assert user["organization"]["role"] == "admin"
    assert user["organization"]["clerkId"] is None
    assert [organization["id"] for organization in user["organizations"]] == [user["organization"]["id"]]
    assert MOMENT.fullmatch(user["createdAt"])


async def test_a_later_token_changes_the_profile_and_the_role_at_once(gateway: GatewayUnderTest) -> None:
    shown = []
    for name, role in (("Ann", "member"), ("Anna", "member"), ("Anna", "admin")):
        place = {"id": "org_2changes", "slg": "changes", "rol": role}
        token = mint_token(sub="user_2changes", name=name, email=f"{name}@example.com".lower(), o=place)
        user = (await gateway.get("/users/current", bearer(token))).json()
        (member,) = (await gateway.get("/organizations/current/members", bearer(token))).json()["items"]
        shown.append((user["name"], user["email"], member["name"], member["role"]))

    assert shown == [
        ("Ann", "ann@example.com", "Ann", "member"),
        ("Anna", "anna@example.com", "Anna", "member"),
        ("Anna", "anna@example.com", "Anna", "admin"),
    ]


async def test_what_later_issues_build_is_told_as_unknown(gateway: GatewayUnderTest) -> None:
    user = (await gateway.get("/users/current", bearer(mint_token()))).json()

    assert user["featureFlags"] == {}


async def test_current_user_and_upstream_are_told_of_the_same_actor(gateway: GatewayUnderTest) -> None:
    token = mint_token(o={"id": "org_2same", "slg": "same", "rol": "member"})

    user = (await gateway.get("/users/current", bearer(token))).json()
    await gateway.get("/x", bearer(token))

    seen = gateway.upstream.last
    assert user["id"] == seen.one("x-actor-id")
    assert user["organization"]["id"] == seen.one("x-organization-id")
    assert user["organization"]["role"] == seen.one("x-organization-role")


async def test_organizations_name_the_current_one_first(gateway: GatewayUnderTest) -> None:
    await gateway.get("/x", bearer(mint_token(sub="user_2two")))
    token = mint_token(sub="user_2two", o={"id": "org_2second", "slg": "second", "rol": "member"})

    user = (await gateway.get("/users/current", bearer(token))).json()

    assert [organization["clerkId"] for organization in user["organizations"]] == ["org_2second", None]


async def test_x01_organization_comes_from_the_token_alone(gateway: GatewayUnderTest) -> None:
    token = mint_token(o={"id": "org_2mine", "slg": "mine", "rol": "admin"})
    mine = (await gateway.get("/organizations/current", bearer(token))).json()

    asked = (await gateway.get("/organizations/current?id=org_other", bearer(token), "X-Organization-Id: org_x")).json()

    assert mine["clerkId"] == "org_2mine"
    assert asked == mine


async def test_settings_are_merged_on_the_first_level_and_null_deletes(gateway: GatewayUnderTest) -> None:
    who: dict[str, Any] = {"sub": "user_2settings"}
    await patch(gateway, b'{"theme": "dark", "page": {"size": 10, "sort": "up"}, "beta": true}', **who)

    merged = await patch(gateway, b'{"page": {"size": 20}, "beta": null, "none": null}', **who)
    user = (await gateway.get("/users/current", bearer(mint_token(**who)))).json()

    assert merged.status == 200
    assert merged.json() == {"theme": "dark", "page": {"size": 20}}
    assert user["settings"] == merged.json()


@pytest.mark.parametrize("number", ["1e20", "1e300", "-1e19", "18446744073709551615", "-9223372036854775808", "0.1"])
async def test_settings_keep_numbers_of_any_size(gateway: GatewayUnderTest, number: str) -> None:
    kept = await patch(gateway, b'{"n": %b}' % number.encode(), sub="user_2numbers")
    shown = await gateway.get("/users/current", bearer(mint_token(sub="user_2numbers")))

    assert kept.status == shown.status == 200
    assert float(shown.json()["settings"]["n"]) == float(number)


async def test_settings_of_one_person_are_not_anothers(gateway: GatewayUnderTest) -> None:
    await patch(gateway, b'{"theme": "dark"}', sub="user_2one")

    assert (await patch(gateway, b"{}", sub="user_2other")).json() == {}


@pytest.mark.parametrize(
    "media_type", ["application/json; charset=utf-8", "Application/JSON", "application/merge-patch+json"]
)
async def test_settings_are_taken_as_json(gateway: GatewayUnderTest, media_type: str) -> None:
    assert (await patch(gateway, b"{}", media_type=media_type)).status == 200


@pytest.mark.parametrize(
    "body", [b"[]", b'"x"', b"null", b"1", b"{", b"", b'{"a":1}x', b"\xff", b'{"a": "\\u0000"}', b'{"a": 1e999}']
)
async def test_settings_that_are_no_object_to_keep_are_refused(gateway: GatewayUnderTest, body: bytes) -> None:
    reply = await patch(gateway, body)

    assert reply.status == 422
    assert reply.code == "content_invalid"


@pytest.mark.parametrize("body", [b'{"a": "' + b"x" * 70_000 + b'"}', b" " * 200_000])
async def test_settings_that_are_too_large_are_refused(gateway: GatewayUnderTest, body: bytes) -> None:
    reply = await patch(gateway, body)

    assert reply.status == 413
    assert reply.code == "content_too_large"


async def test_settings_cannot_grow_too_large_step_by_step(gateway: GatewayUnderTest) -> None:
    who: dict[str, Any] = {"sub": "user_2hoarder"}
    half = b'": "' + b"x" * 40_000 + b'"}'
    first = await patch(gateway, b'{"a' + half, **who)

    second = await patch(gateway, b'{"b' + half, **who)

    assert (first.status, second.status) == (200, 413)
    assert list((await patch(gateway, b"{}", **who)).json()) == ["a"]


async def test_settings_sent_in_chunks_are_read(gateway: GatewayUnderTest) -> None:
    head = request(
        "/users/current/settings",
        bearer(mint_token(sub="user_2chunks")),
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
        method="PATCH",
    )

    reply = await gateway.ask(head + b'5\r\n{"a":\r\n2\r\n1}\r\n0\r\n\r\n')

    assert reply.json() == {"a": 1}


@pytest.mark.parametrize(
    "target,method,allowed",
    [
        ("/users/current", "POST", {"GET", "HEAD"}),
        ("/users/current", "DELETE", {"GET", "HEAD"}),
        ("/users/current/settings", "GET", {"PATCH"}),
        ("/organizations/current", "PATCH", {"GET", "HEAD"}),
        ("/openapi.json", "PUT", {"GET", "HEAD"}),
    ],
)
async def test_other_methods_are_refused_with_those_allowed(
    gateway: GatewayUnderTest, target: str, method: str, allowed: set[str]
) -> None:
    reply = await gateway.ask(request(target, bearer(mint_token()), method=method))

    assert reply.status == 405
    assert reply.code == "method_not_allowed"
    assert set((reply.get("allow") or "").split(", ")) == allowed
    assert gateway.upstream.received == []


@pytest.mark.parametrize("target", ["/users/current", "/organizations/current", "/openapi.json"])
async def test_head_answers_as_get_without_the_body(gateway: GatewayUnderTest, target: str) -> None:
    line = bearer(mint_token())
    got = await gateway.get(target, line)
    async with gateway.wire() as wire:
        head = await wire.ask(request(target, line, method="HEAD"))
        after = await wire.ask(request(target, line))

    assert head.status == 200
    assert head.body == b""
    assert head.get("content-length") == str(len(got.body))
    assert after.status == 200


@pytest.mark.parametrize("target", ["/users/current", "/organizations/current"])
async def test_own_endpoints_demand_a_credential(gateway: GatewayUnderTest, target: str) -> None:
    reply = await gateway.get(target)

    assert reply.status == 401
    assert reply.challenge.error is None


async def test_openapi_describes_the_own_endpoints_to_everybody(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get("/openapi.json")

    document = reply.json()
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {
        "/users/current",
        "/users/current/settings",
        "/users/current/websocket-token",
        "/organizations/current",
        "/organizations/current/audit-events",
        "/organizations/current/members",
        "/users/current/sign-out-everywhere",
        "/admin/users/{id}/revoke",
        *(f"/admin/users{rest}" for rest in ("", "/{id}", "/{id}/role", "/{id}/disable", "/{id}/enable")),
        *TOKEN_PATHS,
        "/.well-known/jwks.json",
    }


async def test_openapi_describes_what_current_user_answers(gateway: GatewayUnderTest) -> None:
    document = (await gateway.get("/openapi.json")).json()

    user = (await gateway.get("/users/current", bearer(mint_token()))).json()

    assert set(document["components"]["schemas"]["CurrentUserDocument"]["properties"]) == set(user)


@pytest.mark.parametrize("target", ["/users/current/", "/Users/current", "/users/current/x"])
async def test_own_paths_are_exact(gateway: GatewayUnderTest, target: str) -> None:
    await gateway.get(target, bearer(mint_token()))

    assert gateway.upstream.last.target == target.encode()


async def test_prefix_goes_before_every_own_path_but_the_current_user(database_url: str) -> None:
    async with gateway_under_test(database_url, api={"prefix": "/gateway"}) as gateway:
        line = bearer(mint_token())
        own = [await gateway.get(target, line) for target in ("/users/current", "/gateway/organizations/current")]
        settings = await patch(gateway, b'{"a": 1}', target="/gateway/users/current/settings")
        document = await gateway.get("/gateway/openapi.json")
        seen = len(gateway.upstream.received)
        others = ("/organizations/current", "/openapi.json", "/gateway/users/current")
        for target in others:
            await gateway.get(target, line)

    assert [reply.status for reply in (*own, settings, document)] == [200, 200, 200, 200]
    assert set(document.json()["paths"]) == {
        "/users/current",
        "/gateway/users/current/settings",
        "/gateway/users/current/websocket-token",
        "/gateway/organizations/current",
        "/gateway/organizations/current/audit-events",
        "/gateway/organizations/current/members",
        "/gateway/users/current/sign-out-everywhere",
        "/gateway/admin/users/{id}/revoke",
        *(f"/gateway/admin/users{rest}" for rest in ("", "/{id}", "/{id}/role", "/{id}/disable", "/{id}/enable")),
        *(f"/gateway{path}" for path in TOKEN_PATHS),
        "/.well-known/jwks.json",
    }
    assert seen == 0
    assert [received.target.decode() for received in gateway.upstream.received] == list(others)


async def test_organizations_can_be_switched_off(database_url: str) -> None:
    async with gateway_under_test(database_url, api={"organizations": False}) as gateway:
        await gateway.get("/organizations/current", bearer(mint_token()))
        document = (await gateway.get("/openapi.json")).json()

    assert gateway.upstream.last.target == b"/organizations/current"
    assert "/organizations/current" not in document["paths"]


@given(st.binary(max_size=60))
@settings(max_examples=60, deadline=None)
async def test_any_body_is_kept_or_refused_and_never_an_error_of_ours(
    module_gateway: GatewayUnderTest, body: bytes
) -> None:
    reply = await patch(module_gateway, body, sub="user_2any")

    assert reply.status in (200, 422)
