"""`GET /organizations/current/audit-events` over a real socket: who may read what, in pages."""

import asyncio
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import asyncpg
import pytest

from gateway.answer import Answer
from gateway.api.endpoints import Call, Endpoint
from gateway.errors import ImpersonationRefused
from tests.support.api_tokens import PATH as TOKENS
from tests.support.api_tokens import call, made_token, value
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.wire import Reply, bearer

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATH = "/organizations/current/audit-events"
SETTINGS: dict[str, Any] = {"tokens": {"scopes": ["reports:read"], "per_user": 1000}}


def member(sub: str, organization: str, role: str) -> str:
    return mint_token(sub=sub, sid=f"sess_{sub}", o={"id": organization, "slg": organization[4:], "rol": role})


async def read(gateway: GatewayUnderTest, credential: str, **query: Any) -> Reply:
    return await gateway.get(f"{PATH}?{urlencode(query)}" if query else PATH, bearer(credential))


async def items(gateway: GatewayUnderTest, credential: str, **query: Any) -> list[dict[str, Any]]:
    reply = await read(gateway, credential, **query)
    assert reply.status == 200, reply.body
    found: list[dict[str, Any]] = reply.json()["items"]
    return found


async def walked(gateway: GatewayUnderTest, credential: str, **query: Any) -> list[dict[str, Any]]:
    met: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        reply = await read(gateway, credential, **query, **({} if cursor is None else {"cursor": cursor}))
        assert reply.status == 200, reply.body
        met += reply.json()["items"]
        cursor = reply.json()["nextCursor"]
        if cursor is None:
            return met


async def test_an_administrator_reads_what_was_done_newest_first(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2reads", sid="sess_2reads")
    agent = "User-Agent: tests/2"
    made = await call(gateway, session, "POST", TOKENS, {"name": "CI", "scopes": []}, agent)
    event = (await items(gateway, session, action="api_token.created"))[0]
    user = (await gateway.get("/users/current", bearer(session))).json()["id"]

    assert event["id"].startswith("evt_")
    assert event["occurredAt"].endswith("Z")
    assert event["actor"] == {"kind": "user", "id": user}
    assert event["impersonator"] is None
    assert event["targets"] == [{"kind": "api_token", "id": made.json()["id"]}, {"kind": "user", "id": user}]
    assert event["context"] == {"address": "127.0.0.1", "userAgent": "tests/2"}
    assert event["requestId"] == await value(gateway, "SELECT request_id FROM audit_events WHERE id = $1", event["id"])
    assert event["metadata"]["name"] == "CI"


async def test_the_answer_is_kept_nowhere(gateway: GatewayUnderTest) -> None:
    reply = await read(gateway, mint_token(sub="user_2kept"))

    assert (reply.status, reply.get("cache-control")) == (200, "no-store")


async def test_pages_meet_every_event_once(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2pages")
    for number in range(12):
        await made_token(gateway, session, name=f"Robot {number}")

    met = await walked(gateway, session, limit=5, action="api_token.*")
    alone = await items(gateway, session, limit=200, action="api_token.*")

    assert met == alone
    assert [event["metadata"]["name"] for event in met[:12]] == [f"Robot {n}" for n in reversed(range(12))]


async def test_a_walk_is_not_disturbed_by_what_is_done_meanwhile(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2walks")
    for _ in range(9):
        await made_token(gateway, session)
    before = {event["id"] for event in await items(gateway, session, limit=200)}
    met, cursor = [], ""
    while cursor is not None:
        reply = await read(gateway, session, limit=2, **({"cursor": cursor} if cursor else {}))
        met += [event["id"] for event in reply.json()["items"]]
        cursor = reply.json()["nextCursor"]
        await made_token(gateway, session)

    assert len(met) == len(set(met))
    assert before <= set(met)


async def test_filters_narrow_by_actor_target_and_time(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2filters")
    first, last = [await made_token(gateway, session) for _ in range(2)]
    everything = await items(gateway, session, limit=200)
    user = everything[0]["actor"]["id"]
    moment = next(event for event in everything if event["targets"][0]["id"] == last["id"])["occurredAt"]

    assert {event["targets"][0]["id"] for event in await items(gateway, session, target=first["id"])} == {first["id"]}
    assert {event["actor"]["id"] for event in await items(gateway, session, actorId=user)} == {user}
    assert last["id"] in str(await items(gateway, session, occurredAfter=moment))
    assert last["id"] not in str(await items(gateway, session, occurredBefore=moment))
    assert await items(gateway, session, actorId="usr_nobody") == []


async def test_a_moment_whose_plus_was_not_escaped_is_read_as_it_was_meant(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2plus")

    for text in ("2020-01-01T00:00:00+01:00", "2020-01-01T00:00:00%2B01:00", "2020-01-01T00:00:00Z"):
        assert (await gateway.get(f"{PATH}?occurredAfter={text}", bearer(session))).status == 200


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/limit"),
        ("limit=201", "/limit"),
        ("limit=-1", "/limit"),
        ("limit=ten", "/limit"),
        ("limit=", "/limit"),
        ("action=User.Login", "/action"),
        ("action=*", "/action"),
        ("action=user*", "/action"),
        ("action=user.%25", "/action"),
        (f"action={'a' * 101}", "/action"),
        ("actorId=", "/actorId"),
        (f"target={'a' * 501}", "/target"),
        ("occurredAfter=yesterday", "/occurredAfter"),
        ("occurredAfter=2020-01-01T00:00:00", "/occurredAfter"),
        ("occurredBefore=0001-01-01T00:00:00%2B14:00", "/occurredBefore"),
        ("cursor=AAAA", "/cursor"),
        ("cursor=", "/cursor"),
        ("cursor=%C3%A9", "/cursor"),
        (f"cursor={'A' * 60}", "/cursor"),
        ("organization=org_other", ""),
        ("actor_id=usr_1", ""),
    ],
)
async def test_a_query_that_cannot_be_taken_is_refused_and_says_where(
    gateway: GatewayUnderTest, query: str, pointer: str
) -> None:
    reply = await gateway.get(f"{PATH}?{query}", bearer(mint_token(sub="user_2query")))

    assert (reply.status, reply.code) == (400, "query_invalid")
    assert [fault["pointer"] for fault in reply.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    "query", ["limit=1&limit=2", "limit=1&limit=1", "actorId=%ff", "actorId=%00", "&".join(["a=1"] * 40)]
)
async def test_a_query_that_cannot_be_read_is_refused(gateway: GatewayUnderTest, query: str) -> None:
    reply = await gateway.get(f"{PATH}?{query}", bearer(mint_token(sub="user_2query")))

    assert (reply.status, reply.code) == (400, "query_invalid")


async def test_a_cursor_that_was_changed_or_is_of_another_question_is_refused(gateway: GatewayUnderTest) -> None:
    session, other = mint_token(sub="user_2cursor"), mint_token(sub="user_2else")
    for person in (session, other):
        for _ in range(3):
            await made_token(gateway, person)
    cursor = (await read(gateway, session, limit=1)).json()["nextCursor"]
    changed = [cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :] for at in range(len(cursor))]
    asked = [{"cursor": text, "limit": 1} for text in (*changed, cursor[:-1], cursor + "A", cursor + "=", cursor * 2)]
    asked += [{"cursor": cursor, "action": "user.*"}, {"cursor": cursor, "occurredAfter": "2020-01-01T00:00:00Z"}]

    replies = [await read(gateway, session, **query) for query in asked]
    replies.append(await read(gateway, other, cursor=cursor, limit=1))

    assert {(reply.status, reply.code) for reply in replies} == {(400, "query_invalid")}
    assert (await read(gateway, session, cursor=cursor, limit=3)).status == 200


# Who may.


async def test_only_administrators_of_the_organization_read_it(gateway: GatewayUnderTest) -> None:
    admin = await read(gateway, member("user_2admin", "org_2audit", "admin"))
    plain = await read(gateway, member("user_2plain", "org_2audit", "member"))
    nobody = await gateway.get(PATH)

    assert admin.status == 200
    assert (plain.status, plain.code) == (403, "forbidden")
    assert (nobody.status, nobody.code) == (401, "credential_missing")


async def test_a_token_needs_the_scope_and_an_owner_who_is_an_administrator(gateway: GatewayUnderTest) -> None:
    admin, plain = (member(f"user_2token{role}", "org_2scoped", role) for role in ("admin", "member"))
    tokens = [
        (await made_token(gateway, owner, scopes=scopes))["token"]
        for owner in (admin, plain)
        for scopes in (["audit:read"], ["tokens:manage"])
    ]

    replies = [await read(gateway, token) for token in tokens]

    assert [reply.status for reply in replies] == [200, 403, 403, 403]
    assert [reply.code for reply in replies[1:]] == ["insufficient_scope", "forbidden", "forbidden"]


async def test_x01_a_token_of_one_organization_never_reads_another(gateway: GatewayUnderTest) -> None:
    here, there = member("user_2both", "org_2here", "admin"), member("user_2both", "org_2there", "admin")
    token = (await made_token(gateway, here, scopes=["audit:read"], name="Of here"))["token"]
    secret = await made_token(gateway, there, name="Of there")

    for _ in range(20):  # caches warm, turn by turn
        by_token, by_session, other = [
            await items(gateway, credential, limit=200) for credential in (token, here, there)
        ]
        assert "Of there" not in str(by_token) + str(by_session)
        assert "Of here" not in str(other)
    assert await items(gateway, token, target=secret["id"]) == []
    assert await items(gateway, here, target=secret["id"]) == []


async def test_x02_ids_of_another_organization_find_nothing_by_any_filter(gateway: GatewayUnderTest) -> None:
    mine, theirs = mint_token(sub="user_2mine"), mint_token(sub="user_2theirs")
    await made_token(gateway, mine)
    foreign = await made_token(gateway, theirs)
    user = (await gateway.get("/users/current", bearer(theirs))).json()["id"]

    assert await items(gateway, mine, target=foreign["id"]) == []
    assert await items(gateway, mine, target=user) == []
    assert await items(gateway, mine, actorId=user) == []


async def test_whoever_acts_as_an_administrator_reads_too(gateway: GatewayUnderTest) -> None:
    acting = mint_token(sub="user_2acted", sid="sess_2acted", act={"sub": "user_2support", "sid": "sess_2s"})

    assert (await read(gateway, acting)).status == 200


async def test_a_post_is_not_taken(gateway: GatewayUnderTest) -> None:
    reply = await call(gateway, mint_token(), "POST", PATH, {})

    assert (reply.status, reply.get("allow")) == (405, "GET, HEAD")


async def test_l06_another_site_cannot_read_it_through_a_browser(gateway: GatewayUnderTest) -> None:
    reply = await gateway.get(PATH, bearer(mint_token()), "Origin: https://evil.example")

    assert reply.get("access-control-allow-origin") is None


async def test_prefix_and_switch_are_those_of_the_other_endpoints(database_url: str) -> None:
    async with gateway_under_test(database_url, api={"prefix": "/gw"}) as gateway:
        prefixed = await gateway.get(f"/gw{PATH}", bearer(mint_token()))
        document = (await gateway.get("/gw/openapi.json")).json()
        assert await gateway.reload(api={"organizations": False})
        off = await gateway.get(f"/gw{PATH}", bearer(mint_token()))

    assert prefixed.status == 200
    parameters = document["paths"][f"/gw{PATH}"]["get"]["parameters"]
    assert [parameter["name"] for parameter in parameters] == [
        "action",
        "actorId",
        "target",
        "occurredAfter",
        "occurredBefore",
        "limit",
        "cursor",
    ]
    assert gateway.upstream.last.target == f"/gw{PATH}".encode()
    assert off.status == 200  # the upstream's own path by then


# What requests leave behind.


async def until_written(gateway: GatewayUnderTest) -> None:
    await gateway.reloader.current.sources.notes.write()


async def test_a_login_is_one_event_for_all_tokens_of_its_session(gateway: GatewayUnderTest) -> None:
    sessions: dict[str, Any] = {"sub": "user_2logs", "sid": "sess_2logs"}
    for number in range(5):
        await gateway.get("/x", bearer(mint_token(**sessions, jti=str(number))), "User-Agent: tests/3")
    await gateway.get("/x", bearer(mint_token(sub="user_2logs", sid="sess_2logs_too")))
    await until_written(gateway)

    logins = await items(gateway, mint_token(**sessions), action="user.login")

    assert [event["metadata"]["sessionId"] for event in logins] == ["sess_2logs_too", "sess_2logs"]
    assert logins[1]["context"] == {"address": "127.0.0.1", "userAgent": "tests/3"}


async def test_api_tokens_and_minted_tokens_are_no_logins(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2nologin", sid="sess_2nologin")
    token = (await made_token(gateway, session, scopes=["audit:read"]))["token"]
    await gateway.get("/users/current", bearer(token))
    await until_written(gateway)

    assert len(await items(gateway, token, action="user.login")) == 1


async def test_j15_acting_as_somebody_is_on_record_with_who_acts_and_no_login(gateway: GatewayUnderTest) -> None:
    acting = mint_token(sub="user_2victim", sid="sess_2acting", act={"sub": "user_2support", "sid": "sess_2s"})
    await gateway.get("/x", bearer(acting))
    await until_written(gateway)

    events = await items(gateway, acting, action="user.*")

    assert [event["action"] for event in events] == ["user.impersonated", "user.created"]
    assert events[0]["impersonator"] == "user_2support"


async def test_a_session_has_logged_in_once_its_tasks_are_finished(database_url: str) -> None:
    routes = [{"path": "/**", "auth": "required", "allow_pending": True, "upstream": "app"}]
    async with gateway_under_test(database_url, routes=routes) as gateway:
        counted = []
        stages: tuple[dict[str, Any], ...] = ({"sts": "pending"}, {})
        for claims in stages:
            reply = await gateway.get("/x", bearer(mint_token(sub="user_2pending", sid="sess_2pending", **claims)))
            await until_written(gateway)
            counted.append((reply.status, await value(gateway, "SELECT count(*) FROM logins")))

    assert counted == [(200, 0), (200, 1)]


async def test_a_flood_of_refused_administrators_requests_is_one_event_at_first(database_url: str) -> None:
    routes = [
        {"path": "/admin/**", "auth": "required", "roles": ["ADMIN"], "upstream": "app"},
        {"path": "/**", "auth": "required", "upstream": "app"},
    ]
    async with gateway_under_test(database_url, routes=routes) as gateway:
        session = mint_token(sub="user_2tries", sid="sess_2tries")
        replies = await asyncio.gather(*(gateway.get(f"/admin/{n}", bearer(session)) for n in range(50)))
        await gateway.get("/admin/x")  # nobody
        await until_written(gateway)
        events = await items(gateway, session, action="admin.access_denied")
        await gateway.reloader.current.sources.notes.write(ending=True)
        rest = await items(gateway, session, action="admin.*")

    assert {reply.status for reply in replies} == {403}
    assert [event["metadata"]["times"] for event in events] == [1]
    assert [event["metadata"]["times"] for event in rest] == [49, 1]
    assert events[0]["metadata"]["route"] == "/admin/**"
    assert events[0]["metadata"]["reason"] == "role_not_allowed"


async def test_a_handler_that_refuses_an_administrators_request_is_on_record_as_well(database_url: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        session = mint_token(sub="user_2handler", sid="sess_2handler")
        rooms = gateway.reloader.current.pipeline.rooms
        endpoint = rooms.endpoints.find("GET", PATH)
        assert endpoint is not None

        async def refuse(call: Call) -> Answer:
            raise ImpersonationRefused

        rule = replace(endpoint.rule, scopes=("admin",))
        rooms.endpoints._by_path["/admin/x"] = {"GET": Endpoint("GET", "/admin/x", rule, refuse)}
        reply = await gateway.get("/admin/x", bearer(session))
        await until_written(gateway)
        (event,) = await items(gateway, session, action="admin.*")

    assert (reply.status, reply.code) == (403, "impersonation_refused")
    assert event["metadata"]["reason"] == "impersonation_refused"


async def test_what_was_noted_last_is_written_at_the_end_of_a_process(database_url: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        await gateway.get("/x", bearer(mint_token(sub="user_2ends", sid="sess_2ends")))
    connection = await asyncpg.connect(database_url)
    found = await connection.fetchval("SELECT count(*) FROM audit_events WHERE action = 'user.login'")
    await connection.close()

    assert found == 1


async def test_two_gateways_and_a_reload_make_one_login_of_a_session(database_url: str) -> None:
    session: dict[str, Any] = {"sub": "user_2two", "sid": "sess_2two"}
    async with gateway_under_test(database_url) as one, gateway_under_test(database_url) as two:
        for number in range(4):
            for gateway in (one, two):
                await gateway.get("/x", bearer(mint_token(**{**session, "jti": str(number)})))
        assert await one.reload(database={"pool_size": 3})
        await one.get("/x", bearer(mint_token(**{**session, "jti": "after"})))
        await asyncio.gather(until_written(one), until_written(two))
        logins = await items(one, mint_token(sub="user_2two", sid="sess_2two"), action="user.login")

    assert len(logins) == 1


async def test_refusals_of_other_routes_are_not_on_record(gateway: GatewayUnderTest) -> None:
    token = (await made_token(gateway, mint_token(sub="user_2other")))["token"]
    refused = await read(gateway, token)
    await until_written(gateway)

    assert refused.status == 403
    assert await value(gateway, "SELECT count(*) FROM audit_events WHERE action LIKE 'admin.%'") == 0


async def test_a_known_caller_leaves_nothing_behind(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2hot", sid="sess_2hot")
    await gateway.get("/x", bearer(session))
    await until_written(gateway)
    lent = gateway.reloader.current.sources.database.connections_lent
    for _ in range(20):
        await gateway.get("/x", bearer(session))
    await until_written(gateway)

    assert gateway.reloader.current.sources.database.connections_lent == lent


async def test_while_postgresql_is_away_the_trail_is_unavailable_and_logins_wait(database_url: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        session, sources = mint_token(sub="user_2away", sid="sess_2away"), gateway.reloader.current.sources
        await gateway.get("/x", bearer(session))
        await sources.database.close()
        reply = await read(gateway, session)
        later = await gateway.get("/x", bearer(mint_token(sub="user_2away", sid="sess_2away_later")))
        await until_written(gateway)
        await sources.database.open()
        await until_written(gateway)
        logins = await value(gateway, "SELECT count(*) FROM logins")

    assert (reply.status, reply.code) == (503, "store_unavailable")
    assert later.status == 200
    assert logins == 2
