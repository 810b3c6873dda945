"""What was read before a change is not believed after it, however the two met."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from config.model import Cache
from gateway.actors.callers import Callers
from gateway.credentials.kinds import Carrier, Credential, CredentialKind
from gateway.edge.head import judge_head
from gateway.edge.recent_heads import Seen
from gateway.errors import GatewayError, UserDisabled
from gateway.shared_state.client import SharedRedis
from gateway.shared_state.facts import FactKind
from gateway.shared_state.library import cache_on
from gateway.shared_state.tier import F, Recalled, SharedTier
from gateway.shared_state.values import SealedValues
from gateway.verify.api_tokens import ApiTokens
from provisioning.records import FoundToken
from provisioning.tokens import Tokens
from tests.actors.test_renewal import NOW, TTL_S, Stage, pass_time
from tests.actors.test_subscriptions import start_trial
from tests.shared_state.test_tier import Heard
from tests.support.tokens import RULES, SEALER, session_of, tokens_over

DEGRADED_S = 5.0


class HeldTokens(Tokens):
    """Keeps answers back while it is told to."""

    held = False

    def hold(self) -> None:
        self.held, self.read, self.told = True, asyncio.Event(), asyncio.Event()

    async def find(self, public_id: str) -> FoundToken | None:
        found = await super().find(public_id)
        if self.held:
            self.read.set()
            await self.told.wait()
        return found


@dataclass
class TokenStage:
    """Callers who know API tokens, and the token of somebody they met."""

    stage: Stage
    callers: Callers
    tokens: HeldTokens
    session: Credential
    token: Credential
    user_id: str


def callers_of(stage: Stage, tokens: Tokens, near_entries: int = 1000, shared: SharedTier | None = None) -> Callers:
    """Callers over the stage's records and clocks."""

    def monotonic() -> float:
        return 1000.0 + stage.elapsed_s

    def clock() -> float:
        return NOW + stage.elapsed_s

    settings = Cache(near_ttl=TTL_S, degraded_ttl=DEGRADED_S, near_entries=near_entries)
    api_tokens = ApiTokens(tokens, (), settings, clock=clock, monotonic=monotonic)
    old = stage.callers
    return Callers(
        old._verifier,
        old._standings._arrivals,
        settings,
        api_tokens=api_tokens,
        clock=clock,
        monotonic=monotonic,
        shared=shared,
    )


@pytest.fixture
async def with_token(stage: Stage) -> TokenStage:
    tokens = HeldTokens(stage.database, SEALER, RULES)
    stage.callers = callers = callers_of(stage, tokens)
    (session,) = await stage.meet("user_a")
    standing = (await callers.resolve(session, stage.rule)).standing
    made = await tokens_over(stage.database).create(session_of(standing), "Robot", ())
    token = Credential(CredentialKind.API_TOKEN, Carrier.HEADER, made.text)
    return TokenStage(stage, callers, tokens, session, token, standing.user.id)


async def plan_of(stage: Stage, credential: Credential) -> str:
    return (await stage.callers.resolve(credential, stage.rule)).actor.plan


@pytest.mark.parametrize("joined", [True, False])
async def test_what_was_being_read_while_its_organization_changed_is_not_believed(stage: Stage, joined: bool) -> None:
    (credential,) = await stage.meet("user_a")
    await start_trial(stage, credential)
    organization_id = (await stage.callers.resolve(credential, stage.rule)).actor.organization_id
    stage.elapsed_s += TTL_S
    stage.first_sight.hold()
    reading = asyncio.create_task(stage.callers.resolve(credential, stage.rule))
    await stage.first_sight.read.wait()
    await stage.write("UPDATE subscriptions SET plan = 'team'")
    stage.elapsed_s += 1
    stage.callers.forget_organization(organization_id)
    after = [asyncio.create_task(plan_of(stage, credential)) for _ in range(joined)]
    await asyncio.sleep(0)
    stage.first_sight.told.set()
    await reading

    assert joined or not stage.known(credential)
    assert [await one for one in after] == ["team"] * joined
    assert await plan_of(stage, credential) == "team"


async def test_records_of_an_organization_are_read_again_though_the_credential_is_not_remembered(stage: Stage) -> None:
    (credential,) = await stage.meet("user_a")
    await start_trial(stage, credential)
    actor = (await stage.callers.resolve(credential, stage.rule)).actor
    stage.elapsed_s += 1
    await stage.write("UPDATE subscriptions SET plan = 'team'")

    stage.callers.forget_tokens(actor.user_id)
    stage.callers.forget_organization(actor.organization_id)

    assert await plan_of(stage, credential) == "team"


async def test_first_reading_under_way_while_its_person_is_forgotten_by_our_id_alone_is_not_believed(
    stage: Stage,
) -> None:
    (credential,) = await stage.meet("user_a")
    user_id = (await stage.callers.resolve(credential, stage.rule)).actor.user_id
    stage.callers = callers_of(stage, tokens_over(stage.database))  # who remember nobody
    stage.elapsed_s += 1
    stage.first_sight.hold()
    reading = asyncio.create_task(stage.callers.resolve(credential, stage.rule))
    await stage.first_sight.read.wait()
    await stage.write("UPDATE users SET role = 'ADMIN'")
    stage.elapsed_s += 1
    stage.callers.forget(user_id, None)
    stage.first_sight.told.set()
    await reading

    assert (await stage.callers.resolve(credential, stage.rule)).actor.role == "ADMIN"


async def test_note_of_what_the_cache_let_go_does_not_outlive_a_change_of_its_organization(stage: Stage) -> None:
    stage.callers = callers_of(stage, tokens_over(stage.database), near_entries=1)
    (credential,) = await stage.meet("user_a")
    organization_id = (await stage.callers.resolve(credential, stage.rule)).actor.organization_id
    seen = Seen(judge_head([(b"Host", b"a")]), credential.digest, None)
    assert stage.callers.recalled(seen) is not None
    await stage.meet("user_b")

    stage.callers.forget_organization(organization_id)

    assert stage.callers.recalled(seen) is None


@pytest.mark.parametrize("changed", ["person", "anything"])
async def test_refusal_read_before_a_change_is_not_remembered_after_it(with_token: TokenStage, changed: str) -> None:
    stage, callers = with_token.stage, with_token.callers
    await stage.write("UPDATE users SET disabled_at = now()")
    with_token.tokens.hold()
    reading = asyncio.create_task(callers.resolve(with_token.token, stage.rule))
    await with_token.tokens.read.wait()
    await stage.write("UPDATE users SET disabled_at = NULL")
    if changed == "person":
        callers.forget(with_token.user_id, "user_a")
    else:
        callers.forget_all()
    with_token.tokens.told.set()
    with pytest.raises(UserDisabled):
        await reading

    assert (await callers.resolve(with_token.token, stage.rule)).actor.user_id == with_token.user_id


async def test_reading_of_a_token_is_as_old_as_its_question(with_token: TokenStage) -> None:
    stage, callers = with_token.stage, with_token.callers
    with_token.tokens.hold()
    reading = asyncio.create_task(callers.resolve(with_token.token, stage.rule))
    await with_token.tokens.read.wait()
    await stage.write("UPDATE api_tokens SET revoked_at = now()")
    stage.elapsed_s += 1
    with_token.tokens.told.set()
    await reading
    assert callers._api_tokens is not None
    stage.elapsed_s = callers._api_tokens._freshness(with_token.token.token[4:16])

    with pytest.raises(GatewayError, match="token_revoked"):
        await callers.resolve(with_token.token, stage.rule)


@pytest.mark.parametrize("missed", [True, False])
async def test_token_beside_another_credential_is_proven_anew_once_touch_was_lost(
    with_token: TokenStage, missed: bool
) -> None:
    stage, callers, token = with_token.stage, with_token.callers, with_token.token
    await callers.prove(token)
    assert callers.known_principal(token.digest) is not None

    callers.lose_touch()
    if missed:
        await callers.prove(token)
        callers.regain_touch(missed=True)
    else:
        stage.elapsed_s += DEGRADED_S

    assert callers.known_principal(token.digest) is None


class HeldTier(SharedTier):
    """Keeps back what was found fresh."""

    judged: asyncio.Event
    told: asyncio.Event

    async def find(self, kind: FactKind[F], *about: bytes | str | None, fresh_s: float) -> Recalled[F] | None:
        found = await super().find(kind, *about, fresh_s=fresh_s)
        if found is not None and found.fresh:
            self.judged.set()
            await self.told.wait()
        return found


async def test_what_redis_gave_before_a_change_is_not_believed_after_it(stage: Stage, redis_url: str) -> None:
    redis = SharedRedis(redis_url)
    tier = HeldTier(redis, cache_on(redis.client), SealedValues("k" * 32, b"settings"), Heard(), kept_s=600.0)
    tier.judged, tier.told = asyncio.Event(), asyncio.Event()
    try:
        one, stage.callers = (callers_of(stage, tokens_over(stage.database), shared=tier) for _ in range(2))
        credential = stage.session_of("user_a")
        user_id = (await one.resolve(credential, stage.rule)).actor.user_id
        await tier.settled()
        reading = asyncio.create_task(stage.callers.resolve(credential, stage.rule))
        await tier.judged.wait()
        await stage.write("UPDATE users SET role = 'ADMIN'")
        stage.callers.forget(user_id, "user_a")
        stage.elapsed_s += 1
        tier.told.set()
        await reading

        assert (await stage.callers.resolve(credential, stage.rule)).actor.role == "ADMIN"
    finally:
        await tier.close()
        await redis.close()


class CountedLooks:
    """A cache that counts how often somebody goes through all of it."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        self.times = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._cache

    def values(self) -> Any:
        self.times += 1
        return self._cache.values()


async def test_everything_is_forgotten_without_going_through_it(with_token: TokenStage) -> None:
    stage, callers = with_token.stage, with_token.callers
    await callers.prove(with_token.token)
    await callers.resolve(with_token.token, stage.rule)
    seen = Seen(judge_head([(b"Host", b"a")]), with_token.session.digest, None)
    assert callers.recalled(seen) is not None
    known, proofs = CountedLooks(callers._known), CountedLooks(callers._proofs)
    callers._known, callers._proofs = known, proofs

    callers.forget_all()
    remembered = [
        callers.recalled(seen),
        *(callers.known(one.digest) for one in (with_token.session, with_token.token)),
        callers.known_principal(with_token.token.digest),
    ]

    assert (known.times, proofs.times) == (0, 0)
    assert remembered == [None] * 4


async def test_who_was_forgotten_with_everybody_is_read_again_and_then_known(stage: Stage) -> None:
    (credential,) = await stage.meet("user_a")
    assert stage.known(credential)
    stage.elapsed_s += 1
    await stage.write("UPDATE users SET role = 'ADMIN'")

    stage.callers.forget_all()
    await stage.callers.renewal.renew()

    assert not stage.known(credential)
    assert (await stage.callers.resolve(credential, stage.rule)).actor.role == "ADMIN"
    assert stage.known(credential)


async def test_who_was_forgotten_with_everybody_is_not_asked_for_beside_requests(stage: Stage) -> None:
    (credential,) = await stage.meet("user_a")
    assert stage.known(credential)
    before = stage.first_sight.together

    stage.callers.forget_all()
    await pass_time(stage, TTL_S)

    assert stage.first_sight.together == before
