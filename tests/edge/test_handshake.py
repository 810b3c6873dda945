"""What belongs to a handshake and to its answer, beyond the cases on the wire (tests/security)."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge.handshake import Handshake, accept_for, check_switch
from gateway.errors import UpstreamMalformed
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
