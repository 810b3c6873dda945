"""Facts as they are written for other replicas: they read back as they were, and hold no secret."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.shared_state.facts import API_TOKENS, STANDINGS, Reading
from provisioning.records import ApiToken, FoundToken, Organization, Role, Standing, Subscription, User

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
moments = st.datetimes(timezones=st.just(UTC))
json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
standings = st.builds(
    Standing,
    st.builds(
        User,
        texts,
        texts,
        st.sampled_from(Role),
        moments,
        moments,
        st.none() | texts,
        st.none() | texts,
        st.dictionaries(texts, json, max_size=3),
        st.none() | moments,
        st.none() | moments,
        st.none() | moments,
    ),
    st.builds(Organization, texts, st.none() | texts, texts, moments, moments),
    texts,
    st.none()
    | st.builds(
        Subscription,
        texts,
        texts,
        st.sampled_from(["trial", "stripe"]),
        texts,
        st.none() | texts,
        st.none() | moments,
        st.none() | moments,
        st.booleans(),
        st.none() | moments,
        st.none() | moments,
    ),
)


@given(standings, st.integers(0, 2**53), st.floats(0, 4e9))
def test_a_standing_reads_back_as_it_was(standing: Standing, version: int, read_at: float) -> None:
    reading = Reading(standing, version, read_at)
    written = STANDINGS.to_bytes(reading)

    assert written is not None
    assert STANDINGS.from_bytes(written) == reading


@given(st.binary(max_size=200) | json.map(str).map(str.encode))
def test_c05_junk_is_no_fact(junk: bytes) -> None:
    assert STANDINGS.from_bytes(junk) is None
    assert API_TOKENS.from_bytes(junk) is None


@given(standings)
def test_one_kind_is_never_read_as_another(standing: Standing) -> None:
    written = STANDINGS.to_bytes(Reading(standing, 1, 1.0))

    assert written is not None
    assert API_TOKENS.from_bytes(written) is None


def test_a_token_goes_without_its_digest_and_without_an_address() -> None:
    now = datetime.now(UTC)
    owner = User("usr_1", "user_1", Role.USER, now, now)
    token = ApiToken("atk_1", "public", "Robot", ("a",), "usr_1", "org_1", now, now + timedelta(1), now, "203.0.113.9")
    found = FoundToken(token, b"\xc3digest", owner, Organization("org_1", None, "P", now, now), None)

    written = API_TOKENS.to_bytes(Reading(found, 1, 1.0))

    assert written is not None
    assert b'digest":""' in written
    assert b"203.0.113.9" not in written
    read = API_TOKENS.from_bytes(written)
    assert read is not None
    assert (read.fact.token.id, read.fact.token.expires_at, read.fact.standing) == ("atk_1", token.expires_at, None)


def test_settings_that_cannot_be_written_stay_here() -> None:
    now = datetime.now(UTC)
    person = User("usr_1", "user_1", Role.USER, now, now, settings={"large": 10**30})
    standing = Standing(person, Organization("org_1", None, "P", now, now), "admin")

    assert STANDINGS.to_bytes(Reading(standing, 1, 1.0)) is None
