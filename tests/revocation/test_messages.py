"""How changes are written for others, and that nobody else can."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.revocation.changes import (
    AnythingChanged,
    Change,
    Message,
    OrganizationChanged,
    PersonChanged,
    SessionOver,
    TokensChanged,
    from_bytes,
    to_bytes,
)
from gateway.revocation.channel import heard_of
from gateway.revocation.envelope import Envelope, Forged
from gateway.revocation.revocations import MOST_UNTOLD, Untold

KEY = "a-master-key-of-these-tests-alone"  # not a secret
NAMES = st.text(min_size=1, max_size=30)
MOMENTS = st.floats(0, 4e9, allow_nan=False)
CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.builds(PersonChanged, NAMES, st.none() | NAMES, st.none() | NAMES, st.booleans()),
    st.builds(TokensChanged, NAMES, st.none() | NAMES, st.none() | MOMENTS),
    st.builds(SessionOver, NAMES, st.none() | NAMES),
    st.builds(OrganizationChanged, NAMES),
    st.just(AnythingChanged()),
)
MESSAGES = st.builds(Message, NAMES, st.integers(0, 2**53), MOMENTS, st.lists(CHANGES, max_size=5).map(tuple))


@given(MESSAGES)
def test_every_message_is_read_as_it_was_written(message: Message) -> None:
    envelope = Envelope(KEY)

    assert envelope.open(envelope.seal(message)) == message


@given(MESSAGES, st.data())
def test_a_message_with_one_byte_changed_is_nobodys(message: Message, data: st.DataObject) -> None:
    sealed = bytearray(Envelope(KEY).seal(message))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))

    with pytest.raises(Forged):
        Envelope(KEY).open(bytes(sealed))


@given(st.binary(max_size=200))
def test_junk_is_nobodys_message(junk: bytes) -> None:
    with pytest.raises(Forged):
        Envelope(KEY).open(junk)


def test_who_has_another_master_key_is_neither_understood_nor_met() -> None:
    other = Envelope(KEY + "!")

    with pytest.raises(Forged):
        other.open(Envelope(KEY).seal(Message("a", 1, 0.0)))
    assert other.place != Envelope(KEY).place


@given(st.binary(max_size=200))
def test_no_form_but_ours_is_read(data: bytes) -> None:
    assert from_bytes(data) is None


@pytest.mark.parametrize(
    "written",
    [
        b'{"sender":"a","number":1,"at":0.0,"changes":[],"form":2}',
        b'{"sender":"a","number":"1","at":0.0,"changes":[],"form":1}',
        b'{"sender":"a","number":1,"at":0.0,"changes":[{"kind":"unheard"}],"form":1}',
        b'{"sender":"a","number":1,"at":0.0,"changes":[{"kind":"person"}],"form":1}',
    ],
)
def test_a_message_of_a_later_release_is_not_guessed_at(written: bytes) -> None:
    assert from_bytes(written) is None
    assert from_bytes(to_bytes(Message("a", 1, 0.0))) is not None


@given(st.binary(max_size=60))
def test_whatever_comes_over_the_channel_is_read_or_left(data: bytes) -> None:
    heard = heard_of(data)

    assert heard is None or data == b"%s %d %s" % (heard.epoch, heard.version, heard.sealed) or b" 0" in data


def test_what_redis_did_not_take_is_told_first_and_in_order() -> None:
    untold = Untold("a")
    one, two = PersonChanged("usr_a"), PersonChanged("usr_b")
    untold.add(one)
    first = untold.message()
    untold.add(two)
    untold.put_back(first)

    assert untold.message().changes == (one, two)
    assert not untold


def test_too_much_to_tell_becomes_one_change_that_says_anything() -> None:
    untold = Untold("a")
    for number in range(MOST_UNTOLD + 1):
        untold.add(PersonChanged(f"usr_{number}"))

    assert untold.message().changes == (AnythingChanged(),)
    assert not untold
