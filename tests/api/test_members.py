"""`GET /organizations/current/members`, over a real socket."""

from typing import Any

import pytest

from tests.support.api_tokens import call, made_token
from tests.support.gateway import GatewayUnderTest, mint_token
from tests.support.people import met
from tests.support.wire import Reply

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATH = "/organizations/current/members"


def belonging(organization: str, role: str = "member") -> dict[str, Any]:
    return {"id": f"org_2{organization}", "slg": organization, "rol": role}


async def members(gateway: GatewayUnderTest, sub: str, organization: str, role: str, query: str = "") -> Reply:
    return await call(gateway, mint_token(sub=sub, o=belonging(organization, role)), "GET", PATH + query)


async def test_a_member_sees_the_others_without_their_addresses(gateway: GatewayUnderTest) -> None:
    ids = [
        await met(gateway, f"user_2{name}", name=name, email=f"{name}@example.com", o=belonging("team", role))
        for name, role in (("ann", "admin"), ("ben", "member"))
    ]

    seen = (await members(gateway, "user_2ben", "team", "member")).json()
    by_admin = (await members(gateway, "user_2ann", "team", "admin")).json()

    assert [(item["id"], item["name"], item["role"], item["email"]) for item in seen["items"]] == [
        (ids[0], "ann", "admin", None),
        (ids[1], "ben", "member", None),
    ]
    assert seen["nextCursor"] is None
    assert [item["email"] for item in by_admin["items"]] == ["ann@example.com", "ben@example.com"]
    assert set(seen["items"][0]) == {"id", "name", "email", "role", "since"}


async def test_a_token_sees_no_addresses(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2robot", email="robot@example.com", o=belonging("robots", "admin"))
    await call(gateway, session, "GET", "/users/current")
    token = (await made_token(gateway, session))["token"]

    items = (await call(gateway, token, "GET", PATH)).json()["items"]

    assert [(item["role"], item["email"]) for item in items] == [("admin", None)]


async def test_members_come_in_pages(gateway: GatewayUnderTest) -> None:
    ids = [await met(gateway, f"user_2crowd{number}", o=belonging("crowd")) for number in range(5)]
    seen, cursor = [], ""
    for _ in range(3):
        document = (await members(gateway, "user_2crowd0", "crowd", "member", f"?limit=2{cursor}")).json()
        seen += [item["id"] for item in document["items"]]
        cursor = f"&cursor={document['nextCursor']}"

    assert document["nextCursor"] is None
    assert seen == ids


@pytest.mark.parametrize("query", ["?organization=org_2crowd", "?organizationId=x", "?cursor=%00", "?search=a"])
async def test_x02_no_parameter_names_another_organization(gateway: GatewayUnderTest, query: str) -> None:
    reply = await members(gateway, "user_2curious", "curious", "admin", query)

    assert (reply.status, reply.code) == (400, "query_invalid")


async def test_x02_a_cursor_of_another_organization_shows_nothing_of_it(gateway: GatewayUnderTest) -> None:
    for number in range(3):
        await met(gateway, f"user_2there{number}", o=belonging("there"))
    foreign = (await members(gateway, "user_2there0", "there", "member", "?limit=1")).json()["nextCursor"]
    mine = await met(gateway, "user_2here", o=belonging("here", "admin"))

    items = (await members(gateway, "user_2here", "here", "admin", f"?cursor={foreign}")).json()["items"]

    assert [item["id"] for item in items] == [mine]


async def test_one_s_own_organization_has_one_member(gateway: GatewayUnderTest) -> None:
    mine = await met(gateway, "user_2alone")

    items = (await call(gateway, mint_token(sub="user_2alone"), "GET", PATH)).json()["items"]

    assert [(item["id"], item["role"]) for item in items] == [(mine, "admin")]
