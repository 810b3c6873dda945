"""One connection and one exchange, without a network: what comes in, however cut, and what may never get out."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import UpstreamMalformed, UpstreamTimedOut, UpstreamUnreachable
from tests.support.exchanges import KeptSink, KeptTransport, begun, relayed, split, upstream

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nA: b\r\n\r\nhello world"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nT: t\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.0 200 OK\r\n\r\nhello world"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
BODILESS = b"HTTP/1.1 204 No Content\r\nA: b\r\n\r\n"
VALID = {
    "length": (LENGTH, b"hello world"),
    "chunked": (CHUNKED, b"hello world"),
    "until_close": (UNTIL_CLOSE, b"hello world"),
    "interim": (INTERIM + LENGTH, b"hello world"),
    "interim_chunked": (INTERIM + CHUNKED, b"hello world"),
    "empty": (EMPTY, b""),
    "bodiless": (BODILESS, b""),
}
CUTS = st.lists(st.integers(0, 200), max_size=12)
FRAGMENTS = st.sampled_from(
    [
        *(raw for raw, _ in VALID.values()),
        b"HTTP/1.1 ",
        b"200 OK\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"\r\n",
        b"\n",
        b"0\r\n\r\n",
        b"ffffffffffffffffff\r\n",
        b"abc",
        b"\0",
    ]
)


@pytest.mark.parametrize("name", VALID)
@settings(max_examples=100)
@given(cuts=CUTS, http10=st.booleans())
async def test_an_answer_is_the_same_however_it_is_cut(name: str, cuts: list[int], http10: bool) -> None:
    raw, body = VALID[name]

    outcome = relayed(split(raw, cuts), http10=http10, close=name == "until_close")

    assert outcome.relay.finished
    assert outcome.relay.error is None
    reply = await outcome.reply()
    assert (reply.body, reply.interim) == (body, [])
    assert reply.all("a") == (["b"] if b"A: b" in raw else [])
    assert reply.all("t") == []


@settings(max_examples=200)
@given(
    pieces=st.lists(st.binary(max_size=40) | FRAGMENTS, max_size=8),
    method=st.sampled_from(["GET", "HEAD"]),
    cuts=CUTS,
)
async def test_whatever_comes_ends_the_exchange_once_and_in_order(
    pieces: list[bytes], method: str, cuts: list[int]
) -> None:
    pool, sink = upstream(), KeptSink()
    connection, _ = begun(pool, sink, method)

    for piece in split(b"".join(pieces), cuts):
        if not connection.transport.is_closing():
            connection.data_received(piece)
    if not connection.transport.is_closing():
        connection.transport.close()

    ends = [call for call in sink.calls if call in ("done", "failed")]
    assert len(ends) == 1
    assert sink.calls[-1] == ends[0]
    assert sink.calls.count("head") == (sink.answer is not None) <= 1
    if "body" in sink.calls or "end" in sink.calls:
        assert sink.calls[0] == "head"
    assert sink.calls.count("end") == (ends == ["done"])
    assert pool.take() is None


@settings(max_examples=200)
@given(pieces=st.lists(st.binary(max_size=40) | FRAGMENTS, max_size=8), cuts=CUTS)
async def test_what_a_client_reads_is_one_answer_or_a_cut_one(pieces: list[bytes], cuts: list[int]) -> None:
    outcome = relayed(split(b"".join(pieces), cuts), close=True)

    if outcome.relay.error is None:
        await outcome.reply()
    elif not outcome.relay.started:
        assert outcome.client.written == b""
    else:
        assert not outcome.relay.keep_alive


@pytest.mark.parametrize("cut", range(1, len(LENGTH)))
async def test_an_answer_cut_short_never_ends_well(cut: int) -> None:
    outcome = relayed([LENGTH[:cut]], close=True)

    assert isinstance(outcome.relay.error, UpstreamUnreachable)
    assert outcome.relay.error.reason == ("truncated" if outcome.relay.started else "closed_early")


@pytest.mark.parametrize("cut", range(CHUNKED.index(b"5;x=y"), len(CHUNKED)))
async def test_chunks_cut_short_never_get_a_last_chunk(cut: int) -> None:
    outcome = relayed([CHUNKED[:cut]], close=True)

    assert outcome.relay.error is not None
    assert not outcome.client.written.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("http10", [False, True])
async def test_a_cut_answer_is_reset_where_its_end_is_the_end_of_the_connection(http10: bool) -> None:
    outcome = relayed([CHUNKED[:-10]], http10=http10, close=True)

    assert outcome.client.aborted is http10


async def test_a_second_answer_in_the_same_read_is_nobodys() -> None:
    outcome = relayed([LENGTH + LENGTH])

    assert outcome.client.written.count(b"HTTP/1.1") == 1
    assert outcome.relay.error is None
    assert outcome.connection.transport.is_closing()


async def test_nothing_behind_a_refused_head_is_relayed() -> None:
    outcome = relayed([b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000 + b"\r\nContent-Length: 5\r\n\r\nhello"])

    assert isinstance(outcome.relay.error, UpstreamMalformed)
    assert outcome.client.written == b""


async def test_a_field_without_end_is_refused_before_it_fills_memory() -> None:
    pool, sink = upstream(), KeptSink()
    connection, _ = begun(pool, sink)
    connection.data_received(b"HTTP/1.1 200 OK\r\nA: ")
    taken = 0
    while not connection.transport.is_closing():
        connection.data_received(b"b" * 1024)
        taken += 1024

    assert taken < 70_000
    assert sink.error is not None
    assert sink.error.reason == "head_too_large"


async def test_unsolicited_bytes_end_an_idle_connection() -> None:
    outcome = relayed([LENGTH])
    idle = outcome.upstream.idle
    outcome.connection.data_received(LENGTH)

    assert idle == 1
    assert outcome.upstream.take() is None
    assert outcome.client.written.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (LENGTH, True),
        (CHUNKED, True),
        (EMPTY, True),
        (BODILESS, True),
        (LENGTH.replace(b"A: b", b"Connection: close"), False),
        (LENGTH.replace(b"HTTP/1.1", b"HTTP/1.0"), False),
        (LENGTH.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"A: b", b"Connection: keep-alive"), True),
        (CHUNKED.replace(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n"), False),
    ],
)
async def test_connections_are_kept_when_both_sides_may(answer: bytes, kept: bool) -> None:
    outcome = relayed([answer])

    assert outcome.relay.error is None
    assert outcome.upstream.idle == kept
    assert outcome.connection.transport.is_closing() is not kept


@pytest.mark.parametrize("framing", [b"Content-Length: 11\r\n", b"Transfer-Encoding: chunked\r\n", b""])
@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304)])
async def test_an_answer_without_a_body_by_rule_is_done_with_its_head(method: str, status: int, framing: bytes) -> None:
    outcome = relayed([b"HTTP/1.1 %d OK\r\n%b\r\n" % (status, framing)], method=method)

    assert outcome.relay.finished
    reply = await outcome.reply(method)
    assert reply.status == status
    assert reply.all("content-length") == (["11"] if b"Length" in framing else [])
    assert reply.all("transfer-encoding") == []


async def test_204_never_announces_a_body() -> None:
    outcome = relayed([b"HTTP/1.1 204 No Content\r\nContent-Length: 11\r\n\r\n"])

    assert (await outcome.reply()).all("content-length") == []


async def test_h13_what_the_upstream_says_of_identity_and_of_its_hop_is_not_relayed() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nX-Actor-Id: usr_1\r\nx_actor_role: ADMIN\r\nX-Feature-Flags: a\r\nX-Request-Id: 1\r\n"
        b"X-Actor-Assertion: e.y.J\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nConnection: Set-Cookie, X-Hop\r\n"
        b"X-Hop: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nTrailer: T\r\nContent-Length: 2\r\n\r\nok"
    )

    outcome = relayed([answer])

    reply = await outcome.reply()
    assert sorted(reply.fields) == [("Content-Length", "2"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "X-Original-URI",
            "X-Rewrite-URL",
            "x_envoy_upstream_cluster",
            "X-Auth-Request-Email",
            "X-Goog-IAP-JWT-Assertion",
        ),
        *("X-Goog-Authenticated-User-Email", "Cf-Access-Authenticated-User-Email", "X-Pomerium-Claim-Email"),
        *("X-Authentik-Username", "X-Consumer-Username", "X-Real-IP", "Remote-User", "remote.groups", "Remote-Email"),
        *("Remote-Name", "Forwarded", "X-Forwarded-For", "X-Clerk-User-Id", "X-Subscription-Plan", "X-Organization-Id"),
    ],
)
async def test_h13_no_name_that_is_kept_from_clients_comes_back_from_the_upstream(name: str) -> None:
    outcome = relayed([b"HTTP/1.1 200 OK\r\n%b: alice\r\nX-User-Id: 7\r\nContent-Length: 2\r\n\r\nok" % name.encode()])

    assert sorted((await outcome.reply()).fields) == [("Content-Length", "2"), ("X-User-Id", "7")]


async def test_a_head_that_trickles_does_not_outlive_the_response_timeout() -> None:
    pool, sink = upstream(response_timeout_s=30.0), KeptSink()
    connection, _ = begun(pool, sink)
    connection.data_received(b"HTTP/1.1 200 ")
    connection.data_received(b"OK\r\n")

    assert isinstance(connection.overdue(pool.loop.time() + 31), UpstreamTimedOut)


async def test_a_body_that_flows_is_never_overdue() -> None:
    pool, sink = upstream(response_timeout_s=1.0, idle_timeout_s=10.0), KeptSink()
    connection, _ = begun(pool, sink)
    connection.data_received(LENGTH[:-1])

    assert connection.overdue(pool.loop.time() + 5) is None
    assert isinstance(connection.overdue(pool.loop.time() + 11), UpstreamTimedOut)


async def test_an_upload_the_upstream_does_not_read_wakes_when_the_connection_goes() -> None:
    pool, sink = upstream(), KeptSink()
    connection, exchange = begun(pool, sink)
    connection.pause_writing()
    sending = asyncio.create_task(exchange.send(b"piece"))
    await asyncio.sleep(0)
    exchange.abort()

    assert await asyncio.wait_for(sending, 5) is False
    assert await exchange.connected() is False
    assert await exchange.send(b"more") is False


async def test_an_early_answer_ends_a_connection_whose_request_is_unfinished() -> None:
    pool, sink = upstream(), KeptSink()
    connection, exchange = begun(pool, sink)
    connection.request_sent = False
    connection.data_received(LENGTH)
    exchange.sent()
    exchange.abort()

    assert sink.calls[-1] == "done"
    assert pool.idle == 0
    assert isinstance(connection.transport, KeptTransport)
    assert connection.transport.aborted
