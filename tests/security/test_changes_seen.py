"""V01: a changed role, a lost membership and a disabled person are seen within `cache.near_ttl`, told by a clock."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest

from config.model import Cache, Route
from gateway.actors.callers import Callers
from gateway.credentials.kinds import Carrier, Credential, CredentialKind
from gateway.errors import OrganizationLeft, PolicyDenied, ScopeMissing, UserDisabled
from gateway.policy.decision import decide
from gateway.policy.routes import CompiledRoute, RouteTable
from gateway.verify.api_tokens import ApiTokens
from gateway.verify.session import SessionRules
from gateway.verify.signing_keys import SigningKeys
from gateway.verify.verifier import Verifier
from provisioning.administration import Administration
from provisioning.arrivals import Arrivals
from provisioning.audit import GATEWAY
from provisioning.clerk_api import ClerkApi
from provisioning.database.pool import Database
from provisioning.first_sight import FirstSight
from provisioning.records import Role, Standing, Subject
from tests.support.clerk_keys import AUTHORIZED_PARTY, ISSUER, mint_token
from tests.support.jwks_server import serve_jwks
from tests.support.tokens import execute, session_of, tokens_over

NOW = 1_700_000_000.0
TTL_S = 30.0
ROUTES = [
    Route(path="/admins/**", auth="required", roles=("ADMIN",), scopes=("admin",), upstream="app"),
    Route(path="/**", auth="required", upstream="app"),
]
ADMINS, ANY = RouteTable.compile(ROUTES).routes


@dataclass
class Stage:
    """Callers over real records, with a clock that is moved by hand; Alice is an administrator at Acme."""

    callers: Callers
    database: Database
    standing: Standing
    session: Credential
    token: Credential
    elapsed_s: float = 0.0

    async def pass_with(self, credential: Credential, rule: CompiledRoute) -> None:
        """Take a request along the way, from memory where that is believed."""
        caller = self.callers.known(credential.digest) or await self.callers.resolve(credential, rule)
        decide(caller.actor, rule)

    async def outdated(self) -> None:
        """Let what was believed grow old, renewing in between as a process does."""
        for _ in range(int(TTL_S) * 2 + 1):
            self.elapsed_s += 0.5
            await self.callers.renewal.renew()


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with (
        serve_jwks() as jwks,
        Database(database_url, acquire_timeout=60, statement_timeout=60) as database,
        aiohttp.ClientSession() as session,
    ):
        keys = SigningKeys(jwks.url)
        await keys.start()
        assert await keys.first_set()
        arrivals = Arrivals(FirstSight(database), ClerkApi(session, "http://127.0.0.1:1", None))
        standing = await arrivals.standing(Subject("user_alice", "org_acme", organization_role="member"))
        await Administration(database).set_role(standing.user.id, Role.ADMIN, GATEWAY, by=None)
        tokens = tokens_over(database)
        text = (await tokens.create(session_of(standing), "Robot", ["admin"])).text
        jwt = mint_token(
            sub="user_alice", now=int(NOW), exp=int(NOW) + 3600, o={"id": "org_acme", "slg": "acme", "rol": "member"}
        )

        def clock() -> float:
            return NOW + made.elapsed_s

        def monotonic() -> float:
            return 1000.0 + made.elapsed_s

        settings = Cache(near_ttl=TTL_S)
        callers = Callers(
            Verifier(keys, SessionRules((ISSUER,), (AUTHORIZED_PARTY,)), clock),
            arrivals,
            settings,
            api_tokens=ApiTokens(tokens, (), settings, clock=clock, monotonic=monotonic),
            clock=clock,
            monotonic=monotonic,
        )
        made = Stage(
            callers,
            database,
            standing,
            Credential(CredentialKind.SESSION, Carrier.HEADER, jwt),
            Credential(CredentialKind.API_TOKEN, Carrier.HEADER, text),
        )
        for credential in (made.session, made.token):
            await made.pass_with(credential, ADMINS)
        yield made
        await callers.close()
        await arrivals.close()
        await keys.close()


async def test_v01_a_changed_role_is_seen_within_the_setting(stage: Stage) -> None:
    await execute(stage.database, "UPDATE users SET role = 'USER'")
    await stage.pass_with(stage.session, ADMINS)  # still believed: the lag there is
    await stage.pass_with(stage.token, ADMINS)

    await stage.outdated()

    with pytest.raises(PolicyDenied):
        await stage.pass_with(stage.session, ADMINS)
    with pytest.raises(PolicyDenied):
        await stage.pass_with(stage.token, ADMINS)
    await stage.pass_with(stage.session, ANY)
    await stage.pass_with(stage.token, ANY)


async def test_v01_a_scope_of_administrators_is_worth_the_owners_role_of_now(stage: Stage) -> None:
    await execute(stage.database, "UPDATE users SET role = 'USER'")
    await stage.outdated()
    (scope_alone,) = RouteTable.compile([ROUTES[0].model_copy(update={"roles": ()})]).routes

    with pytest.raises(ScopeMissing):
        await stage.pass_with(stage.token, scope_alone)
    await stage.pass_with(stage.session, scope_alone)  # sessions are not limited by scopes


async def test_v01_a_disabled_person_is_refused_within_the_setting(stage: Stage) -> None:
    await execute(stage.database, "UPDATE users SET disabled_at = now()")
    await stage.pass_with(stage.session, ANY)

    await stage.outdated()

    for credential in (stage.session, stage.token):
        with pytest.raises(UserDisabled):
            await stage.pass_with(credential, ANY)


async def test_v01_a_token_ends_with_its_owners_membership_within_the_setting(stage: Stage) -> None:
    await execute(stage.database, "DELETE FROM memberships")
    await stage.pass_with(stage.token, ANY)

    await stage.outdated()

    with pytest.raises(OrganizationLeft):
        await stage.pass_with(stage.token, ANY)


async def test_v01_what_this_process_changed_is_seen_at_once(stage: Stage) -> None:
    await execute(stage.database, "UPDATE users SET role = 'USER'")

    stage.callers.forget(stage.standing.user.id, stage.standing.user.clerk_id)

    for credential in (stage.session, stage.token):
        with pytest.raises(PolicyDenied):
            await stage.pass_with(credential, ADMINS)


async def test_v01_nobody_else_is_forgotten(stage: Stage) -> None:
    stage.callers.forget("usr_0000000000000000000000", None)

    assert stage.callers.known(stage.session.digest) is not None


async def test_v01_what_was_being_read_during_a_change_is_not_remembered(stage: Stage) -> None:
    stage.elapsed_s += TTL_S + 1  # old: the next request asks
    read = FirstSight.find
    stale = await read(FirstSight(stage.database), "user_alice", "org_acme")

    class Late(FirstSight):
        async def find(self, clerk_user_id: str, clerk_organization_id: str | None) -> Standing | None:
            """Answer with what was so before the change, after it."""
            stage.callers.forget(stage.standing.user.id, stage.standing.user.clerk_id)
            return stale

    stage.callers._standings._arrivals._first_sight = Late(stage.database)
    await execute(stage.database, "UPDATE users SET disabled_at = now()")
    await stage.pass_with(stage.session, ANY)  # this one asked before the change
    stage.callers._standings._arrivals._first_sight = FirstSight(stage.database)
    stage.elapsed_s += 0.001

    with pytest.raises(UserDisabled):
        await stage.pass_with(stage.session, ANY)
