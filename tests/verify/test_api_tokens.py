"""Readings of API tokens that meet a change halfway: what was read before it is not believed after it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from config.model import Cache
from gateway.credentials.kinds import Carrier, Credential, CredentialKind
from gateway.errors import CredentialRejected
from gateway.verify.api_tokens import ApiTokens, ProvenToken
from provisioning.audit import GATEWAY
from provisioning.database.pool import Database
from provisioning.first_sight import FirstSight
from provisioning.makers import Maker
from provisioning.new_tokens import ONE_TIME_SECRETS, MadeToken
from provisioning.profile import Profile
from provisioning.records import FoundToken, Subject
from provisioning.sealing import Sealer
from provisioning.token_rules import TokenRules
from provisioning.tokens import Tokens


class SlowTokens(Tokens):
    """The real records, whose answers can be held up on their way.

    Attributes:
        way: While cleared, answers that were read wait.
        waiting: Answers that wait.
        asked: Questions so far.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database, Sealer("k" * 32, ONE_TIME_SECRETS), TokenRules(scopes=("reports:read",)))
        self.way = asyncio.Event()
        self.way.set()
        self.waiting = self.asked = 0

    async def find(self, public_id: str) -> FoundToken | None:
        self.asked += 1
        found = await super().find(public_id)
        self.waiting += 1
        await self.way.wait()
        self.waiting -= 1
        return found


@pytest.fixture
async def tokens(database_url: str) -> AsyncIterator[SlowTokens]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as database:
        yield SlowTokens(database)


@pytest.fixture
async def maker(database_url: str) -> Maker:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as database:
        standing = (await FirstSight(database).provision(Subject("user_alice"), Profile("Alice"))).standing
    return Maker(standing.user.id, standing.organization.id, None, GATEWAY)


def presented(made: MadeToken) -> Credential:
    return Credential(CredentialKind.API_TOKEN, Carrier.HEADER, made.text)


async def verified(api_tokens: ApiTokens, made: MadeToken) -> ProvenToken:
    return await api_tokens.verify(presented(made))


async def held_up(tokens: SlowTokens, count: int = 1) -> None:
    async with asyncio.timeout(10):
        while tokens.waiting < count:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)


async def test_a_reading_from_before_a_revocation_is_not_remembered_after_it(tokens: SlowTokens, maker: Maker) -> None:
    api_tokens = ApiTokens(tokens, (), Cache())
    made = await tokens.create(maker, "Robot", [])
    tokens.way.clear()
    early = asyncio.create_task(verified(api_tokens, made))
    await held_up(tokens)
    await tokens.revoke(maker, made.token.id)
    api_tokens.forget(maker.user_id)
    late = asyncio.create_task(verified(api_tokens, made))
    await held_up(tokens, 2)  # it did not join the reading from before
    tokens.way.set()

    assert (await early).principal.token_id == made.token.id
    with pytest.raises(CredentialRejected) as refused:
        await late
    assert refused.value.reason == "token_revoked"
    with pytest.raises(CredentialRejected):
        await verified(api_tokens, made)


async def test_all_who_present_one_token_at_once_wait_for_one_reading(tokens: SlowTokens, maker: Maker) -> None:
    api_tokens = ApiTokens(tokens, (), Cache())
    made = await tokens.create(maker, "Robot", [])
    tokens.way.clear()
    crowd = [asyncio.create_task(verified(api_tokens, made)) for _ in range(50)]
    await held_up(tokens)
    crowd[0].cancel()
    tokens.way.set()

    proven = await asyncio.gather(*crowd[1:])

    assert {one.principal.token_id for one in proven} == {made.token.id}
    assert tokens.asked == 1


async def test_what_was_read_is_believed_for_a_while_and_forgotten_on_demand(tokens: SlowTokens, maker: Maker) -> None:
    now = 1000.0
    api_tokens = ApiTokens(tokens, (), Cache(near_ttl="10m"), monotonic=lambda: now)
    made = await tokens.create(maker, "Robot", [])
    first = await verified(api_tokens, made)
    again = await verified(api_tokens, made)
    asked_before = tokens.asked
    now = first.believed_until
    await verified(api_tokens, made)
    asked_after = tokens.asked
    api_tokens.forget(maker.user_id)
    await verified(api_tokens, made)

    assert again.believed_until == first.believed_until
    assert 0 < first.believed_until - 1000.0 <= 60  # whatever `cache.near_ttl` says: a use is noted every minute
    assert (asked_before, asked_after, tokens.asked) == (1, 2, 3)


async def test_a_refusal_is_remembered_for_some_seconds_alone(tokens: SlowTokens, maker: Maker) -> None:
    now = 1000.0
    api_tokens = ApiTokens(tokens, (), Cache(), monotonic=lambda: now)
    made = await tokens.create(maker, "Robot", [])
    await tokens.revoke(maker, made.token.id)
    asked = []
    for moment in (1000.0, 1001.0, 1004.9, 1005.1):
        now = moment
        with pytest.raises(CredentialRejected):
            await verified(api_tokens, made)
        asked.append(tokens.asked)

    assert asked == [1, 1, 1, 2]


async def test_readings_of_many_tokens_are_remembered_in_bounded_memory(tokens: SlowTokens, maker: Maker) -> None:
    api_tokens = ApiTokens(tokens, (), Cache(near_entries=10))
    mades = [await tokens.create(maker, f"Robot {number}", []) for number in range(20)]

    for made in mades * 3:
        await verified(api_tokens, made)

    assert len(api_tokens.holdings) <= 30
