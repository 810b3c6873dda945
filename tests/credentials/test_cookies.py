"""Cookie fields: what is read, and what goes up."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.credentials.cookies import find_cookies, without_clerk, without_doubled

CLERK = [b"__session", b"__session_MqCvchyS", b"__client_uat", b"__client_uat_jtYvyt_H", b"__refresh_tZJdb-5s"]
CLERK += [b"__clerk_db_jwt", b"__clerk_db_jwt_MqCvchyS", b"__clerk_handshake", b"__clerk_redirect_count", b"__refresh"]
FOREIGN = [b"sid", b"__sessions", b"__session_short", b"__session_ninechars", b"__Host-id", b"session", b"_", b"__"]
NAMES = frozenset(CLERK)
OCTETS = st.binary(max_size=40)


def test_first_of_duplicates_counts_across_fields() -> None:
    found = find_cookies([b"a=0; __session=1", b"__session=2"], NAMES)

    assert found == {b"__session": "1"}


def test_odd_neighbours_hide_nothing() -> None:
    found = find_cookies([b'prefs={"a":1}; q="x; bad%C0=%C0; novalue; ;; = ;\t__session = a=b '], NAMES)

    assert found == {b"__session": "a=b"}


def test_value_is_percent_decoded_after_the_cut() -> None:
    found = find_cookies([b"x=1%3B__client_uat%3D5; __session=a%3Bb%zz%C0%c3%a9"], NAMES)

    assert found == {b"__session": "a;b%zz%C0%c3%a9"}


def test_name_without_equals_is_no_cookie() -> None:
    assert find_cookies([b"__session; __refresh"], NAMES) == {}


def test_cookies_of_clerk_stay_behind() -> None:
    line = b"; ".join(name + b"=v" for name in [*CLERK, b"keep"])

    assert without_clerk([line]) == b"keep=v"


def test_other_cookies_pass_byte_for_byte() -> None:
    line = b"; ".join(name + b'="a b"' for name in FOREIGN)

    assert without_clerk([line]) == line


def test_h09_of_two_session_cookies_in_two_fields_none_goes_up() -> None:
    assert without_clerk([b"__session=1; a=1;b=2", b"__session=2;  c=3"]) == b"a=1;b=2; c=3"


def test_h09_of_cookies_that_go_up_those_named_twice_stay() -> None:
    assert (
        without_doubled([b"__session=1; __client_uat=3; a=1;b=2", b" __session = 2 ; a=3"])
        == b"__client_uat=3; a=1;b=2; a=3"
    )
    assert without_doubled([b"__session=1; __session_MqCvchyS=2;", b"__session"]) == b"__session_MqCvchyS=2"
    assert without_doubled([b"__session=1", b"__session=2"]) is None


def test_cookies_that_go_up_and_came_once_pass_byte_for_byte() -> None:
    line = b"; ".join(name + b'="a b"' for name in [*FOREIGN, *CLERK, *FOREIGN])

    assert without_doubled([line]) == line


def test_no_cookie_field_goes_up_when_nothing_is_left() -> None:
    assert without_clerk([b"__session=1; __client_uat=2;", b""]) is None


def test_bare_name_of_clerk_stays_behind() -> None:
    assert without_clerk([b"a=1; __session ; b=2"]) == b"a=1; b=2"


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(CLERK + FOREIGN), OCTETS)))
def test_what_goes_up_never_holds_a_cookie_of_clerk(pairs: list[tuple[bytes, bytes]]) -> None:
    sent = without_clerk([b"; ".join(name + b"=" + value for name, value in pairs)]) or b""

    assert find_cookies([sent], NAMES) == {}


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=80), max_size=4))
def test_any_bytes_are_read_without_an_exception(values: list[bytes]) -> None:
    find_cookies(values, NAMES)
    sent = without_clerk(values)

    assert sent is None or (sent != b"" and without_clerk([sent]) == sent)
