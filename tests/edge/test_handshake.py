"""What belongs to a handshake and to its answer, beyond the cases on the wire (tests/security)."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge.arrival import Incoming, arrive
from gateway.edge.forwarded import ForwardingTrust
from gateway.edge.handshake import Handshake, accept_for, check_switch, judge_handshake
from gateway.errors import RequestMalformed, UpstreamMalformed, WebsocketVersionUnsupported
from tests.support.websockets import ACCEPT, KEY, accept_of

OFFER = Handshake(ACCEPT.encode(), frozenset({b"v1", b"v2"}), frozenset({b"permessage-deflate"}))
GOOD = [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"), (b"Sec-WebSocket-Accept", ACCEPT.encode())]


@given(st.binary(min_size=16, max_size=16))
def test_accept_is_what_another_computes(nonce: bytes) -> None:
    key = base64.b64encode(nonce)

    assert accept_for(key).decode() == accept_of(key.decode())


def test_accept_of_the_standards_example() -> None:
    assert accept_for(KEY.encode()) == ACCEPT.encode()


@pytest.mark.parametrize(
    "more",
    [
        [],
        [(b"sec-websocket-protocol", b"v2")],
        [(b"Sec-WebSocket-Extensions", b"Permessage-Deflate; server_no_context_takeover")],
        [(b"Sec-WebSocket-Extensions", b'permessage-deflate; x="a, b"'), (b"Connection", b"keep-alive")],
        [(b"Server", b"x")],
    ],
)
def test_an_answer_within_the_offer_stands(more: list[tuple[bytes, bytes]]) -> None:
    check_switch([*GOOD, *more], OFFER)


def test_names_and_words_count_in_any_case() -> None:
    fields = [
        (b"UPGRADE", b"WebSocket"),
        (b"connection", b"keep-alive, UPGRADE"),
        (b"sec-websocket-accept", OFFER.accept),
    ]

    check_switch(fields, OFFER)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ((b"Sec-WebSocket-Protocol", b"V1"), "switch_protocol"),
        ((b"Sec-WebSocket-Protocol", b"v1, v2"), "switch_protocol"),
        ((b"Sec-WebSocket-Protocol", b""), "switch_protocol"),
        ((b"Sec-WebSocket-Extensions", b"permessage-deflate, other"), "switch_extension"),
        ((b"Upgrade", b"websocket"), "switch_upgrade"),
        ((b"Sec-WebSocket-Accept", OFFER.accept), "switch_accept"),
    ],
)
def test_an_answer_beyond_the_offer_falls(more: tuple[bytes, bytes], reason: str) -> None:
    with pytest.raises(UpstreamMalformed) as caught:
        check_switch([*GOOD, more], OFFER)

    assert caught.value.reason == reason


names = st.sampled_from([b"Upgrade", b"Connection", b"Sec-WebSocket-Accept", b"Sec-WebSocket-Protocol", b"Server"])
values = st.one_of(st.sampled_from([b"websocket", b"Upgrade", OFFER.accept, b"v1", b"v3"]), st.binary(max_size=20))


@settings(max_examples=200)
@given(st.lists(st.tuples(names, values), max_size=8))
def test_only_the_right_accept_ever_stands(fields: list[tuple[bytes, bytes]]) -> None:
    try:
        check_switch(fields, OFFER)
    except UpstreamMalformed:
        return

    assert [value.strip(b" \t") for name, value in fields if name == b"Sec-WebSocket-Accept"] == [OFFER.accept]
    assert all(value in OFFER.protocols for name, value in fields if name == b"Sec-WebSocket-Protocol")


heads = st.lists(
    st.sampled_from(
        [
            (b"Upgrade", b"websocket"),
            (b"Upgrade", b"h2c"),
            (b"Connection", b"Upgrade"),
            (b"Connection", b"sec-websocket-key"),
            (b"Sec-WebSocket-Version", b"13"),
            (b"Sec-WebSocket-Version", b"8"),
            (b"Sec-WebSocket-Key", KEY.encode()),
            (b"sec_websocket_key", KEY.encode()),
            (b"Sec-WebSocket-Key", b"AAAA"),
            (b"Sec-WebSocket-Protocol", b"a, b"),
            (b"Content-Length", b"0"),
            (b"Transfer-Encoding", b"chunked"),
        ]
    ),
    max_size=9,
)


@settings(max_examples=200)
@given(heads, st.sampled_from(["GET", "POST"]), st.booleans())
def test_what_passes_as_a_handshake_is_one(fields: list[tuple[bytes, bytes]], method: str, http10: bool) -> None:
    whole = [(b"Host", b"a"), *fields]
    try:
        arrived = arrive(Incoming(method, b"/", whole, "127.0.0.1", "http", "", http10=http10), ForwardingTrust(()))
        judged = judge_handshake(arrived)
    except (RequestMalformed, WebsocketVersionUnsupported):
        return

    if judged is not None:
        assert (method, http10) == ("GET", False)
        assert fields.count((b"Sec-WebSocket-Key", KEY.encode())) == 1
        assert {(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"), (b"Sec-WebSocket-Version", b"13")} <= {*fields}
        assert not {b"Content-Length", b"Transfer-Encoding", b"sec_websocket_key"} & {name for name, _ in fields}
        assert judged.accept == ACCEPT.encode()


def test_a_good_handshake_passes_with_its_offers() -> None:
    fields = [(b"Host", b"a"), (b"Upgrade", b"WebSocket"), (b"Connection", b"keep-alive, upgrade")]
    fields += [(b"sec-websocket-version", b"13"), (b"sec-websocket-key", KEY.encode())]
    fields += [(b"Sec-WebSocket-Protocol", b"v1"), (b"Sec-WebSocket-Protocol", b" v2 ,")]
    fields += [(b"Sec-WebSocket-Extensions", b"Permessage-Deflate; client_max_window_bits")]

    judged = judge_handshake(arrive(Incoming("GET", b"/", fields, "127.0.0.1", "http", ""), ForwardingTrust(())))

    assert judged == OFFER


@pytest.mark.parametrize("upgrade", [None, b"h2c", b"TLS/1.0"])
def test_a_request_for_another_protocol_is_a_plain_one(upgrade: bytes | None) -> None:
    fields = [(b"Host", b"a"), (b"Connection", b"upgrade"), *([(b"Upgrade", upgrade)] if upgrade else [])]

    arrived = arrive(Incoming("POST", b"/", fields, "127.0.0.1", "http", ""), ForwardingTrust(()))

    assert judge_handshake(arrived) is None
