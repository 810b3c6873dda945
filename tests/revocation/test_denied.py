"""What is denied, whatever the order in which it is told."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.credentials.kinds import Carrier, CredentialKind
from gateway.errors import CredentialRejected, StoreUnavailable
from gateway.revocation.denied import Denied
from gateway.revocation.errors import SessionRevoked
from gateway.verify.principal import Binding, Impersonator, Principal

LIFE_S = 100.0
PEOPLE, SESSIONS = ("user_a", "user_b"), ("sess_1", "sess_2", "sess_3")


@dataclass
class Records:
    """Stands where PostgreSQL does."""

    sessions: set[str] = field(default_factory=set)
    people: dict[tuple[str, bool], float] = field(default_factory=dict)
    asked: int = 0
    away: bool = False

    async def ask(self, sessions: list[str], people: list[str]) -> tuple[list[str], dict[tuple[str, bool], float]]:
        self.asked += 1
        if self.away:
            raise StoreUnavailable
        found = {key: moment for key, moment in self.people.items() if key[0] in people}
        return [one for one in sessions if one in self.sessions], found


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def denied_over(records: Records, clock: Clock, *, most: int = 100, whole: bool = True, stale_s: float = 0.0) -> Denied:
    denied = Denied(records.ask, most=most, stale_s=stale_s, clock=clock, monotonic=clock)
    denied.whole = whole
    return denied


def principal(subject: str = "user_a", session: str | None = "sess_1", issued_at: float | None = 1000.0) -> Principal:
    return Principal(
        kind=CredentialKind.SESSION,
        carrier=Carrier.HEADER,
        issuer="https://clerk.example",
        subject=subject,
        expires_at=2000.0,
        session_id=session,
        issued_at=issued_at,
    )


ALICE = principal()
ACTING = replace(ALICE, session_id="sess_acting", impersonator=Impersonator("user_b", "sess_2"))
MINTED = replace(ALICE, kind=CredentialKind.AGENT_TOKEN, binding=Binding("jti", "usr_a", "org_a"))


async def passes(denied: Denied, who: Principal) -> bool:
    try:
        await denied.check(who)
    except SessionRevoked:
        return False
    return True


async def test_token_of_the_very_second_of_the_sign_out_is_denied_and_of_the_next_is_not() -> None:
    denied = denied_over(Records(), Clock())
    denied.sign_out("user_a", 1000.0, LIFE_S)

    assert [await passes(denied, replace(ALICE, issued_at=at)) for at in (999.0, 1000.0, 1001.0)] == [
        False,
        False,
        True,
    ]


async def test_token_that_does_not_say_when_it_was_issued_is_as_old_as_any() -> None:
    denied = denied_over(Records(), Clock())
    denied.sign_out("user_a", 1.0, LIFE_S)

    assert not await passes(denied, replace(ALICE, issued_at=None))


async def test_whoever_acts_ends_with_their_own_session_and_with_themselves() -> None:
    for how in ("session", "person", "acting"):
        denied = denied_over(Records(), Clock())
        if how == "session":
            denied.end_session("sess_2", LIFE_S)
        else:
            denied.sign_out("user_b", 1000.0, LIFE_S, acting=how == "acting")

        assert not await passes(denied, ACTING)
        assert await passes(denied, ALICE)
        assert await passes(denied, principal("user_b", "sess_3")) == (how != "person")


async def test_what_was_minted_goes_by_the_session_and_by_an_api_token_it_does_not() -> None:
    denied = denied_over(Records(), Clock())
    denied.sign_out("user_a", 1000.0, LIFE_S)
    api_token = replace(ALICE, kind=CredentialKind.API_TOKEN, session_id=None, token_id="atk_1")

    assert not await passes(denied, MINTED)
    assert await passes(denied, api_token)
    assert await passes(denied, replace(MINTED, session_id=None, token_id="atk_1"))


async def test_token_older_than_any_may_be_is_refused() -> None:
    clock = Clock()
    denied = Denied(Records().ask, oldest_s=60.0, clock=clock, monotonic=clock)
    denied.whole = True
    await denied.check(ALICE)
    clock.now += 61

    with pytest.raises(CredentialRejected, match="session_token_too_old"):
        await denied.check(ALICE)


async def test_nothing_is_asked_while_everything_is_known() -> None:
    records = Records()
    denied = denied_over(records, Clock())
    denied.end_session("sess_9", LIFE_S)

    assert await passes(denied, ALICE)
    assert records.asked == 0


@pytest.mark.parametrize("by", ["session", "person"])
async def test_what_finds_no_room_is_asked_about_and_outages_let_nobody_through(by: str) -> None:
    records = Records()
    denied = denied_over(records, Clock(), most=2)
    for number in range(3):
        denied.end_session(f"sess_x{number}", LIFE_S)
    if by == "session":
        records.sessions.add("sess_1")
    else:
        records.people["user_a", False] = 1000.0

    assert (len(denied), denied.whole) == (2, False)
    assert not await passes(denied, ALICE)
    assert await passes(denied, principal("user_b", "sess_2"))
    records.away = True
    with pytest.raises(StoreUnavailable):
        await denied.check(principal("user_b", "sess_2"))


async def test_dead_entries_make_room() -> None:
    clock = Clock()
    denied = denied_over(Records(), clock, most=1)
    denied.end_session("sess_old", LIFE_S)
    clock.now += LIFE_S

    denied.end_session("sess_1", LIFE_S)

    assert denied.whole
    assert not await passes(denied, ALICE)


Told = tuple[str, str, float]
SESSION_OVER = st.tuples(st.just("session"), st.sampled_from(SESSIONS), st.just(0.0))
SIGNED_OUT = st.tuples(
    st.sampled_from(["person", "acting"]), st.sampled_from(PEOPLE), st.sampled_from([5.0, 10.0, 20.0])
)
TOKENS = st.builds(
    lambda subject, session, at, acting: replace(
        principal(subject, session, at), impersonator=Impersonator(*acting) if acting else None
    ),
    st.sampled_from(PEOPLE),
    st.sampled_from(SESSIONS),
    st.sampled_from([1.0, 5.0, 6.0, 10.0, 11.0, 20.0, 21.0]),
    st.none() | st.tuples(st.sampled_from(PEOPLE), st.sampled_from(SESSIONS)),
)


def over(events: Sequence[Told], who: Principal) -> bool:
    """The promise, written down once more: any event that fits ends it, whenever it came."""
    act = who.impersonator
    for kind, name, moment in events:
        issued = who.issued_at or 0.0
        if kind == "session" and (name == who.session_id or (act is not None and name == act.session_id)):
            return True
        if kind == "person" and name == who.subject and issued <= moment:
            return True
        if kind != "session" and act is not None and name == act.subject and issued <= moment:
            return True
    return False


@given(st.lists(SESSION_OVER | SIGNED_OUT, max_size=8), TOKENS, st.integers(1, 6), st.data())
async def test_no_order_of_events_lets_a_denied_session_through(
    events: list[Told], who: Principal, most: int, data: st.DataObject
) -> None:
    records = Records()
    denied = denied_over(records, Clock(), most=most)
    told = data.draw(st.permutations(events + data.draw(st.lists(st.sampled_from(events)) if events else st.just([]))))

    for kind, name, moment in told:  # rows come first, as in the gateway
        if kind == "session":
            records.sessions.add(name)
            denied.end_session(name, LIFE_S)
        else:
            key = name, kind == "acting"
            records.people[key] = max(moment, records.people.get(key, 0.0))
            denied.sign_out(name, moment, LIFE_S, acting=kind == "acting")

    assert await passes(denied, who) is not over(events, who)


async def test_what_was_whole_serves_while_the_records_are_away_but_not_for_ever() -> None:
    records, clock = Records(), Clock()
    denied = denied_over(records, clock, stale_s=600)
    denied.end_session("sess_over", 3600)
    records.away = True
    denied.doubt()
    await denied.check(principal(session="sess_other"))
    with pytest.raises(SessionRevoked):
        await denied.check(principal(session="sess_over"))
    clock.now += 601

    with pytest.raises(StoreUnavailable):
        await denied.check(principal(session="sess_other"))


class CountedDenied(Denied):
    looks = 0

    def forget_dead(self) -> None:
        self.looks += 1
        super().forget_dead()


async def test_a_full_list_looks_for_room_rarely_and_finds_it_once_there_is_some() -> None:
    clock = Clock()
    denied = CountedDenied(Records().ask, most=2, clock=clock, monotonic=clock)
    for number in range(1000):
        denied.end_session(f"sess_x{number}", LIFE_S)
        denied.sign_out(f"user_x{number}", 1000.0, LIFE_S)
    looks = denied.looks
    clock.now += LIFE_S + 1
    denied.end_session("sess_last", LIFE_S)

    assert looks == 1
    assert denied.denies(principal(session="sess_last"))


async def test_a_list_that_never_was_whole_lets_nobody_through_while_the_records_are_away() -> None:
    denied = denied_over(Records(away=True), Clock(), whole=False, stale_s=600.0)

    with pytest.raises(StoreUnavailable):
        await denied.check(ALICE)
