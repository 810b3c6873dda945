"""Every own endpoint against every kind of credential: who may is what the table says, and nobody else."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import pytest
import pytest_asyncio

from config.grammar import BUILT_IN_SCOPES
from provisioning.records import Role
from provisioning.token_rules import held
from tests.support.api_tokens import call, made_token
from tests.support.clerk_backend import SECRET_KEY, ClerkBackend
from tests.support.clerk_machines import mint_m2m, mint_oauth
from tests.support.gateway import ROUTES, GatewayUnderTest, gateway_under_test, mint_token
from tests.support.minted import SYSTEM_TOKEN
from tests.support.people import ACT, administrator, met
from tests.support.wire import bearer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")
BOSS, PERSON = "user_2boss", "user_2person"
NOBODY = "usr_0000000000000000000000"
TAKES_ALL = ["session", "api_token", "system_token", "clerk_api_key", "clerk_oauth", "clerk_m2m", "agent_token"]
SETTINGS: dict[str, Any] = {
    "debug": {"enabled": True},
    "tokens": {"per_user": 1000},
    "system_tokens": [
        {"name": "reporting", "sha256": [sha256(SYSTEM_TOKEN.encode()).hexdigest()], "networks": ["127.0.0.1/32"]}
    ],
    # So that each of them is known to the gateway, and passes somewhere.
    "routes": [{"path": "/any/**", "auth": "required", "accept": TAKES_ALL, "upstream": "app"}, *ROUTES],
}


@dataclass(frozen=True)
class May:
    """Who may call; administrators may what everybody may.

    Attributes:
        scope: What an API token needs; None: nothing.
        only_administrators: Nobody else.
        impersonated: Also by a session in which somebody acts as the person.
        api_token: Also by one.
    """

    scope: str | None = None
    only_administrators: bool = False
    impersonated: bool = True
    api_token: bool = True


ANYBODY = None
READS = May()
TOKENS = May("tokens:manage", impersonated=False)
ADMINISTERS = May("admin", only_administrators=True, impersonated=False)
TABLE: dict[tuple[str, str], May | None] = {
    ("GET", "/users/current"): READS,
    ("PATCH", "/users/current/settings"): May("profile:write"),
    ("POST", "/users/current/websocket-token"): May("tokens:mint"),
    ("GET", "/organizations/current"): READS,
    ("GET", "/organizations/current/members"): READS,
    ("GET", "/organizations/current/audit-events"): May("audit:read"),  # of their own: its admins
    ("GET", "/users/current/api-tokens"): TOKENS,
    ("POST", "/users/current/api-tokens"): TOKENS,
    ("GET", "/users/current/api-tokens/{id}"): TOKENS,
    ("PATCH", "/users/current/api-tokens/{id}"): TOKENS,
    ("DELETE", "/users/current/api-tokens/{id}"): TOKENS,
    ("POST", "/users/current/api-tokens/{id}/rotate"): TOKENS,
    ("POST", "/users/current/api-tokens/{id}/reveal"): TOKENS,
    ("GET", "/admin/users"): ADMINISTERS,
    ("GET", "/admin/users/{id}"): ADMINISTERS,
    ("PATCH", "/admin/users/{id}/role"): ADMINISTERS,
    ("POST", "/admin/users/{id}/disable"): ADMINISTERS,
    ("POST", "/admin/users/{id}/enable"): ADMINISTERS,
    ("POST", "/admin/users/{id}/revoke"): ADMINISTERS,
    ("POST", "/users/{id}/debug/provision"): ADMINISTERS,
    ("POST", "/users/current/sign-out-everywhere"): May(impersonated=False, api_token=False),
    ("GET", "/openapi.json"): ANYBODY,
    ("GET", "/.well-known/jwks.json"): ANYBODY,
}


@dataclass
class Presented:
    """One kind of credential, by whoever holds it.

    Attributes:
        scopes: Of an API token; None: it is none.
        is_person: A session, or an API token.
    """

    token: str
    is_person: bool = False
    is_administrator: bool = False
    impersonated: bool = False
    scopes: frozenset[str] | None = None

    def may(self, rule: May | None) -> bool:
        if rule is ANYBODY:
            return True
        if not self.is_person or (rule.only_administrators and not self.is_administrator):
            return False
        if self.scopes is not None:
            return rule.api_token and (rule.scope is None or rule.scope in self.scopes)
        return rule.impersonated or not self.impersonated


@dataclass
class Stage:
    gateway: GatewayUnderTest
    presented: dict[str, Presented] = field(default_factory=dict)


def person(sub: str, **more: Any) -> Presented:
    """A session, good for a minute."""
    acts: dict[str, Any] = {"act": ACT} if more.get("impersonated") else {}
    return Presented(mint_token(sub=sub, sid=f"sess_{sub}", **acts), is_person=True, **more)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(module_database_url: str, fast_lane: bool) -> AsyncIterator[Stage]:
    async with ClerkBackend().running() as backend:
        clerk = {"api_url": backend.url, "secret_key": SECRET_KEY}
        async with gateway_under_test(module_database_url, fast_lane=fast_lane, clerk=clerk, **SETTINGS) as gateway:
            made = Stage(gateway)
            await administrator(gateway, BOSS)
            await met(gateway, PERSON)
            await _present(made, backend)
            yield made


async def _present(stage: Stage, backend: ClerkBackend) -> None:
    gateway, presented = stage.gateway, stage.presented
    for sub, administers in ((PERSON, False), (BOSS, True)):
        session = person(sub, is_administrator=administers)
        presented[f"session of {sub}"] = session
        presented[f"impersonated session of {sub}"] = person(sub, is_administrator=administers, impersonated=True)
        grantable = sorted(BUILT_IN_SCOPES) if administers else sorted(held(BUILT_IN_SCOPES, Role.USER))
        for scopes in ([], *([one] for one in grantable)):
            token = (await made_token(gateway, session.token, scopes=scopes))["token"]
            presented[f"API token of {sub} with {scopes}"] = Presented(
                token, is_person=True, is_administrator=administers, scopes=frozenset(scopes)
            )
        user = (await call(gateway, session.token, "GET", "/users/current")).json()
        presented[f"websocket token of {sub}"] = Presented(user["websocketToken"])
        presented[f"agent token of {sub}"] = Presented(user["agentToken"])
        presented[f"API key of {sub}"] = Presented(backend.machines.api_key(sub, scopes=sorted(BUILT_IN_SCOPES)))
        presented[f"opaque OAuth token of {sub}"] = Presented(backend.machines.oauth(sub))
        presented[f"OAuth token of {sub}"] = Presented(mint_oauth(sub=sub))
    presented["opaque token of a machine"] = Presented(backend.machines.m2m())
    presented["token of a machine"] = Presented(mint_m2m())
    presented["system token"] = Presented(SYSTEM_TOKEN)
    presented["nothing"] = Presented("")


async def ask(stage: Stage, presented: Presented, method: str, target: str) -> int:
    lines = [bearer(presented.token)] if presented.token else []
    return (await stage.gateway.ask(request(target, *lines, method=method))).status


async def test_the_table_has_every_own_endpoint(stage: Stage) -> None:
    endpoints = stage.gateway.reloader.current.pipeline.rooms.endpoints
    own = {(method, path) for path, methods in endpoints._by_path.items() for method in methods}
    own |= {(method, path) for _, _, methods in endpoints._templates for method, path in _paths(methods)}

    assert own == set(TABLE)


def _paths(methods: Any) -> list[tuple[str, str]]:
    return [(method, endpoint.path) for method, endpoint in methods.items()]


async def test_each_credential_passes_somewhere(stage: Stage) -> None:
    """Else the refusals below would tell nothing."""
    refused = set()
    for name, presented in stage.presented.items():
        if await ask(stage, presented, "GET", "/any/x") != 200:
            refused.add(name)

    assert refused == {"nothing", *(f"websocket token of {sub}" for sub in (PERSON, BOSS))}  # they open websockets


@pytest.mark.parametrize("method,path", [key for key in TABLE if "sign-out" not in key[1]])
async def test_who_may_is_as_the_table_says(stage: Stage, method: str, path: str) -> None:
    target, rule = path.replace("{id}", NOBODY), TABLE[method, path]

    async def passes(presented: Presented) -> bool:
        return await ask(stage, presented, method, target) not in (401, 403)

    passed = await asyncio.gather(*map(passes, stage.presented.values()))

    expected = {name: presented.may(rule) for name, presented in stage.presented.items()}
    assert dict(zip(stage.presented, passed, strict=True)) == expected


async def test_only_a_session_signs_its_person_out(stage: Stage) -> None:
    target = "/users/current/sign-out-everywhere"
    rule = TABLE["POST", target]
    # The others first: who signs out ends most of what was made here.
    ordered = sorted(stage.presented.items(), key=lambda item: item[1].may(rule))
    refused = {name for name, presented in ordered if await ask(stage, presented, "POST", target) in (401, 403)}

    assert refused == {name for name, presented in ordered if not presented.may(rule)}
