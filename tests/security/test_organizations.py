"""One tenant against another: X01 to X04, over both lanes. X05 is in `test_standing.py` and `test_processes.py`."""

import asyncio
from typing import Any

import pytest

from tests.support.api_tokens import PATH, call, made_token
from tests.support.counted_postgres import CountedPostgres
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.people import administrator
from tests.support.wire import Wire, bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROUNDS = 1000


def belonging(organization: str, role: str = "member") -> dict[str, Any]:
    return {"id": f"org_2{organization}", "slg": organization, "rol": role}


def session(sub: str, organization: str, role: str = "member") -> str:
    return mint_token(sub=sub, o=belonging(organization, role))


async def told(gateway: GatewayUnderTest, credential: str, *lines: str) -> tuple[str, str]:
    """What the upstream is told of the organization."""
    reply = await gateway.get("/x", bearer(credential), *lines)
    assert reply.status == 200, reply.body
    seen = gateway.upstream.last
    return seen.one("x-organization-id"), seen.one("x-organization-role")


async def test_x01_no_field_of_the_client_chooses_the_organization(gateway: GatewayUnderTest) -> None:
    mine, theirs = session("user_2mine", "mine"), session("user_2theirs", "theirs", "admin")
    expected, (foreign, _) = await told(gateway, mine), await told(gateway, theirs)
    lines = [f"{name}: {foreign}" for name in ("X-Org-Id", "X-Organization-Id", "x_organization_id", "X-Clerk-Org-Id")]
    lines.append("X-Organization-Role: admin")

    assert await told(gateway, mine, *lines) == expected
    assert expected[0] != foreign
    current = await call(gateway, mine, "GET", "/organizations/current", None, *lines)
    assert current.json()["id"] == expected[0]


@pytest.mark.parametrize("target", ["/organizations/{id}", "/organizations/{id}/members", "/organizations/org_2theirs"])
async def test_x01_no_own_endpoint_names_an_organization(gateway: GatewayUnderTest, target: str) -> None:
    mine, theirs = session("user_2mine", "mine"), session("user_2theirs", "theirs")
    foreign, _ = await told(gateway, theirs)
    own, _ = await told(gateway, mine)

    reply = await gateway.get(target.replace("{id}", foreign), bearer(mine))

    assert reply.body == b"ok"  # the application's own path, and it is told the truth
    assert gateway.upstream.last.one("x-organization-id") == own


async def test_x01_a_token_stays_in_its_organization_when_its_owner_goes_to_another(gateway: GatewayUnderTest) -> None:
    first, second = session("user_2moves", "first"), session("user_2moves", "second", "admin")
    at_first = await told(gateway, first)
    token = (await made_token(gateway, first))["token"]
    at_second = await told(gateway, second)
    listed = (await call(gateway, second, "GET", "/organizations/current")).json()

    assert at_first[0] != at_second[0]
    assert await told(gateway, token) == at_first
    assert await told(gateway, second) == at_second
    assert await told(gateway, token) == at_first
    assert listed["id"] == at_second[0]


async def test_x03_one_person_in_two_organizations_is_never_crossed(gateway: GatewayUnderTest) -> None:
    left, right = session("user_2both", "left"), session("user_2both", "right", "admin")
    tokens = [(await made_token(gateway, each))["token"] for each in (left, right)]
    expected = {credential: await told(gateway, credential) for credential in (left, right, *tokens)}
    gateway.upstream.received.clear()

    async def alternate(credentials: list[str]) -> None:
        async with gateway.wire() as wire:  # one connection for both: what it carried before decides nothing
            for number in range(ROUNDS // 4):
                await ask(wire, credentials[number % len(credentials)], number)

    async def ask(wire: Wire, credential: str, number: int) -> None:
        mark = list(expected).index(credential)
        reply = await wire.ask(request(f"/x?{mark}&{number}", bearer(credential)))
        assert reply.status == 200

    orders = [[left, right], [right, tokens[0]], tokens, [*expected]]
    await asyncio.gather(*map(alternate, orders))

    assert len(set(expected.values())) == 2
    assert len(gateway.upstream.received) == ROUNDS
    for seen in gateway.upstream.received:
        credential = list(expected)[int(seen.target.partition(b"?")[2].partition(b"&")[0])]
        assert (seen.one("x-organization-id"), seen.one("x-organization-role")) == expected[credential]


async def test_x04_a_slug_that_passed_on_opens_nothing_of_before(gateway: GatewayUnderTest) -> None:
    before = mint_token(sub="user_2old", o={"id": "org_2dead", "slg": "acme", "rol": "admin"})
    after = mint_token(sub="user_2new", o={"id": "org_2reused", "slg": "acme", "rol": "admin"})
    dead = await told(gateway, before)
    token = await made_token(gateway, before)
    reused = await told(gateway, after)
    members = (await call(gateway, after, "GET", "/organizations/current/members")).json()["items"]
    tokens = (await call(gateway, after, "GET", PATH)).json()["items"]
    foreign = await call(gateway, after, "GET", f"{PATH}/{token['id']}")

    assert dead[0] != reused[0]
    assert len(members) == 1
    assert token["id"] not in {one["id"] for one in tokens}
    assert foreign.status == 404
    assert await told(gateway, token["token"]) == dead


FOREIGN: list[tuple[str, str, object]] = [
    ("GET", f"{PATH}/{{id}}", None),
    ("PATCH", f"{PATH}/{{id}}", {"name": "Mine", "scopes": []}),
    ("DELETE", f"{PATH}/{{id}}", None),
    ("POST", f"{PATH}/{{id}}/rotate", {"overlapSeconds": 0}),
    ("POST", f"{PATH}/{{id}}/reveal", None),
]


async def test_x02_a_foreign_id_costs_and_says_what_one_that_never_was_does(database_url: str) -> None:
    async with CountedPostgres(database_url).running() as postgres:
        settings: dict[str, Any] = {"database": {"url": postgres.url, "pool_size": 1}}
        async with gateway_under_test(database_url, **settings) as gateway:
            theirs = await made_token(gateway, session("user_2owner", "owning"))
            here = session("user_2intruder", "intruding", "admin")
            there = await made_token(gateway, session("user_2intruder", "elsewhere"))
            keeper = await made_token(gateway, here, scopes=["tokens:manage"])

            async def cost(credential: str, method: str, target: str, body: object) -> tuple[int, int, str]:
                counts = []
                for _ in range(4):  # the least of several: what runs in the background asks as well
                    await call(gateway, credential, "GET", PATH)  # known: a change that is tried forgets its token
                    before = postgres.statements
                    reply = await call(gateway, credential, method, target, body)
                    counts.append(postgres.statements - before)
                return min(counts), reply.status, reply.code

            for credential, ids in ((here, [theirs["id"]]), (keeper["token"], [theirs["id"], there["id"]])):
                for method, path, body in FOREIGN:
                    nothing = await cost(credential, method, path.replace("{id}", "atk_0000000000000000000000"), body)
                    found = [await cost(credential, method, path.replace("{id}", each), body) for each in ids]

                    assert nothing[0] > 0, "the count counts"
                    assert nothing[1:] == (404, "not_found")
                    assert found == [nothing] * len(ids), (method, path)


async def test_x02_administrators_of_an_organization_are_none_of_the_gateway(gateway: GatewayUnderTest) -> None:
    theirs = await administrator(gateway, "user_2root")
    mine = session("user_2orgadmin", "ruled", "admin")

    replies = [await call(gateway, mine, "GET", f"/admin/users/{each}") for each in (theirs.id, "usr_" + "0" * 22)]

    assert [(reply.status, reply.code) for reply in replies] == [(403, "forbidden")] * 2
    assert replies[0].json() | {"requestId": ""} == replies[1].json() | {"requestId": ""}
