"""Socket.IO's own client and server for Python, with the gateway between them."""

import asyncio
from typing import Any

import jwt
import pytest
from socketio.exceptions import ConnectionError as ConnectRefused

from tests.support.gateway import ORIGIN, mint_token
from tests.support.minted import ask_for_token, claims_of, signed, websocket_token
from tests.support.socketio_upstream import SocketIoGateway, connected_client, refusal_of, socketio_gateway
from tests.support.upstream import until

TRANSPORTS = pytest.mark.parametrize(
    "transports", [["websocket"], ["polling"], None], ids=["websocket", "polling", "upgraded"]
)
EITHER = pytest.mark.parametrize("transports", [["websocket"], ["polling"]], ids=["websocket", "polling"])
REFUSALS = 10.0


async def token_of_kind(way: SocketIoGateway, kind: str) -> str | None:
    token = await websocket_token(way.gateway)
    match kind:
        case "absent":
            return None
        case "expired":
            return signed(way.gateway, token, exp=1, iat=0)
        case "session":
            return mint_token()
        case "agent":
            return signed(way.gateway, token, aud="agent", token_use="agent_token")
        case "other path":
            return signed(way.gateway, token, path="/ws/a")
        case "foreign":  # what another gateway signed
            return jwt.encode(claims_of(token), "another key of another gateway, long enough", algorithm="HS256")
        case _:
            return kind


@TRANSPORTS
async def test_a_client_connects_and_the_upstream_reads_who_it_is(
    database_url: str, transports: list[str] | None
) -> None:
    async with socketio_gateway(database_url) as way:
        token = await websocket_token(way.gateway)
        async with connected_client(way.url, token, transports=transports) as client:
            claims = await client.call("whoami")

        ((_, auth),) = way.upstream.auths
        keys = (await way.gateway.get("/.well-known/jwks.json")).json()
        key = jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(auth["token"])["kid"]]
        proven = jwt.decode(auth["token"], key, algorithms=["ES256"], audience="app", issuer=ORIGIN)
        assert proven == claims
        assert proven["auth"] == "websocket_token"
        assert proven["sid"] == "sess_2testSession"
        assert token not in way.upstream.written()


@EITHER
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("absent", "credential_missing"),
        ("expired", "invalid_token"),
        ("session", "invalid_token"),
        ("agent", "invalid_token"),
        ("other path", "invalid_token"),
        ("foreign", "invalid_token"),
        ("a b", "invalid_request"),
    ],
)
async def test_w06_bad_token_is_answered_and_nothing_of_it_goes_up(
    database_url: str, transports: list[str], kind: str, message: str
) -> None:
    async with socketio_gateway(database_url) as way:
        refusal = await refusal_of(way.url, await token_of_kind(way, kind), transports)

        assert refusal["message"] == message
        assert refusal["data"]["status"] in (400, 401)
        assert way.upstream.auths == []


@TRANSPORTS
async def test_events_acknowledgements_and_attachments_pass_both_ways(
    database_url: str, transports: list[str] | None
) -> None:
    given = {"text": "ä\x1e\n", "list": [1, 2.5, None], "bytes": [b"\x00\xff", b"0" * 3000]}
    async with socketio_gateway(database_url) as way:
        async with connected_client(way.url, await websocket_token(way.gateway), transports=transports) as client:
            answers = [await client.call("echo", given) for _ in range(3)]
            called = asyncio.get_running_loop().create_future()
            client.on("called", called.set_result)
            await client.emit("call_back", b"bytes")

            assert await called == b"bytes"
        assert answers == [given] * 3


async def test_messages_larger_than_anything_held_pass_on_a_websocket(database_url: str) -> None:
    text = "x" * 900_000
    async with (
        socketio_gateway(database_url) as way,
        connected_client(way.url, await websocket_token(way.gateway), transports=["websocket"]) as client,
    ):
        assert await client.call("echo", text) == text


@TRANSPORTS
async def test_w07_revoked_client_is_cut_and_heard_no_more(database_url: str, transports: list[str] | None) -> None:
    async with socketio_gateway(database_url) as way:
        async with connected_client(way.url, await websocket_token(way.gateway), transports=transports) as client:
            left = asyncio.Event()
            client.on("disconnect", lambda reason: left.set())
            live = way.gateway.reloader.home.live
            ended = live.end(session="sess_2testSession")
            await client.emit("echo", "too late")
            await asyncio.wait_for(left.wait(), REFUSALS)

            assert ended == 1
            assert len(live) == 0
        assert ("/", ("echo", "too late")) not in way.upstream.events


@EITHER
async def test_w07_connection_ends_with_its_token(database_url: str, transports: list[str]) -> None:
    async with socketio_gateway(database_url, tokens={"websocket_life": "1s"}) as way:
        async with connected_client(way.url, await websocket_token(way.gateway), transports=transports) as client:
            left = asyncio.Event()
            client.on("disconnect", lambda reason: left.set())
            await asyncio.wait_for(left.wait(), REFUSALS)

        await until(lambda: len(way.gateway.reloader.home.live) == 0)


@EITHER
async def test_w07_no_connection_grows_older_than_it_may(database_url: str, transports: list[str]) -> None:
    async with socketio_gateway(database_url, websocket={"max_age": "1s"}) as way:
        async with connected_client(way.url, await websocket_token(way.gateway), transports=transports) as client:
            left = asyncio.Event()
            client.on("disconnect", lambda reason: left.set())
            await asyncio.wait_for(left.wait(), REFUSALS)

        await until(lambda: len(way.gateway.reloader.home.live) == 0)


@EITHER
async def test_w07_connection_lives_on_when_its_session_renews_it(database_url: str, transports: list[str]) -> None:
    async with socketio_gateway(database_url, tokens={"websocket_life": "3s"}) as way:
        token = await websocket_token(way.gateway)
        async with connected_client(way.url, token, transports=transports) as client:
            for _ in range(4):
                await asyncio.sleep(1.2)
                reply = await ask_for_token(way.gateway, {"connectionId": claims_of(token)["jti"]})
                assert reply.status == 201

            assert await client.call("echo", "still here") == "still here"


async def test_w07_connection_lives_on_when_its_namespace_is_connected_anew(database_url: str) -> None:
    async with (
        socketio_gateway(database_url, tokens={"websocket_life": "3s"}) as way,
        connected_client(way.url, await websocket_token(way.gateway), transports=["websocket"]) as client,
    ):
        for _ in range(4):
            await asyncio.sleep(1.2)
            fresh = (await ask_for_token(way.gateway)).json()["token"]
            await client.eio.send("1")  # the server for Python connects a namespace once
            await client.eio.send('0{"token":"' + fresh + '"}')

        assert await client.call("echo", "still here") == "still here"


@TRANSPORTS
async def test_every_namespace_is_told_who_connects(database_url: str, transports: list[str] | None) -> None:
    async with socketio_gateway(database_url) as way:
        token = await websocket_token(way.gateway)
        async with connected_client(way.url, token, ["/", "/chat"], transports) as client:
            claims = [await client.call("whoami", namespace=namespace) for namespace in ("/", "/chat")]

        assert sorted(namespace for namespace, _ in way.upstream.auths) == ["/", "/chat"]
        assert claims[0]["sub"] == claims[1]["sub"]


async def test_a_connection_that_ends_leaves_nothing_behind(database_url: str) -> None:
    async with socketio_gateway(database_url) as way:
        live = way.gateway.reloader.home.live
        async with connected_client(way.url, await websocket_token(way.gateway), ["/", "/chat"]):
            assert len(live) == 1

        await until(lambda: len(live) == 0)


@EITHER
async def test_every_further_namespace_is_checked_and_the_others_live_on(
    database_url: str, transports: list[str]
) -> None:
    async with socketio_gateway(database_url, options={"ping_interval": 1}) as way:
        async with connected_client(way.url, await websocket_token(way.gateway), transports=transports) as client:
            refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            client.on("connect_error", refused.set_result, namespace="/admin")
            client.namespaces["/admin"] = None
            await client.eio.send('0/admin,{"token":"a.b.c"}')
            answer = await asyncio.wait_for(refused, REFUSALS)

            assert answer["message"] == "invalid_token"
            assert answer["data"]["status"] == 401
            assert await client.call("echo", "still here") == "still here"
        assert [namespace for namespace, _ in way.upstream.auths] == ["/"]


@EITHER
async def test_an_event_of_a_namespace_that_was_not_admitted_ends_the_connection(
    database_url: str, transports: list[str]
) -> None:
    async with socketio_gateway(database_url) as way:
        async with connected_client(way.url, await websocket_token(way.gateway), transports=transports) as client:
            left = asyncio.Event()
            client.on("disconnect", lambda reason: left.set())
            await client.eio.send('2/admin,["echo","x"]')
            await asyncio.wait_for(left.wait(), REFUSALS)

        assert way.upstream.events == []


@EITHER
async def test_route_rules_judge_each_connect(database_url: str, transports: list[str]) -> None:
    async with socketio_gateway(database_url, route={"roles": ["ADMIN"]}) as way:
        refusal = await refusal_of(way.url, await websocket_token(way.gateway), transports)

        assert refusal["message"] == "forbidden"
        assert way.upstream.auths == []


@EITHER
async def test_nobody_connects_as_nobody_where_that_is_allowed(database_url: str, transports: list[str]) -> None:
    async with socketio_gateway(database_url, route={"auth": "optional"}) as way:
        async with connected_client(way.url, None, transports=transports) as client:
            assert await client.call("whoami") is None

        assert (await refusal_of(way.url, "a.b.c", transports))["message"] == "invalid_token"
        assert way.upstream.auths == [("/", None)]


@EITHER
async def test_w06_token_of_single_use_connects_all_namespaces_of_one_connection(
    database_url: str, transports: list[str]
) -> None:
    async with socketio_gateway(database_url, websocket={"single_use": True}) as way:
        token = await websocket_token(way.gateway)
        async with connected_client(way.url, token, ["/", "/chat"], transports) as client:
            assert await client.call("echo", "x", namespace="/chat") == "x"

        assert (await refusal_of(way.url, token, transports))["message"] == "invalid_token"


@EITHER
async def test_a_session_of_the_handshake_counts_where_it_is_accepted(database_url: str, transports: list[str]) -> None:
    async with socketio_gateway(database_url, route={"accept": ["websocket_token", "session"]}) as way:
        headers = {"Authorization": f"Bearer {mint_token()}"}
        async with connected_client(way.url, None, transports=transports, headers=headers) as client:
            claims = await client.call("whoami")

        assert claims["auth"] == "session"
        assert headers["Authorization"] not in way.upstream.written()


@EITHER
async def test_w02_cookie_of_a_session_comes_from_our_own_pages_alone(database_url: str, transports: list[str]) -> None:
    async with socketio_gateway(
        database_url, route={"accept": ["websocket_token", "session"]}, limits={"head_timeout": "1s"}
    ) as way:
        cookie = f"__session={mint_token()}; __client_uat=1"
        async with connected_client(
            way.url, None, transports=transports, headers={"Cookie": cookie, "Origin": ORIGIN}
        ) as client:
            claims = await client.call("whoami")
        before = len(way.upstream.auths)
        with pytest.raises(ConnectRefused):
            async with connected_client(
                way.url, None, transports=transports, headers={"Cookie": cookie, "Origin": "https://evil.example"}
            ):
                pass

        assert claims["auth"] == "session"
        assert len(way.upstream.auths) == before


async def test_a_reload_keeps_connections_and_judges_the_next_connect_by_new_rules(database_url: str) -> None:
    async with socketio_gateway(database_url) as way:
        token = await websocket_token(way.gateway)
        async with connected_client(way.url, token, transports=["polling"]) as client:
            routes = [way.gateway.written["routes"][0] | {"roles": ["ADMIN"]}]
            assert await way.gateway.reload(routes=routes)

            assert await client.call("echo", "still here") == "still here"
        assert (await refusal_of(way.url, token, ["polling"]))["message"] == "forbidden"
