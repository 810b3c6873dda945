"""Whoever changes several rows locks them in one order: nobody waits in a circle, however many work at once.

PostgreSQL undoes one transaction of a circle, which leaves here as `conflict` and is counted.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import asyncpg
import pytest

from provisioning.audit import Origin
from provisioning.clerk_events import ClerkEvent, PersonGone
from provisioning.clerk_facts import ClerkFacts
from provisioning.database.pool import Database
from provisioning.erasure import erase_late
from provisioning.errors import DatabaseUnavailable, OwnerUnfit, TokenEnded, UserEnded
from provisioning.first_sight import FirstSight
from provisioning.logins import SEEN_AGAIN_S, Login, Logins
from provisioning.profile import Profile
from provisioning.records import ApiToken, Standing, Subject
from provisioning.sign_outs import SignOuts
from tests.support.tokens import session_of, tokens_over

ROUNDS = 40
ORIGIN = Origin("operator", "tests")
EXPECTED = (OwnerUnfit, TokenEnded, UserEnded)  # a job came after another one
Job = Callable[["Crowd"], Awaitable[object]]


class Crowd:
    """Some people in one organization, with some sessions and API tokens each."""

    def __init__(self, database: Database, number: int) -> None:
        self.database = database
        self.number = number
        self.people: list[Standing] = []
        self.tokens: list[list[ApiToken]] = []

    async def gather(self) -> None:
        sight, tokens = FirstSight(self.database), tokens_over(self.database)
        for name in ("a", "b", "c"):
            subject = Subject(f"user_{self.number}{name}", f"org_{self.number}", "acme", "member")
            standing = (await sight.provision(subject, Profile("Alice"))).standing
            made = [await tokens.create(session_of(standing), "Token", ["reports:read"]) for _ in range(4)]
            self.people.append(standing)
            self.tokens.append([one.token for one in made])
        for login in reversed(self.sessions(time.time() - 2 * SEEN_AGAIN_S)):  # so that they lie in another order
            await write([login], self.database)

    def sessions(self, at: float) -> list[Login]:
        return [
            Login(f"sess_{self.number}_{session}{who}", one.user, one.organization.id, ORIGIN, at)
            for session in range(6)
            for who, one in enumerate(self.people)
        ]


async def write(sessions: Sequence[Login], database: Database) -> None:
    logins = Logins(database, {"login": 0})
    for login in sessions:
        logins.note(login)
    await logins.write()


async def sign_out(crowd: Crowd) -> None:
    service = SignOuts(crowd.database, None, 60, 5, managed=False)
    for one in crowd.people:
        await service.sign_out(one.user.id, ORIGIN, by=None, api_tokens=True)


async def revoke_each(crowd: Crowd) -> None:
    tokens = tokens_over(crowd.database)
    for mine in crowd.tokens:
        await asyncio.gather(*(tokens.revoke_any(one.id, ORIGIN) for one in reversed(mine)))


async def rotate_twice(crowd: Crowd) -> None:
    tokens = tokens_over(crowd.database)
    for one, mine in zip(crowd.people, crowd.tokens, strict=True):
        with suppress(TokenEnded):
            second = await tokens.rotate(session_of(one), mine[0].id, 60)
            await tokens.rotate(session_of(one), second.token.id, 60)


async def write_sessions(crowd: Crowd) -> None:
    sessions = crowd.sessions(time.time())
    await asyncio.gather(write(sessions, crowd.database), write(sessions[::-1], crowd.database))


async def delete_all(crowd: Crowd) -> None:
    facts = ClerkFacts(crowd.database)
    gone = [PersonGone(one.user.clerk_id, datetime.now(UTC)) for one in crowd.people]
    await asyncio.gather(
        *(facts.receive(f"delivery-{fact.clerk_user_id}", ClerkEvent("user.deleted", None, fact)) for fact in gone)
    )


async def erase_all_late(crowd: Crowd) -> None:
    await erase_late(crowd.database)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as database:
        yield database


@pytest.mark.parametrize(
    "jobs",
    [
        [sign_out, revoke_each],
        [sign_out, rotate_twice, rotate_twice],
        [write_sessions, write_sessions, delete_all],
        [delete_all, write_sessions, erase_all_late, erase_all_late],
        [sign_out, sign_out, delete_all],
    ],
    ids=lambda jobs: " with ".join(job.__name__ for job in jobs),
)
async def test_nobody_waits_in_a_circle(database: Database, jobs: Sequence[Job]) -> None:
    crowds = [Crowd(database, number) for number in range(ROUNDS)]
    await asyncio.gather(*(crowd.gather() for crowd in crowds))
    for first in range(0, ROUNDS, 4):
        done = await asyncio.gather(
            *(job(crowd) for crowd in crowds[first : first + 4] for job in jobs), return_exceptions=True
        )
        unexpected = [one for one in done if isinstance(one, BaseException) and not isinstance(one, EXPECTED)]
        assert unexpected == []

    assert database.failures["conflict"] == 0


async def test_who_waits_in_a_circle_is_told_to_come_again_and_nothing_counts_as_away(database: Database) -> None:
    crowd = Crowd(database, 0)
    await crowd.gather()
    one, other = (standing.user.id for standing in crowd.people[:2])
    both_hold = asyncio.Barrier(2)

    async def lock(first: str, second: str) -> None:
        async with database.transaction() as connection:
            await connection.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", first)
            await both_hold.wait()
            await connection.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", second)

    ended = await asyncio.gather(lock(one, other), lock(other, one), return_exceptions=True)

    (error,) = [one for one in ended if one is not None]
    assert isinstance(error, DatabaseUnavailable)
    assert error.reason == "conflict"
    assert isinstance(error.__cause__, asyncpg.DeadlockDetectedError)
    assert database.breaker.closed
