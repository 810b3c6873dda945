"""Field hygiene, without a socket; `tests/security/test_headers.py` shows it at the upstream."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge import slots
from gateway.edge.fields import IDENTITY_NAMES, Field, connection_options, folded, is_dropped, judge_fields
from gateway.errors import CredentialMalformed, HostInvalid, RequestMalformed

SINGLE = [b"Host", b"Authorization", b"X-API-Key", b"Content-Length", b"Transfer-Encoding", b"Origin", b"Expect"]
HONEST = [b"Accept", b"X-Mine", b"Cookie", b"Host", b"Content-Type", b"User-Agent", b"Via", b"X-Forwarded-For"]


@pytest.mark.parametrize("name", [b"X-Actor-Id", b"x_actor_id", b"X.ACTOR.Id", b"X\xadActor\xadId", b"x-actor+id"])
def test_spellings_of_a_name_fold_to_one(name: bytes) -> None:
    assert folded(name) == b"x-actor-id"


@pytest.mark.parametrize(
    "name", [b"X_Api_Key", b"Content_Length", b"Transfer.Encoding", b"X_Forwarded_For", b"Cookie_"]
)
def test_h03_lifted_name_in_another_spelling_is_never_lifted(name: bytes) -> None:
    judged = judge_fields([(name, b"1")])

    assert judged.lifted == [None] * slots.COUNT


@pytest.mark.parametrize("name", SINGLE)
def test_h08_field_that_decides_comes_once(name: bytes) -> None:
    with pytest.raises((CredentialMalformed, HostInvalid, RequestMalformed)):
        judge_fields([(name, b"1"), (b"Accept", b"*/*"), (name.lower(), b"1")])


@pytest.mark.parametrize("name", [b"X-Forwarded-Proto", b"X-Request-Id", b"traceparent"])
def test_doubled_field_of_a_proxy_is_not_believed(name: bytes) -> None:
    judged = judge_fields([(name, b"1"), (name, b"2")])

    (slot,) = judged.doubled
    assert judged.once(slot) is None


def test_fields_of_the_application_pass_as_they_came_and_in_order() -> None:
    lines = [(b"x-B", b"2"), (b"Accept", b"a"), (b"X-A", b"1"), (b"x-b", b"3"), (b"accept", b"")]

    assert judge_fields(lines).lines == [b"x-B: 2", b"Accept: a", b"X-A: 1", b"x-b: 3", b"accept: "]


def test_h06_nominated_fields_stay_behind_and_essential_ones_do_not() -> None:
    nominated = (b"Connection", b"X-Mine, host,\tCookie , content-type, Authorization, close")
    judged = judge_fields([nominated, (b"x_mine", b"1"), (b"Content-Type", b"a/b"), (b"Cookie", b"a"), (b"Host", b"h")])

    assert judged.lines == [b"Content-Type: a/b"]
    assert judged.get(slots.HOST) == b"h"
    assert judged.all(slots.COOKIE) == [b"a"]
    assert b"close" in connection_options(judged)


def test_h02_claims_are_counted_and_per_hop_fields_are_not() -> None:
    judged = judge_fields([(b"X-Actor-Id", b"1"), (b"Remote_User", b"1"), (b"TE", b"trailers"), (b"Keep-Alive", b"5")])

    assert judged.claims == 2
    assert judged.lines == []


# Any octets but the colon, which no parser lets into a name.
ODD_NAMES = st.binary(min_size=1, max_size=12).filter(lambda name: b":" not in name)
NAMES = st.one_of(st.sampled_from([*IDENTITY_NAMES, *HONEST, b"Connection"]), ODD_NAMES)


def respelled(name: bytes, upper: bool, mark: bytes) -> bytes:
    return (name.upper() if upper else name).replace(b"-", mark)


@given(
    st.lists(
        st.tuples(NAMES, st.booleans(), st.sampled_from([b"-", b"_", b".", b"\xad"]), st.binary(max_size=20)),
        max_size=12,
    )
)
@settings(max_examples=200)
def test_no_fields_of_a_client_carry_an_identity_up(given_fields: list[tuple[bytes, bool, bytes, bytes]]) -> None:
    fields: list[Field] = [(respelled(name, upper, mark), value) for name, upper, mark, value in given_fields]
    try:
        judged = judge_fields(fields)
    except (CredentialMalformed, HostInvalid, RequestMalformed):
        return

    names = [folded(line.partition(b": ")[0]) for line in judged.lines]
    assert not any(is_dropped(name) for name in names)
    assert not {b"connection", b"host", b"cookie", b"content-length", b"x-forwarded-for"} & set(names)
