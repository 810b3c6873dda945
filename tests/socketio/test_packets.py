"""What a packet may be, and what nobody may take for another one."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from socketio.packet import Packet as ReferencePacket

from gateway.errors import CredentialMalformed
from gateway.socketio.packets import (
    CONNECT_CAP,
    PREFIX_CAP,
    Connect,
    Kind,
    Packet,
    PacketRefused,
    connect_error,
    opened_session,
    read_packet,
)

NAMESPACES = st.one_of(st.just("/"), st.text("abzAZ09_-./:é", min_size=1, max_size=20).map(lambda name: "/" + name))
PIECES = st.lists(
    st.sampled_from(
        [b"0", b"1", b"2", b"4", b"5", b"6", b"3", b"b", b"-", b"/", b"a", b",", b"?", b"[", b"{", b"}", b'"']
    )
    | st.binary(max_size=3),
    max_size=12,
).map(b"".join)


@pytest.mark.parametrize(
    "text, packet",
    [
        (b"3", Packet(Kind.ENGINE)),
        (b"2probe", Packet(Kind.ENGINE)),
        (b"1", Packet(Kind.CLOSE)),
        (b"5", Packet(Kind.UPGRADE)),
        (b"40", Packet(Kind.CONNECT)),
        (b"41", Packet(Kind.DISCONNECT, b"/")),
        (b"41/admin,", Packet(Kind.DISCONNECT, b"/admin")),
        (b'42["x"]', Packet(Kind.EVENT, b"/")),
        (b'42/admin,12["x"]', Packet(Kind.EVENT, b"/admin")),
        (b"43/admin,12[]", Packet(Kind.EVENT, b"/admin")),
        (b'452-/admin,["x",{"_placeholder":true,"num":0}]', Packet(Kind.EVENT, b"/admin", 2)),
        (b"461-7[]", Packet(Kind.EVENT, b"/", 1)),
    ],
)
def test_packets_say_what_they_are(text: bytes, packet: Packet) -> None:
    assert read_packet(text, whole=True) == packet


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"0{}",  # only a server opens
        b"b" + b"NDB7fQ==",  # base64 of a packet; on a websocket this is binary to one server and nothing to another
        b"4",
        b"44{}",  # only a server refuses
        b"47",
        b"42",
        b'42"x"',
        b'421-/admin,["x"]',  # an event of /admin to Socket.IO for Python, none to the one for Node
        b'42/admin["x"]',
        b'42/admin?a=1,["x"]',  # /admin to the one, another namespace to the other
        b'450-["x"]',  # no attachment due, or one
        b'451e1-["x"]',
        b'45["x"]',
        b"411-",
        b"5x",
        "4٠{}".encode(),  # a digit zero to Python
        "٤0{}".encode(),
        b"\xef\xbb\xbf40{}",
        b" 40{}",
        b'd=40{"token":"x"}',  # JSONP to Engine.IO for Python
    ],
)
def test_packets_that_two_servers_could_read_differently_are_refused(text: bytes) -> None:
    with pytest.raises(PacketRefused):
        read_packet(text, whole=True)


@given(PIECES, st.booleans())
@example(b"42/" + b"a" * PREFIX_CAP, False)
def test_reading_a_packet_raises_nothing_undeclared(text: bytes, whole: bool) -> None:
    try:
        packet = read_packet(text, whole=whole)
    except PacketRefused:
        return
    assert packet is not None or (not whole and len(text) < PREFIX_CAP)


@given(PIECES)
def test_what_a_packet_is_does_not_depend_on_how_much_of_it_is_here(text: bytes) -> None:
    """Whatever is said of a beginning is said of the whole."""
    try:
        whole = read_packet(text, whole=True)
    except PacketRefused:
        return
    for end in range(len(text)):
        assert read_packet(text[:end], whole=False) in (None, whole)


@given(PIECES.map(lambda piece: b"4" + piece))
@example(b"452-/a,[]")
@example(b'42/admin,["x"]')
def test_socketio_for_python_reads_the_same_namespace(text: bytes) -> None:
    try:
        packet = read_packet(text, whole=True)
        reference = ReferencePacket(encoded_packet=text[1:].decode())
    except (PacketRefused, ValueError):
        return  # refused by one of both: it gets nowhere
    assert packet is not None
    if packet.kind in (Kind.EVENT, Kind.DISCONNECT):
        assert (reference.namespace or "/").encode() == packet.namespace
        assert reference.attachment_count == packet.attachments


@given(NAMESPACES, st.dictionaries(st.text(max_size=5), st.integers(0, 9) | st.text(max_size=5), max_size=3))
def test_connect_goes_up_with_the_assertion_in_the_tokens_place(namespace: str, auth: dict[str, Any]) -> None:
    auth = auth | {"token": "theirs"}
    connect = Connect.parse(ReferencePacket(0, data=auth, namespace=namespace).encode().join(["4", ""]).encode())

    sent = connect.with_assertion("ours")

    reference = ReferencePacket(encoded_packet=sent[1:].decode())
    assert connect.token == "theirs"
    assert (reference.namespace or "/") == namespace
    assert reference.data == auth | {"token": "ours"}


def test_connect_without_a_token_stays_without() -> None:
    connect = Connect.parse(b'40/a,{"token":"","room":1}')

    assert connect.token is None
    assert connect.with_assertion(None) == b'40/a,{"room":1}'
    assert Connect.parse(b"40/a").namespace == b"/a"
    assert "secret" not in repr(Connect.parse(b'40{"token":"secret"}'))


def test_a_token_that_is_no_text_is_malformed() -> None:
    with pytest.raises(CredentialMalformed):
        _ = Connect.parse(b'40{"token":["a"]}').token


@given(PIECES.map(lambda piece: b"40" + piece))
@example(b"40" + b'{"a":' * 2000)
@example(b"40/\xff,{}")
def test_reading_a_connect_raises_nothing_undeclared(text: bytes) -> None:
    try:
        connect = Connect.parse(text)
    except PacketRefused:
        return
    reference = ReferencePacket(encoded_packet=connect.with_assertion("ours")[1:].decode())
    assert reference.packet_type == 0
    assert (reference.namespace or "/").encode() == connect.namespace


def test_a_connect_beyond_its_cap_is_refused() -> None:
    with pytest.raises(PacketRefused):
        Connect.parse(b'40{"token":"%b"}' % (b"a" * CONNECT_CAP))


@given(NAMESPACES)
def test_refusals_are_connect_errors_of_the_namespace(namespace: str) -> None:
    reference = ReferencePacket(
        encoded_packet=connect_error(namespace.encode(), "invalid_token", {"status": 401})[1:].decode()
    )

    assert reference.packet_type == 4
    assert (reference.namespace or "/") == namespace
    assert reference.data == {"message": "invalid_token", "data": {"status": 401}}


def test_opened_sessions_are_recognised() -> None:
    opened = {"sid": "abc", "upgrades": [], "pingInterval": 25000, "pingTimeout": 20000}

    assert opened_session(b"0" + json.dumps(opened).encode() + b"\x1e40{}") == ("abc", 45.0)


@given(st.binary(max_size=20).map(lambda rest: b"0" + rest) | st.binary(max_size=10))
@example(b'0{"sid":1,"pingInterval":1,"pingTimeout":1}')
@example(b'0{"sid":"a","pingInterval":"x","pingTimeout":"y"}')
@example(b"0[1]")
def test_answers_that_open_no_session_are_none(answer: bytes) -> None:
    assert opened_session(answer) is None
