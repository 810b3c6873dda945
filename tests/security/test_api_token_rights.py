"""API tokens against a hostile caller: what one may do, and what is told of it (T05 to T07, J18, L02, L03, X01)."""

import json
from typing import Any

import pytest

from provisioning.token_text import new_system_token
from tests.support.api_tokens import (
    ASKING,
    PATH,
    call,
    connection,
    made_token,
    refusals,
    use,
    value,
    with_another_secret,
)
from tests.support.gateway import GatewayUnderTest, mint_token
from tests.support.wire import bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS: dict[str, Any] = ASKING


async def test_t05_secret_is_shown_once_and_the_making_is_on_record(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2maker")
    made = await made_token(gateway, session, name="Once")
    shown = [
        (await call(gateway, session, "GET", target)).body.decode()
        for target in (PATH, f"{PATH}/{made['id']}", "/users/current")
    ]
    record = await value(
        gateway,
        "SELECT e::text FROM audit_events e WHERE action = 'api_token.created' AND e::text LIKE $1",
        f"%{made['id']}%",
    )

    assert all(made["id"] in text and made["token"][4:16] in text for text in shown)
    assert not any(made["token"][16:] in text for text in (*shown, record))
    assert await value(gateway, "SELECT count(*) FROM audit_events WHERE action = 'api_token.created'") > 0


async def test_t06_many_uses_within_a_minute_are_one_write(gateway: GatewayUnderTest) -> None:
    made = await made_token(gateway, mint_token(sub="user_2busy"))
    uses = gateway.reloader.current.sources.token_uses
    await uses.write()
    for _ in range(50):
        await use(gateway, made["token"])

    written = await uses.write()
    first = await value(gateway, "SELECT last_used_at FROM api_tokens WHERE id = $1", made["id"])
    for _ in range(20):
        await use(gateway, made["token"])

    assert (written, await uses.write()) == (1, 0)
    assert await value(gateway, "SELECT last_used_at FROM api_tokens WHERE id = $1", made["id"]) == first
    assert await value(gateway, "SELECT last_used_address FROM api_tokens WHERE id = $1", made["id"]) == "127.0.0.1"


async def test_t06_a_locked_row_keeps_no_request_waiting(gateway: GatewayUnderTest) -> None:
    made = await made_token(gateway, mint_token(sub="user_2locked"))
    async with connection(gateway) as other, other.transaction():
        await other.execute("SELECT FROM api_tokens WHERE id = $1 FOR UPDATE", made["id"])

        replies = [await use(gateway, made["token"]) for _ in range(5)]

    assert {reply.status for reply in replies} == {200}


@pytest.mark.parametrize("target,reason", [("/sessions/x", "kind_not_accepted"), ("/sockets/x", "kind_not_accepted")])
async def test_t07_token_is_refused_by_its_kind(gateway: GatewayUnderTest, target: str, reason: str) -> None:
    made = await made_token(gateway, mint_token(sub="user_2kinds"))
    counted = await refusals(gateway, reason)

    reply = await use(gateway, made["token"], target)

    assert reply.status == 401
    assert await refusals(gateway, reason) == counted + 1


@pytest.mark.parametrize(
    "scopes,target,status",
    [
        (["reports:read"], "/reports/x", 200),
        (["reports:read", "reports:write"], "/reports/x", 200),
        (["reports:write"], "/reports/x", 403),
        ([], "/reports/x", 403),
        ([], "/x", 200),
    ],
)
async def test_t07_token_passes_by_its_scopes_alone(
    gateway: GatewayUnderTest, scopes: list[str], target: str, status: int
) -> None:
    made = await made_token(gateway, mint_token(sub="user_2scopes"), scopes=scopes)

    reply = await use(gateway, made["token"], target)

    assert reply.status == status
    if status == 403:
        assert reply.code == "insufficient_scope"
        assert (reply.challenge.error, reply.challenge.scope) == ("insufficient_scope", "reports:read")


async def test_t07_token_makes_none_that_is_wider(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2wider")
    manager = await made_token(gateway, session, scopes=["tokens:manage", "reports:read"])
    other = await made_token(gateway, session, scopes=["reports:write"])

    wider = await call(gateway, manager["token"], "POST", PATH, {"name": "W", "scopes": ["reports:write"]})
    equal = await call(gateway, manager["token"], "POST", PATH, {"name": "E", "scopes": ["reports:read"]})
    change = await call(gateway, manager["token"], "PATCH", f"{PATH}/{manager['id']}", {"scopes": ["reports:write"]})
    rotate = await call(gateway, manager["token"], "POST", f"{PATH}/{other['id']}/rotate")

    assert (wider.status, wider.code, wider.challenge.scope) == (403, "insufficient_scope", "reports:write")
    assert equal.status == 201
    assert [reply.status for reply in (change, rotate)] == [403, 403]


async def test_t07_nobody_gives_the_scope_of_administrators_but_one(gateway: GatewayUnderTest) -> None:
    reply = await call(gateway, mint_token(), "POST", PATH, {"name": "A", "scopes": ["admin"]})

    assert (reply.status, reply.code) == (403, "insufficient_scope")


async def test_t07_token_without_the_scope_manages_none(gateway: GatewayUnderTest) -> None:
    made = await made_token(gateway, mint_token(sub="user_2narrow"), scopes=["reports:read"])
    calls = [("GET", PATH), ("POST", PATH), ("DELETE", f"{PATH}/{made['id']}")]

    replies = [await call(gateway, made["token"], method, target) for method, target in calls]

    assert {(reply.status, reply.code) for reply in replies} == {(403, "insufficient_scope")}


async def test_t07_system_token_is_no_api_token(gateway: GatewayUnderTest) -> None:
    reply = await call(gateway, new_system_token().text, "POST", PATH, {"name": "S"})

    assert reply.status == 401


async def test_j18_token_and_cookie_of_one_person_pass_and_the_token_counts(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2both")
    made = await made_token(gateway, session, scopes=["reports:read"])
    cookie = f"Cookie: __session={session}; __client_uat=1"

    for lines in ((bearer(made["token"]), cookie), (f"X-API-Key: {made['token']}", cookie)):
        for _ in range(2):
            reply = await gateway.get("/x", *lines)

            assert reply.status == 200
            assert gateway.upstream.last.one("x-actor-auth") == "api_token"
            assert gateway.upstream.last.one("x-actor-token-id") == made["id"]


async def test_j18_bearer_session_counts_before_the_key_of_the_same_person(gateway: GatewayUnderTest) -> None:
    session = mint_token(sub="user_2keyed")
    made = await made_token(gateway, session)

    reply = await gateway.get("/x", bearer(session), f"X-API-Key: {made['token']}")

    assert reply.status == 200
    assert gateway.upstream.last.one("x-actor-auth") == "session"
    assert gateway.upstream.last.one("x-actor-token-id") == ""


async def test_j18_tokens_of_two_people_are_a_conflict(gateway: GatewayUnderTest) -> None:
    one = await made_token(gateway, mint_token(sub="user_2one"))
    two = await made_token(gateway, mint_token(sub="user_2two"))
    pairs = [
        (bearer(one["token"]), f"X-API-Key: {two['token']}"),
        (bearer(mint_token(sub="user_2one")), f"X-API-Key: {two['token']}"),
        (bearer(one["token"]), f"Cookie: __session={mint_token(sub='user_2two')}; __client_uat=1"),
    ]

    replies = [await gateway.get("/x", *lines) for lines in pairs for _ in range(2)]

    assert {(reply.status, reply.code) for reply in replies} == {(400, "credential_conflict")}
    assert gateway.upstream.received == []


async def test_j18_lesser_token_that_is_revoked_is_ignored(gateway: GatewayUnderTest) -> None:
    theirs = await made_token(gateway, mint_token(sub="user_2theirs"))
    await call(gateway, mint_token(sub="user_2theirs"), "DELETE", f"{PATH}/{theirs['id']}")

    reply = await gateway.get("/x", bearer(mint_token(sub="user_2mine")), f"X-API-Key: {theirs['token']}")

    assert reply.status == 200


async def test_l02_token_is_in_no_log_metric_or_answer(
    gateway: GatewayUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    session = mint_token(sub="user_2quiet")
    made = await made_token(gateway, session)
    token, secret = made["token"], made["token"][16:]
    bad = with_another_secret(token)
    replies = [
        await gateway.get("/x", bearer(bad)),
        await gateway.get("/x", bearer(token[:-1])),
        await gateway.get("/x", f"X-API-Key: {bad}"),
        await gateway.get("/x", bearer(token), bearer(token)),
        await gateway.get("/reports/x", bearer(token)),
        await gateway.get(f"/x?key={bad}"),
        await gateway.get("/x", f"Cookie: __session={token}; __client_uat=1"),
        await call(gateway, session, "POST", PATH, {"name": "L", "scopes": [token]}),
        await call(gateway, session, "POST", PATH, {"name": token, "scopes": "x", token: token}),
        await call(gateway, session, "POST", PATH, {"name": "L", "expiresAt": token}),
        await call(gateway, session, "GET", f"{PATH}/{token}"),
    ]
    told = capsys.readouterr()
    said = [told.out, told.err, await gateway.metrics()]
    said += [reply.body.decode() + str(reply.fields) for reply in replies]

    assert {reply.status for reply in replies} == {400, 401, 403, 404, 422}
    for part in (secret, bad[16:]):
        assert not any(part in text for text in said)


async def test_l03_current_user_holds_no_secret_and_nothing_of_others(gateway: GatewayUnderTest) -> None:
    mine = await made_token(gateway, mint_token(sub="user_2own"), name="Mine")
    theirs = await made_token(gateway, mint_token(sub="user_2foreign"), name="Theirs")

    reply = await call(gateway, mint_token(sub="user_2own"), "GET", "/users/current")

    listed = {token["id"] for token in reply.json()["apiTokens"]}
    assert mine["id"] in listed
    assert theirs["id"] not in listed
    assert mine["token"][16:] not in reply.body.decode()
    assert reply.get("cache-control") == "no-store"
    assert {"Authorization", "X-API-Key", "Cookie"} <= set((reply.get("vary") or "").split(", "))
    assert set(reply.json()["apiTokens"][0]) == {
        "id",
        "name",
        "publicId",
        "scopes",
        "createdAt",
        "expiresAt",
        "lastUsedAt",
        "revokedAt",
    }


async def test_x01_somebody_elses_token_is_not_there(gateway: GatewayUnderTest) -> None:
    theirs = await made_token(gateway, mint_token(sub="user_2victim"))
    mine = mint_token(sub="user_2thief")
    one = f"{PATH}/{theirs['id']}"
    calls: list[tuple[str, str, object]] = [
        ("GET", one, None),
        ("PATCH", one, {"name": "Mine"}),
        ("DELETE", one, None),
        ("POST", f"{one}/rotate", {"overlapSeconds": 0}),
        ("POST", f"{one}/reveal", None),
        ("GET", f"{PATH}/atk_0000000000000000000000", None),
        ("GET", f"{PATH}/nothing", None),
        ("GET", f"{PATH}/{theirs['id'].replace('a', '%61', 1)}", None),
    ]

    replies = [await call(gateway, mine, *given) for given in calls]

    assert {(reply.status, reply.code) for reply in replies} == {(404, "not_found")}
    assert (await use(gateway, theirs["token"])).status == 200


async def test_x01_nothing_in_ones_other_organizations_is_reached(gateway: GatewayUnderTest) -> None:
    at_home = mint_token(sub="user_2twoorgs")
    abroad = mint_token(sub="user_2twoorgs", o={"id": "org_2abroad", "slg": "abroad", "rol": "member"})
    home = await made_token(gateway, at_home, scopes=["tokens:manage"])
    away = await made_token(gateway, abroad, scopes=[])

    for credential in (home["token"], at_home):
        listed = (await call(gateway, credential, "GET", PATH)).json()["items"]
        current = (await call(gateway, credential, "GET", "/users/current")).json()["apiTokens"]
        others = [
            await call(gateway, credential, method, f"{PATH}/{away['id']}{rest}")
            for method, rest in (("GET", ""), ("DELETE", ""), ("POST", "/rotate"), ("POST", "/reveal"))
        ]

        assert home["id"] in {token["id"] for token in listed} & {token["id"] for token in current}
        assert away["id"] not in {token["id"] for token in (*listed, *current)}
        assert {(reply.status, reply.code) for reply in others} == {(404, "not_found")}
    assert (await call(gateway, abroad, "GET", f"{PATH}/{away['id']}")).status == 200
    assert (await use(gateway, away["token"])).status == 200


async def test_j15_nobody_who_acts_as_the_user_manages_their_tokens(gateway: GatewayUnderTest) -> None:
    made = await made_token(gateway, mint_token(sub="user_2helped"))
    act = {"iss": "https://clerk.example.com", "sid": "sess_2support", "sub": "user_2support"}
    impersonated = mint_token(sub="user_2helped", act=act)
    one = f"{PATH}/{made['id']}"
    calls = [("GET", PATH), ("POST", PATH), ("GET", one), ("PATCH", one), ("DELETE", one), ("POST", f"{one}/rotate")]

    replies = [await call(gateway, impersonated, method, target, {"name": "X"}) for method, target in calls]

    assert {(reply.status, reply.code) for reply in replies} == {(403, "impersonation_refused")}
    assert (await use(gateway, made["token"])).status == 200


async def test_l06_cookie_makes_a_token_only_from_an_own_page(gateway: GatewayUnderTest) -> None:
    cookie = f"Cookie: __session={mint_token()}; __client_uat=1"
    body = json.dumps({"name": "C", "scopes": []}).encode()
    typed = "Content-Type: application/json"
    statuses = [
        (await gateway.ask(request(PATH, cookie, typed, *lines, method="POST", body=body))).status
        for lines in ((), ("Origin: https://evil.example",), (f"Origin: {gateway.settings.public_url}",))
    ]
    form = ("Content-Type: text/plain", f"Origin: {gateway.settings.public_url}")
    as_form = await gateway.ask(request(PATH, cookie, *form, method="POST", body=body))

    assert statuses == [403, 403, 201]
    assert as_form.status == 415
