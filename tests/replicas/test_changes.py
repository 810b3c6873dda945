"""What changes at one replica counts at the others: C02, C04, V01, V02, W07 and X03, over processes of their own.

What is believed is believed for ten minutes here, so that nothing but the message from replica to replica ends it.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import connect

from provisioning.administration import Administration
from provisioning.audit import GATEWAY
from provisioning.database.pool import Database
from provisioning.first_sight import FirstSight
from provisioning.profile import Profile
from provisioning.records import Role, Subject
from tests.support.api_tokens import PATH, call, made_token
from tests.support.clerk_webhooks import SECRET, Delivery, envelope, membership
from tests.support.clerk_webhooks import session as revoked_session
from tests.support.fleet import Fleet, Replica
from tests.support.gateway import ROUTES, mint_token
from tests.support.people import met
from tests.support.tokens import execute
from tests.support.websocket_clients import OfWebsockets
from tests.support.wire import bearer

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = {
    "cache": {"near_ttl": "10m", "degraded_ttl": "10m"},
    "clerk": {"webhook_secrets": [SECRET]},
    "tokens": {"scopes": ["reports:read"]},
    "routes": [
        {"path": "/sockets/**", "auth": "required", "accept": ["session", "api_token"], "upstream": "echo"},
        {"path": "/reports/**", "auth": "required", "scopes": ["reports:read"], "upstream": "app"},
        {"path": "/leads/**", "auth": "required", "organization_roles": ["admin"], "upstream": "app"},
        {"path": "/admins/**", "auth": "required", "roles": ["ADMIN"], "upstream": "app"},
        *ROUTES,
    ],
}
ALL = [200, 200, 200]


def session(sub: str, **claims: Any) -> str:
    """A session that outlives the test, so that nothing ends by itself."""
    return mint_token(sub=sub, sid=f"sess_{sub}", exp=int(time.time()) + 600, **claims)


async def opened(stack: AsyncExitStack, replica: Replica, credential: str) -> OfWebsockets:
    headers = {"Authorization": f"Bearer {credential}"}
    url = f"ws://127.0.0.1:{replica.port}/sockets/a"
    client = OfWebsockets(await stack.enter_async_context(connect(url, additional_headers=headers, proxy=None)))
    await client.send("hello")
    assert await client.receive() == "hello"
    return client


@asynccontextmanager
async def sockets(fleet: Fleet, credential: str) -> AsyncIterator[Sequence[OfWebsockets]]:
    """One at each replica."""
    async with AsyncExitStack() as stack:
        yield [await opened(stack, replica, credential) for replica in fleet.replicas]


async def ends(clients: Sequence[OfWebsockets]) -> list[int]:
    return [await client.ended() for client in clients]


@asynccontextmanager
async def records(fleet: Fleet) -> AsyncIterator[Database]:
    async with Database(fleet.database_url, acquire_timeout=60, statement_timeout=60) as database:
        yield database


async def administrator(fleet: Fleet, sub: str) -> str:
    """Give a session of somebody who is one before any replica believes otherwise."""
    async with records(fleet) as database:
        made = await FirstSight(database).provision(Subject(sub), Profile("Boss", f"{sub}@example.com"))
        await Administration(database).set_role(made.standing.user.id, Role.ADMIN, GATEWAY, by=None)
    return session(sub)


async def test_v02_token_revoked_at_one_replica_is_refused_by_all_and_its_websockets_end(fleet: Fleet) -> None:
    owner, (first, *_) = session("user_2revokes"), fleet.replicas
    made, other = await made_token(first, owner), await made_token(first, owner)
    line = bearer(made["token"])
    async with sockets(fleet, made["token"]) as open_now, sockets(fleet, other["token"]) as others:
        before = await fleet.each("/x", line)
        assert await fleet.each("/x", bearer(other["token"])) == ALL
        revoked = await call(first, owner, "DELETE", f"{PATH}/{made['id']}")
        await fleet.until_each(401, "/x", line)
        codes = await ends(open_now)
        for client in others:
            await client.send("still")

            assert await client.receive() == "still"

    assert (before, revoked.status, codes) == (ALL, 204, [4401] * 3)
    assert await fleet.each("/x", bearer(other["token"])) == ALL


async def test_c02_scopes_changed_at_one_replica_are_judged_by_all(fleet: Fleet) -> None:
    owner, (first, _, last) = session("user_2narrows"), fleet.replicas
    made = await made_token(first, owner, scopes=["reports:read"])
    line = bearer(made["token"])
    before = await fleet.each("/reports/x", line)
    narrowed = await call(last, owner, "PATCH", f"{PATH}/{made['id']}", {"scopes": []})
    await fleet.until_each(403, "/reports/x", line)

    assert (before, narrowed.status) == (ALL, 200)
    assert await fleet.each("/x", line) == ALL


async def test_c02_role_changed_at_one_replica_is_judged_by_all(fleet: Fleet) -> None:
    boss, second = await administrator(fleet, "user_2boss"), await administrator(fleet, "user_2second")
    async with sockets(fleet, second) as open_now:
        before = await fleet.each("/admins/x", bearer(second))
        current = (await call(fleet.replicas[1], second, "GET", "/users/current")).json()
        path = f"/admin/users/{current['id']}/role"
        lowered = await call(fleet.replicas[0], boss, "PATCH", path, {"role": "USER"})
        await fleet.until_each(403, "/admins/x", bearer(second))

        assert (before, lowered.status) == (ALL, 200)
        assert await ends(open_now) == [4401] * 3
    assert await fleet.each("/admins/x", bearer(boss)) == ALL


async def test_c02_role_in_an_organization_lowered_at_one_replica_is_judged_by_all(fleet: Fleet) -> None:
    place = {"id": "org_2lowers", "slg": "lowers", "rol": "admin"}
    leads, other = session("user_2lowers", o=place), session("user_2still_leads", o=place)
    token = (await made_token(fleet.replicas[0], leads))["token"]
    before = [await fleet.each("/leads/x", bearer(one)) for one in (leads, token, other)]
    lowered = membership("user_2lowers", "org_2lowers", int(time.time() * 1000))
    taken = await Delivery(envelope("organizationMembership.updated", lowered)).send(fleet.replicas[1])
    for credential in (leads, token):
        await fleet.until_each(403, "/leads/x", bearer(credential))

    assert (before, taken.status) == ([ALL] * 3, 200)
    assert await fleet.each("/x", bearer(token)) == ALL
    assert await fleet.each("/leads/x", bearer(other)) == ALL


async def test_c04_somebody_refused_by_all_is_taken_again_once_one_replica_lets_them(fleet: Fleet) -> None:
    boss, person = await administrator(fleet, "user_2lets"), session("user_2refused")
    user_id = await met(fleet.replicas[0], "user_2refused")
    token = await made_token(fleet.replicas[0], person)
    assert await fleet.each("/x", bearer(token["token"])) == ALL
    assert (await call(fleet.replicas[0], boss, "POST", f"/admin/users/{user_id}/disable")).status == 200
    for credential in (person, token["token"]):
        await fleet.until_each(403, "/x", bearer(credential))
    enabled = await call(fleet.replicas[1], boss, "POST", f"/admin/users/{user_id}/enable")
    for credential in (person, token["token"]):
        await fleet.until_each(200, "/x", bearer(credential))

    assert enabled.status == 200


async def test_c04_token_unknown_to_all_is_taken_by_all_once_it_exists(fleet: Fleet) -> None:
    made = await made_token(fleet.replicas[0], session("user_2later"))
    twisted = "UPDATE api_tokens SET public_id = reverse(public_id) WHERE id = $1"
    async with records(fleet) as database:
        await execute(database, twisted, made["id"])
        before = await fleet.each("/x", bearer(made["token"]))
        await execute(database, twisted, made["id"])
    await fleet.until_each(200, "/x", bearer(made["token"]))

    assert before == [401, 401, 401]


async def test_v01_webhook_at_one_replica_ends_a_person_at_all(fleet: Fleet) -> None:
    person, (first, second, _) = session("user_2deleted"), fleet.replicas
    token = await made_token(first, person)
    async with sockets(fleet, person) as open_now:
        before = await fleet.each("/x", bearer(person)), await fleet.each("/x", bearer(token["token"]))
        event = envelope("user.deleted", {"id": "user_2deleted", "object": "user", "deleted": True})
        taken = await Delivery(event).send(second)
        for credential in (person, token["token"]):
            await fleet.until_each(401, "/x", bearer(credential))

        assert (before, taken.status) == ((ALL, ALL), 200)
        assert await ends(open_now) == [4401] * 3


async def test_v01_membership_that_ends_at_one_replica_ends_that_organization_at_all(fleet: Fleet) -> None:
    place = {"id": "org_2left", "slg": "left", "rol": "member"}
    member, alone = session("user_2leaves", o=place), session("user_2leaves")
    async with sockets(fleet, member) as left, sockets(fleet, alone) as stays:
        before = await fleet.each("/x", bearer(member)), await fleet.each("/x", bearer(alone))
        gone = membership("user_2leaves", "org_2left", int(time.time() * 1000))
        taken = await Delivery(envelope("organizationMembership.deleted", gone)).send(fleet.replicas[2])
        await fleet.until_each(403, "/x", bearer(member))

        assert (before, taken.status) == ((ALL, ALL), 200)
        assert await ends(left) == [4401] * 3
        for client in stays:
            await client.send("still")
            assert await client.receive() == "still"
    assert await fleet.each("/x", bearer(alone)) == ALL


async def test_c02_organization_deleted_at_one_replica_ends_at_all(fleet: Fleet) -> None:
    place = {"id": "org_2ends", "slg": "ends", "rol": "member"}
    member, alone = session("user_2member", o=place), session("user_2member")
    token = (await made_token(fleet.replicas[0], member))["token"]
    async with sockets(fleet, member) as theirs, sockets(fleet, token) as by_token, sockets(fleet, alone) as stays:
        before = [await fleet.each("/x", bearer(one)) for one in (member, token, alone)]
        gone = {"object": "organization", "id": "org_2ends", "deleted": True}
        taken = await Delivery(envelope("organization.deleted", gone)).send(fleet.replicas[2])
        for credential in (member, token):
            await fleet.until_each(403, "/x", bearer(credential))

        assert (before, taken.status) == ([ALL] * 3, 200)
        assert [await ends(theirs), await ends(by_token)] == [[4401] * 3] * 2
        for client in stays:
            await client.send("still")
            assert await client.receive() == "still"
    assert await fleet.each("/x", bearer(alone)) == ALL


async def test_v01_clerk_session_revoked_at_one_replica_is_refused_by_all_while_its_token_lives(fleet: Fleet) -> None:
    ended, other = session("user_2signs_out"), mint_token(sub="user_2signs_out", sid="sess_2another")
    async with sockets(fleet, ended) as open_now:
        before = await fleet.each("/x", bearer(ended)), await fleet.each("/x", bearer(other))
        event = revoked_session("session.revoked", "sess_user_2signs_out", "user_2signs_out")
        taken = await Delivery(event).send(fleet.replicas[1])
        await fleet.until_each(401, "/x", bearer(ended))

        assert (before, taken.status) == ((ALL, ALL), 200)
        assert await ends(open_now) == [4401] * 3
    assert await fleet.each("/x", bearer(other)) == ALL
