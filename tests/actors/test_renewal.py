"""People in use are asked for again together, before what is known of them is old; who was forgotten, at once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest

from config.model import Cache, Route
from gateway.actors.callers import Callers
from gateway.actors.standings import freshness
from gateway.credentials.kinds import Carrier, Credential, CredentialKind
from gateway.errors import UserDisabled
from gateway.flags.telling import FlagTeller
from gateway.policy.routes import CompiledRoute, RouteTable
from gateway.verify.session import SessionRules
from gateway.verify.signing_keys import SigningKeys
from gateway.verify.verifier import Verifier
from provisioning.arrivals import Arrivals
from provisioning.clerk_api import ClerkApi
from provisioning.database.pool import Database
from provisioning.first_sight import FirstSight
from provisioning.records import Standing, Subject
from tests.support.clerk_keys import AUTHORIZED_PARTY, ISSUER, mint_token
from tests.support.jwks_server import serve_jwks

NOW = 1_700_000_000.0
TTL_S = 30.0
TOKEN_S = 3600
(RULE,) = RouteTable.compile([Route(path="/**", auth="required", upstream="app")]).routes


class CountedFirstSight(FirstSight):
    """Counts the questions asked of our records."""

    alone = together = 0
    held = False

    def hold(self) -> None:
        """Keep answers back from now on."""
        self.held, self.read, self.told = True, asyncio.Event(), asyncio.Event()

    async def _hold(self) -> None:
        if self.held:
            self.read.set()
            await self.told.wait()

    async def find(self, clerk_user_id: str, clerk_organization_id: str | None) -> Standing | None:
        self.alone += 1
        found = await super().find(clerk_user_id, clerk_organization_id)
        await self._hold()
        return found

    async def find_many(self, subjects: Sequence[Subject]) -> list[Standing | None]:
        self.together += 1
        found = await super().find_many(subjects)
        await self._hold()
        return found


@dataclass
class Stage:
    """Callers over real records, with a clock that is moved by hand."""

    callers: Callers
    first_sight: CountedFirstSight
    database: Database
    rule: CompiledRoute
    elapsed_s: float = 0.0

    def session_of(self, person: str) -> Credential:
        token = mint_token(sub=person, sid=f"sess_{person}", now=int(NOW), exp=int(NOW) + TOKEN_S)
        return Credential(CredentialKind.SESSION, Carrier.HEADER, token)

    async def meet(self, *people: str) -> list[Credential]:
        credentials = [self.session_of(person) for person in people]
        for credential in credentials:
            await self.callers.resolve(credential, self.rule)
        return credentials

    def known(self, credential: Credential) -> bool:
        return self.callers.known(credential.digest) is not None

    async def write(self, statement: str, *values: object) -> None:
        async with self.database.connection() as connection:
            await connection.execute(statement, *values)


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with staged(database_url) as made:
        yield made


@asynccontextmanager
async def staged(database_url: str, flags: FlagTeller | None = None) -> AsyncIterator[Stage]:
    """Set it up, with flags to tell if a test has any."""
    async with (
        serve_jwks() as jwks,
        Database(database_url, acquire_timeout=60, statement_timeout=60) as database,
        aiohttp.ClientSession() as session,
    ):
        keys = SigningKeys(jwks.url)
        await keys.start()
        assert await keys.first_set()
        first_sight = CountedFirstSight(database)
        arrivals = Arrivals(first_sight, ClerkApi(session, "http://127.0.0.1:1", None))
        verifier = Verifier(keys, SessionRules((ISSUER,), (AUTHORIZED_PARTY,)), lambda: NOW + made.elapsed_s)
        callers = Callers(
            verifier,
            arrivals,
            Cache(near_ttl=TTL_S),
            clock=lambda: NOW + made.elapsed_s,
            monotonic=lambda: 1000.0 + made.elapsed_s,
            flags=flags,
        )
        made = Stage(callers, first_sight, database, RULE)
        yield made
        await arrivals.close()
        await keys.close()


async def pass_time(stage: Stage, seconds: float) -> None:
    """Let time pass, with the round of renewals that comes every half second."""
    until = stage.elapsed_s + seconds
    while stage.elapsed_s < until:
        stage.elapsed_s += 0.5
        await stage.callers.renewal.renew()


async def test_people_in_use_stay_known_and_never_wait(stage: Stage) -> None:
    credentials = await stage.meet("user_a", "user_b", "user_c")
    asked = stage.first_sight.alone

    for _ in range(200):
        await pass_time(stage, 1)
        assert all(stage.known(credential) for credential in credentials)

    assert stage.first_sight.alone == asked


async def test_people_who_are_due_together_are_asked_for_with_one_query(stage: Stage) -> None:
    credentials = await stage.meet(*(f"user_{number}" for number in range(40)))
    assert all(stage.known(credential) for credential in credentials)

    stage.elapsed_s = 0.7 * TTL_S - 0.1  # nobody is old yet, and as good as all are due
    before = stage.first_sight.together
    renewed = await stage.callers.renewal.renew()

    assert stage.first_sight.together == before + 1
    assert renewed > 10


async def test_who_was_not_seen_since_is_not_asked_for(stage: Stage) -> None:
    (credential,) = await stage.meet("user_a")

    await pass_time(stage, 2 * TTL_S)

    assert stage.first_sight.together == 0
    assert not stage.known(credential)


async def test_nobody_is_believed_for_longer_than_the_setting_says(stage: Stage) -> None:
    (credential,) = await stage.meet("user_a")
    for _ in range(7):
        assert stage.known(credential)
        await pass_time(stage, 10)

    stage.elapsed_s += TTL_S + 0.1  # no round came by, as while PostgreSQL is away

    assert not stage.known(credential)


async def test_what_changed_is_believed_no_more_and_refused_on_the_long_way(stage: Stage) -> None:
    (credential,) = await stage.meet("user_a")
    await stage.write("UPDATE users SET disabled_at = now() WHERE clerk_id = 'user_a'")
    assert stage.known(credential)

    await pass_time(stage, TTL_S)

    assert not stage.known(credential)
    with pytest.raises(UserDisabled):
        await stage.callers.resolve(credential, stage.rule)


async def test_a_changed_role_is_known_after_the_next_request(stage: Stage) -> None:
    (credential,) = await stage.meet("user_a")
    await stage.write("UPDATE users SET role = 'ADMIN' WHERE clerk_id = 'user_a'")
    assert stage.known(credential)

    await pass_time(stage, TTL_S)
    caller = await stage.callers.resolve(credential, stage.rule)

    assert caller.actor.role == "ADMIN"
    assert b"X-Actor-Role: ADMIN\r\n" in caller.identity


async def test_renewal_ends_with_the_token(stage: Stage) -> None:
    (credential,) = await stage.meet("user_a")
    while stage.elapsed_s < TOKEN_S:
        assert stage.known(credential)
        await pass_time(stage, 10)

    assert not stage.known(credential)


async def test_a_token_known_before_is_not_verified_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    (credential,) = await stage.meet("user_a")
    first = await stage.callers.resolve(credential, stage.rule)
    stage.elapsed_s += TTL_S + 1

    monkeypatch.setattr(Verifier, "verify_now", None)  # a call would raise
    again = await stage.callers.resolve(credential, stage.rule)

    assert again is first


async def user_id_of(stage: Stage, credential: Credential) -> str:
    return (await stage.callers.resolve(credential, stage.rule)).actor.user_id


async def test_who_is_forgotten_is_asked_for_at_once_and_others_are_not(stage: Stage) -> None:
    credential, other = await stage.meet("user_a", "user_b")
    user_id = await user_id_of(stage, credential)
    stage.elapsed_s += 1
    stage.callers.forget(user_id, "user_a")
    known = [stage.known(one) for one in (credential, other)]
    asked = stage.first_sight.alone

    stage.elapsed_s += 1
    assert await user_id_of(stage, credential) == user_id

    assert known == [False, True]
    assert stage.first_sight.alone == asked + 1
    assert stage.known(credential)


@pytest.mark.parametrize("joined", [True, False])
async def test_what_was_being_read_while_its_person_was_forgotten_is_not_believed(stage: Stage, joined: bool) -> None:
    (credential,) = await stage.meet("user_a")
    user_id = await user_id_of(stage, credential)
    stage.elapsed_s += TTL_S
    stage.first_sight.hold()
    reading = asyncio.create_task(stage.callers.resolve(credential, stage.rule))
    await stage.first_sight.read.wait()
    await stage.write("UPDATE users SET role = 'ADMIN'")
    stage.elapsed_s += 1
    stage.callers.forget(user_id, "user_a")
    after = [asyncio.create_task(stage.callers.resolve(credential, stage.rule)) for _ in range(joined)]
    stage.first_sight.told.set()
    await reading

    assert joined or not stage.known(credential)
    assert [(await one).actor.role for one in after] == ["ADMIN"] * joined
    assert (await stage.callers.resolve(credential, stage.rule)).actor.role == "ADMIN"


async def test_renewal_under_way_while_its_person_is_forgotten_counts_for_nothing(stage: Stage) -> None:
    (credential,) = await stage.meet("user_a")
    user_id = await user_id_of(stage, credential)
    assert stage.known(credential)
    stage.elapsed_s = freshness("user_a", TTL_S) - 0.1
    stage.first_sight.hold()
    renewing = asyncio.create_task(stage.callers.renewal.renew())
    await stage.first_sight.read.wait()
    await stage.write("UPDATE users SET role = 'ADMIN'")
    stage.elapsed_s += 0.1
    stage.callers.forget(user_id, "user_a")
    stage.first_sight.told.set()
    await renewing

    assert not stage.known(credential)
    assert (await stage.callers.resolve(credential, stage.rule)).actor.role == "ADMIN"


async def test_people_in_use_are_asked_for_once_a_life_however_often_touch_was_lost(stage: Stage) -> None:
    (credential,) = await stage.meet("user_a")
    for _ in range(4):
        for turn in (stage.callers.lose_touch, lambda: stage.callers.regain_touch(missed=False)):
            assert stage.known(credential)
            turn()
            await asyncio.sleep(0)  # what is there is shortened beside
            await pass_time(stage, 3)
    stage.callers.lose_touch()
    before = stage.first_sight.together
    for _ in range(60):
        stage.known(credential)
        await pass_time(stage, 0.5)

    # Five with one renewal a life, of nearly 5 s for this person; nine where each loss adds one.
    assert 5 <= stage.first_sight.together - before <= 7


async def test_while_touch_is_lost_people_in_use_are_renewed_and_others_are_old_soon(stage: Stage) -> None:
    used, unused = await stage.meet("user_a", "user_b")
    asked = stage.first_sight.alone
    assert stage.known(used)
    stage.callers.lose_touch()
    await asyncio.sleep(0)
    for _ in range(20):
        await pass_time(stage, 0.5)
        assert stage.known(used)

    assert not stage.known(unused)
    assert stage.first_sight.alone == asked


async def test_after_a_gap_everybody_is_asked_for_again(stage: Stage) -> None:
    (credential,) = await stage.meet("user_a")
    before = stage.first_sight.alone
    stage.callers.regain_touch(missed=True)
    known = stage.known(credential)
    await stage.callers.resolve(credential, stage.rule)

    assert (known, stage.known(credential)) == (False, True)
    assert stage.first_sight.alone == before + 1
