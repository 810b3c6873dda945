"""JWT forms of machine tokens: verified with the instance's keys, for whom they speak, and what they never become."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from gateway.credentials.kinds import Carrier, Credential, CredentialKind
from gateway.errors import CredentialRejected
from gateway.verify.machine import MachineRules, Statement, kept_scopes, machine_principal
from gateway.verify.principal import Principal
from gateway.verify.session import SessionRules
from gateway.verify.signing_keys import SigningKeys
from gateway.verify.verifier import Verifier
from tests.support.clerk_keys import ABSENT, AUTHORIZED_PARTY, ISSUER, mint_token
from tests.support.clerk_machines import CLIENT, GATEWAY_MACHINE, MACHINE, USER, mint_m2m, mint_oauth
from tests.support.jwks_server import serve_jwks

NOW = 1_700_000_000
SESSIONS = SessionRules((ISSUER,), (AUTHORIZED_PARTY,))
OAUTH, M2M, API_KEY = CredentialKind.CLERK_OAUTH, CredentialKind.CLERK_M2M, CredentialKind.CLERK_API_KEY


@pytest.fixture
async def keys() -> AsyncIterator[SigningKeys]:
    async with serve_jwks() as server:
        running = SigningKeys(server.url)
        await running.start()
        yield running
        await running.close()


async def verified(keys: SigningKeys, kind: CredentialKind, token: str, **rules: Any) -> Principal:
    machines = MachineRules.beside(SESSIONS, **rules)
    verifier = Verifier(keys, SESSIONS, lambda: float(NOW), machines=machines)
    return await verifier.verify(Credential(kind, Carrier.HEADER, token))


async def refusal(keys: SigningKeys, kind: CredentialKind, token: str, **rules: Any) -> str:
    with pytest.raises(CredentialRejected) as refused:
        await verified(keys, kind, token, **rules)
    return refused.value.reason


async def test_oauth_token_speaks_for_a_user_with_its_scopes(keys: SigningKeys) -> None:
    principal = await verified(keys, OAUTH, mint_oauth(now=NOW))

    assert (principal.kind, principal.subject, principal.issuer) == (OAUTH, USER, ISSUER)
    assert principal.scopes == ("read:foo", "write:bar")
    assert principal.token_id == "oat_2xKa9Bgv7NxMRDFyQw8LpZ3cTmU1vHjE"
    assert (principal.session_id, principal.organization, principal.expires_at) == (None, None, NOW + 60)


async def test_token_of_a_machine_speaks_for_a_machine(keys: SigningKeys) -> None:
    principal = await verified(keys, M2M, mint_m2m(now=NOW))

    assert (principal.kind, principal.subject, principal.scopes) == (M2M, MACHINE, (GATEWAY_MACHINE,))


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scp": ["a", "b"], "scope": "c"}, ("a", "b")),
        ({"scp": ABSENT, "scope": "c  d"}, ("c", "d")),
        ({"scp": None, "scope": "c"}, ("c",)),
        ({"scp": {"a": 1}, "scope": "c"}, ()),
        ({"scope": ABSENT}, ()),
        ({"scope": 7}, ()),
    ],
)
async def test_scopes_of_oauth_tokens(keys: SigningKeys, claims: dict[str, Any], scopes: tuple[str, ...]) -> None:
    assert (await verified(keys, OAUTH, mint_oauth(now=NOW, **claims))).scopes == scopes


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scopes": "mch_1 mch_2", "aud": ["mch_3"]}, ("mch_1", "mch_2")),
        ({"scopes": ABSENT, "aud": ["mch_3"]}, ("mch_3",)),
        ({"scopes": ABSENT, "aud": "mch_3"}, ("mch_3",)),
        ({"scopes": ABSENT, "aud": ABSENT}, ()),
    ],
)
async def test_scopes_of_tokens_of_machines(keys: SigningKeys, claims: dict[str, Any], scopes: tuple[str, ...]) -> None:
    assert (await verified(keys, M2M, mint_m2m(now=NOW, **claims))).scopes == scopes


def test_no_token_of_clerks_carries_our_own_scopes_or_all_of_them() -> None:
    given = ["read", "*", "admin", "tokens:manage", "read", "two words", 'quo"te', "", 7, None, "a\nb", "é"]

    assert kept_scopes(given) == ("read",)


async def test_authorized_parties_are_for_browsers_alone(keys: SigningKeys) -> None:
    assert (await verified(keys, OAUTH, mint_oauth(now=NOW, azp="https://elsewhere.test"))).subject == USER
    assert (await verified(keys, M2M, mint_m2m(now=NOW, azp=ABSENT))).subject == MACHINE


@pytest.mark.parametrize(
    ("header", "claims", "reason"),
    [
        ({}, {"iss": "https://other.test"}, "token-invalid-issuer"),
        ({}, {"exp": NOW - 6}, "token-expired"),
        ({}, {"exp": ABSENT}, "token-verification-failed"),
        ({}, {"nbf": NOW + 6}, "token-not-active-yet"),
        ({}, {"iat": NOW + 6}, "token-iat-in-the-future"),
        ({}, {"sub": None}, "token-verification-failed"),
        ({}, {"sub": ""}, "token-verification-failed"),
        ({}, {"sub": "org_2x"}, "machine_subject"),
        ({}, {"sub": "user_"}, "machine_subject"),
        ({}, {"sub": "user_2x\n"}, "machine_subject"),
        ({}, {"jti": "one two"}, "token-verification-failed"),
        ({}, {"org_id": "org_2x"}, "machine_organization"),
        ({}, {"o": {"id": "org_2x"}}, "machine_organization"),
        ({}, {"act": {"sub": "user_2other"}}, "machine_impersonation"),
        ({}, {"act": ""}, "machine_impersonation"),
        ({"cat": "cl_B7d4PD111AAA"}, {}, "token-invalid"),
        ({"cat": "cl_B7d4PD222AAA"}, {}, "token-invalid"),
        ({"cat": "cl_B7d4PD333AAA"}, {}, "token-invalid"),
        ({"typ": "JWT"}, {}, "token-invalid"),
        ({"typ": ABSENT}, {}, "token-invalid"),
        ({"alg": "none"}, {}, "token-invalid-algorithm"),
        ({"crit": ["x"]}, {}, "token-invalid"),
    ],
)
async def test_oauth_token_is_judged_like_a_session(
    keys: SigningKeys, header: dict[str, Any], claims: dict[str, Any], reason: str
) -> None:
    assert await refusal(keys, OAUTH, mint_oauth(header, now=NOW, **claims)) == reason


@pytest.mark.parametrize(
    ("header", "claims", "reason"),
    [
        ({"cat": "cl_B7d4PD111AAA"}, {}, "token-invalid"),
        ({"cat": "cl_I7d4PD111III"}, {}, "token-invalid"),
        ({"cat": None}, {}, "token-invalid"),
        ({"typ": "at+jwt"}, {}, "token-invalid"),
        ({}, {"sub": USER}, "machine_subject"),
        ({}, {"exp": NOW - 6}, "token-expired"),
        ({}, {"iss": "https://other.test"}, "token-invalid-issuer"),
    ],
)
async def test_token_of_a_machine_is_judged_like_a_session(
    keys: SigningKeys, header: dict[str, Any], claims: dict[str, Any], reason: str
) -> None:
    assert await refusal(keys, M2M, mint_m2m(header, now=NOW, **claims)) == reason


async def test_token_of_a_machine_from_before_there_were_categories_is_good(keys: SigningKeys) -> None:
    assert (await verified(keys, M2M, mint_m2m({"cat": ABSENT}, now=NOW))).subject == MACHINE


@pytest.mark.parametrize("kind", [OAUTH, M2M])
async def test_session_is_no_machine_token_and_another_key_signs_none(keys: SigningKeys, kind: CredentialKind) -> None:
    mint = mint_oauth if kind is OAUTH else mint_m2m

    assert await refusal(keys, kind, mint_token(now=NOW)) == "token-invalid"
    assert await refusal(keys, kind, mint(now=NOW, key="attacker")) == "token-invalid-signature"


@pytest.mark.parametrize("token", [mint_oauth(now=NOW), mint_m2m(now=NOW), mint_m2m({"cat": ABSENT}, now=NOW)])
async def test_machine_token_is_no_session(keys: SigningKeys, token: str) -> None:
    assert await refusal(keys, CredentialKind.SESSION, token) == "token-type-mismatch"


async def test_oauth_token_of_an_application_that_is_not_named_is_refused(keys: SigningKeys) -> None:
    ours = frozenset({CLIENT})

    assert (await verified(keys, OAUTH, mint_oauth(now=NOW), oauth_clients=ours)).subject == USER
    for other in ("client_other", None, [CLIENT]):
        assert await refusal(keys, OAUTH, mint_oauth(now=NOW, client_id=str(other)), oauth_clients=ours) == (
            "machine_client"
        )
    assert await refusal(keys, OAUTH, mint_oauth(now=NOW, client_id=ABSENT), oauth_clients=ours) == "machine_client"


async def test_token_of_a_machine_made_for_others_is_refused(keys: SigningKeys) -> None:
    assert (await verified(keys, M2M, mint_m2m(now=NOW), machine_id=GATEWAY_MACHINE)).subject == MACHINE
    other = mint_m2m(now=NOW, scopes="mch_other", aud=[GATEWAY_MACHINE])
    assert await refusal(keys, M2M, other, machine_id=GATEWAY_MACHINE) == "machine_audience"


@pytest.mark.parametrize("subject", ["user_2x", "org_2x"])
def test_api_key_speaks_for_a_user_or_an_organization(subject: str) -> None:
    principal = machine_principal(Statement(subject, (), "", 1.0, "ak_1"), API_KEY, MachineRules(SESSIONS))

    assert principal.subject == subject


@pytest.mark.parametrize("subject", ["mch_2x", "scim_2x", "", None, 7, "user_2x y", "usr_2x"])
def test_api_key_speaks_for_nobody_else(subject: object) -> None:
    with pytest.raises(CredentialRejected) as refused:
        machine_principal(Statement(subject, (), "", 1.0, "ak_1"), API_KEY, MachineRules(SESSIONS))

    assert refused.value.reason == "machine_subject"


def test_client_of_another_type_is_none_of_ours() -> None:
    rules = replace(MachineRules(SESSIONS), oauth_clients=frozenset({CLIENT}))
    with pytest.raises(CredentialRejected) as refused:
        machine_principal(Statement(USER, (), "", 1.0, "oat_1", [CLIENT]), OAUTH, rules)

    assert refused.value.reason == "machine_client"
