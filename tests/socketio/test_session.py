"""What one connection may send, apart from any transport."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import CredentialRejected, EngineRequestRefused, EngineSessionUnknown
from gateway.live.registry import Registry
from gateway.socketio.packets import Kind, Packet, PacketRefused
from gateway.socketio.session import MAX_NAMESPACES, MAX_REFUSED, Session
from gateway.socketio.sessions import Sessions

ENGINE, CONNECT = Packet(Kind.ENGINE), Packet(Kind.CONNECT)


class Now:
    """Loop time that a test sets."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def begun(now: Now | None = None, *, probing: bool = False) -> Session:
    return Session("name", "/socket.io/**", "app", "/socket.io/", now or Now(), connect_within_s=10, probing=probing)


async def with_namespace(session: Session, namespace: bytes = b"/") -> Session:
    session.admit(namespace, Registry(), None)
    return session


@given(
    st.lists(
        st.sampled_from(
            [ENGINE, CONNECT, *(Packet(Kind.EVENT, name, count) for name in (b"/", b"/a") for count in (0, 1, 3))]
        )
        | st.none()  # a binary message
    )
)
async def test_binary_messages_pass_exactly_when_attachments_are_due(packets: list[Packet | None]) -> None:
    session, due = await with_namespace(begun()), 0
    for packet in packets:
        allowed = due > 0 if packet is None else packet.kind is Kind.ENGINE or (not due and packet.namespace != b"/a")
        try:
            session.weigh_binary() if packet is None else session.weigh(packet)
        except PacketRefused:
            assert not allowed
            return
        assert allowed
        if packet is None:
            due -= 1
        elif packet.kind is Kind.EVENT:
            due = packet.attachments


async def test_namespace_that_was_left_is_not_connected_any_more() -> None:
    session = await with_namespace(begun())
    session.weigh(Packet(Kind.DISCONNECT, b"/"))

    with pytest.raises(PacketRefused):
        session.weigh(Packet(Kind.EVENT, b"/"))


def test_silence_counts_from_the_beginning_and_from_every_answer() -> None:
    now = Now()
    session = begun(now)
    now.time = 9.0
    before = session.silent
    session.checking()
    now.time = 30.0
    while_judged = session.silent
    session.checked()
    now.time = 39.0
    after = session.silent
    now.time = 41.0

    assert (before, while_judged, after, session.silent) == (False, False, False, True)


async def test_guesses_and_namespaces_are_bounded() -> None:
    guessing, wide = begun(), begun()
    for _ in range(MAX_REFUSED):
        guessing.checking()
        guessing.checked()
        guessing.refuse(b"/", CredentialRejected(), "id")
    for place in range(MAX_NAMESPACES):
        await with_namespace(wide, b"/%d" % place)

    for session in (guessing, wide):
        with pytest.raises(PacketRefused):
            session.checking()
    assert len(guessing.take_answers()) == MAX_REFUSED
    assert guessing.take_answers() == []


def test_requests_of_one_kind_come_one_after_the_other() -> None:
    session = begun()
    with session.request("GET"), session.request("POST"):
        assert session.requests
        with pytest.raises(EngineRequestRefused), session.request("GET"):
            pass

    assert not session.requests


async def test_sessions_are_found_by_their_own_route_until_they_end_or_a_websocket_takes_over() -> None:
    sessions = Sessions()
    ended, taken, open_one = (begun(probing=True) for _ in range(3))
    for sid, session in (("ended", ended), ("taken", taken), ("open", open_one)):
        sessions.enter(sid, session, 45)
    ended.end(4401, "revoked")
    taken.probing = False

    assert sessions.find("open", "app", "/socket.io/") is open_one
    for sid, upstream, path in (
        ("ended", "app", "/socket.io/"),
        ("taken", "app", "/socket.io/"),
        ("open", "other", "/socket.io/"),
        ("open", "app", "/other/"),
        ("unknown", "app", "/socket.io/"),
    ):
        with pytest.raises(EngineSessionUnknown):
            sessions.find(sid, upstream, path)


async def test_session_whose_id_is_given_away_again_ends() -> None:
    sessions = Sessions()
    first, second = begun(probing=True), begun(probing=True)
    sessions.enter("sid", first, 45)
    sessions.enter("sid", second, 45)

    assert first.ended is not None
    assert sessions.find("sid", "app", "/socket.io/") is second
