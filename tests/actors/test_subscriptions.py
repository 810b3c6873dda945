"""What a subscription is follows the clock, in the near cache too, although no row changes."""

from datetime import UTC, datetime, timedelta

import pytest

from config.model import Cache
from gateway.actors.beliefs import Caller
from gateway.actors.callers import Callers
from gateway.credentials.kinds import Carrier, Credential, CredentialKind
from gateway.verify.api_tokens import ApiTokens
from provisioning.subscriptions import Trials
from tests.actors.test_renewal import NOW, TTL_S, Stage, pass_time
from tests.support.tokens import session_of, tokens_over

TRIAL_S = 100.0


async def start_trial(stage: Stage, credential: Credential, ends_in_s: float = TRIAL_S) -> None:
    """Give the person's organization a trial that ends so long after the stage's beginning."""
    organization_id = (await stage.callers.resolve(credential, stage.rule)).actor.organization_id
    async with stage.database.transaction() as connection:
        assert await Trials(14, "pro").start(connection, organization_id) is not None
    ends_at = datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=ends_in_s)
    await stage.write("UPDATE subscriptions SET trial_ends_at = $1, current_period_end = $1", ends_at)
    stage.callers.forget_organization(organization_id)


def told(caller: Caller | None) -> tuple[str, str, bytes, bytes]:
    """What policy and upstreams are told."""
    assert caller is not None
    lines = {line.partition(b": ")[0]: line.partition(b": ")[2] for line in caller.identity.split(b"\r\n")}
    actor = caller.actor
    return actor.subscription_status, actor.plan, lines[b"X-Subscription-Status"], lines[b"X-Subscription-Plan"]


IN_TRIAL = ("trialing", "pro", b"trialing", b"pro")
EXPIRED = ("expired", "", b"expired", b"")


async def test_trial_ends_for_somebody_in_use_at_its_moment(stage: Stage) -> None:
    (credential,) = await stage.meet("user_a")
    await start_trial(stage, credential)
    await stage.callers.resolve(credential, stage.rule)

    while stage.elapsed_s < TRIAL_S:
        assert told(stage.callers.known(credential.digest)) == IN_TRIAL
        await pass_time(stage, 0.5)

    assert not stage.known(credential)  # its records were read again lately, and say the same as before
    assert told(await stage.callers.resolve(credential, stage.rule)) == EXPIRED
    assert told(stage.callers.known(credential.digest)) == EXPIRED


async def test_what_is_prepared_is_made_once_and_not_for_every_request(stage: Stage) -> None:
    (credential,) = await stage.meet("user_a")
    await start_trial(stage, credential)
    first = await stage.callers.resolve(credential, stage.rule)

    for _ in range(9):
        assert stage.callers.known(credential.digest) is first
        await pass_time(stage, 10)


async def test_after_the_trial_callers_are_known_and_renewed_as_before(stage: Stage) -> None:
    (credential,) = await stage.meet("user_a")
    await start_trial(stage, credential)
    stage.elapsed_s = TRIAL_S
    first = await stage.callers.resolve(credential, stage.rule)
    asked = stage.first_sight.alone

    for _ in range(20):
        assert stage.callers.known(credential.digest) is first
        await pass_time(stage, 5)

    assert stage.first_sight.alone == asked


async def test_changed_row_is_believed_after_the_near_ttl_at_most(stage: Stage) -> None:
    (credential,) = await stage.meet("user_a")
    await start_trial(stage, credential)
    await stage.callers.resolve(credential, stage.rule)
    await stage.write("UPDATE subscriptions SET plan = 'team'")

    await pass_time(stage, TTL_S)
    caller = await stage.callers.resolve(credential, stage.rule)

    assert told(caller) == ("trialing", "team", b"trialing", b"team")


async def test_forgotten_organization_is_asked_for_at_the_next_request_and_others_are_not(stage: Stage) -> None:
    changed, other = await stage.meet("user_a", "user_b")
    await start_trial(stage, changed)
    caller = await stage.callers.resolve(changed, stage.rule)
    await stage.write("UPDATE subscriptions SET status = 'canceled'")

    stage.callers.forget_organization(caller.actor.organization_id)

    assert (stage.known(changed), stage.known(other)) == (False, True)
    assert told(await stage.callers.resolve(changed, stage.rule)) == ("canceled", "", b"canceled", b"")


async def test_organization_without_a_subscription_is_told_as_such(stage: Stage) -> None:
    (credential,) = await stage.meet("user_a")

    assert told(stage.callers.known(credential.digest)) == ("none", "", b"none", b"")


@pytest.fixture
def with_tokens(stage: Stage) -> Callers:
    """The stage's callers, who know API tokens as well."""

    def monotonic() -> float:
        return 1000.0 + stage.elapsed_s

    def clock() -> float:
        return NOW + stage.elapsed_s

    settings = Cache(near_ttl=TTL_S)
    api_tokens = ApiTokens(tokens_over(stage.database), (), settings, clock=clock, monotonic=monotonic)
    old = stage.callers
    stage.callers = Callers(
        old._verifier, old._standings._arrivals, settings, api_tokens=api_tokens, clock=clock, monotonic=monotonic
    )
    return stage.callers


async def test_trial_ends_for_an_api_token_at_its_moment(stage: Stage, with_tokens: Callers) -> None:
    (session,) = await stage.meet("user_a")
    await start_trial(stage, session, ends_in_s=5.0)
    standing = (await with_tokens.resolve(session, stage.rule)).standing
    made = await tokens_over(stage.database).create(session_of(standing), "Robot", ())
    credential = Credential(CredentialKind.API_TOKEN, Carrier.HEADER, made.text)

    before = told(await with_tokens.resolve(credential, stage.rule))
    assert stage.known(credential)
    stage.elapsed_s = 5.0  # its reading is fresh for longer

    assert before == IN_TRIAL
    assert not stage.known(credential)
    assert told(await with_tokens.resolve(credential, stage.rule)) == EXPIRED


async def test_forgotten_organization_is_asked_for_again_by_api_tokens(stage: Stage, with_tokens: Callers) -> None:
    (session,) = await stage.meet("user_a")
    await start_trial(stage, session)
    standing = (await with_tokens.resolve(session, stage.rule)).standing
    made = await tokens_over(stage.database).create(session_of(standing), "Robot", ())
    credential = Credential(CredentialKind.API_TOKEN, Carrier.HEADER, made.text)
    await with_tokens.resolve(credential, stage.rule)
    await stage.write("UPDATE subscriptions SET status = 'unpaid'")

    with_tokens.forget_organization(standing.organization.id)

    assert told(await with_tokens.resolve(credential, stage.rule)) == EXPIRED
