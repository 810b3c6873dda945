"""What is minted for whom, how long it is handed out again, and that it reads back as who it was minted for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.actors.actor import Actor
from gateway.actors.beliefs import Caller
from gateway.actors.system_tokens import NOBODY
from gateway.credentials.kinds import Carrier, Credential, CredentialKind
from gateway.identity.minting import Minter
from gateway.verify.minted import AUDIENCE, MintedTokens
from gateway.verify.principal import ClerkOrganization, Impersonator, Principal
from provisioning.records import Role
from tests.support.minted import claims_of, lone_ring
from tests.support.rings import Clock

WEBSOCKET, AGENT = CredentialKind.WEBSOCKET_TOKEN, CredentialKind.AGENT_TOKEN
KINDS = pytest.mark.parametrize("kind", [WEBSOCKET, AGENT])
ISSUER, CLERK = "https://app.example.test", "https://clerk.example.test"
CARRIER = {WEBSOCKET: Carrier.QUERY, AGENT: Carrier.HEADER}
WORD = st.text("abcdefghijklmnop:_-", min_size=1, max_size=12)


CLOCK = Clock()
RING = lone_ring(CLOCK)


def principal(**changes: Any) -> Principal:
    given_: dict[str, Any] = {
        "kind": CredentialKind.SESSION,
        "carrier": Carrier.HEADER,
        "issuer": CLERK,
        "subject": "user_1",
        "expires_at": 4e9,
        "session_id": "sess_1",
    }
    return Principal(**(given_ | changes))


def caller(role: Role = Role.USER, **changes: Any) -> Caller:
    proof = principal(**changes)
    organization = proof.organization
    actor = Actor(
        "usr_1",
        role,
        "org_1",
        organization.role if organization is not None else "admin",
        organization.permissions if organization is not None else (),
        proof,
    )
    return Caller(actor, NOBODY, b"")


def minter(clock: Clock, entries: int = 100) -> Minter:
    return Minter(RING, ISSUER, websocket_life_s=600, agent_life_s=3600, entries=entries, clock=clock)


def read(kind: CredentialKind, token: str, clock: Clock) -> Principal:
    return MintedTokens(RING, ISSUER, (CLERK,), clock).verify(Credential(kind, CARRIER[kind], token))


@KINDS
@given(
    role=WORD,
    permissions=st.lists(WORD, max_size=3).map(tuple),
    scopes=st.none() | st.lists(WORD, max_size=3).map(tuple),
    features=st.lists(WORD, max_size=2).map(tuple),
    impersonator=st.sampled_from([None, Impersonator("user_2"), Impersonator("user_2", "sess_2")]),
    slug=st.none() | WORD,
)
def test_what_is_minted_reads_back_as_whom_it_was_minted_for(
    kind: CredentialKind,
    role: str,
    permissions: tuple[str, ...],
    scopes: tuple[str, ...] | None,
    features: tuple[str, ...],
    impersonator: Impersonator | None,
    slug: str | None,
) -> None:
    clock = CLOCK
    organization = ClerkOrganization("org_2clerk", slug, role, permissions)
    facts: dict[str, Any] = {
        "organization": organization,
        "scopes": scopes,
        "features": features,
        "impersonator": impersonator,
    }
    who = caller(**facts, session_id="sess_9")
    if scopes is not None:
        facts["scopes"] = (*scopes, "tokens:mint")
        who = caller(**facts, session_id="sess_9")

    minted = minter(clock).fresh(kind, who)

    assert minted is not None
    proven = read(kind, minted.token, clock)
    assert proven.binding is not None
    assert (proven.kind, proven.subject, proven.issuer, proven.session_id) == (kind, "user_1", CLERK, "sess_9")
    assert {name: getattr(proven, name) for name in facts} == facts
    assert (proven.binding.user_id, proven.binding.organization_id) == ("usr_1", "org_1")
    assert (proven.expires_at, claims_of(minted.token)["aud"]) == (minted.expires_at, AUDIENCE[kind])


@KINDS
def test_token_is_handed_out_again_while_more_than_half_of_its_life_is_left(kind: CredentialKind) -> None:
    clock = CLOCK
    mint, who = minter(clock), caller()
    life_s = {WEBSOCKET: 600, AGENT: 3600}[kind]
    first = mint.current(kind, who)
    clock.now += life_s / 2 - 1
    again = mint.current(kind, Caller(who.actor, who.standing, b"another"))
    clock.now += 1
    later = mint.current(kind, who)

    assert first is not None
    assert later is not None
    assert first == again
    assert later.token != first.token
    assert (first.expires_at, later.expires_at) == (clock.now + life_s / 2, clock.now + life_s)


@pytest.mark.parametrize(
    "change",
    [
        {"session_id": "sess_2"},
        {"role": Role.ADMIN},
        {"organization": ClerkOrganization("org_2clerk", None, "member")},
        {"impersonator": Impersonator("user_2")},
        {"features": ("u:beta",)},
    ],
)
def test_other_facts_get_another_token(change: dict[str, Any]) -> None:
    mint = minter(CLOCK)

    assert mint.current(WEBSOCKET, caller()) != mint.current(WEBSOCKET, caller(**change))


@pytest.mark.parametrize(
    "facts",
    [
        {"session_id": None},
        {"kind": CredentialKind.API_TOKEN, "token_id": "atk_1", "scopes": ()},
        {"kind": CredentialKind.API_TOKEN, "token_id": "atk_1", "scopes": ("reports:read",)},
        {"kind": WEBSOCKET},
        {"kind": AGENT},
        {"kind": CredentialKind.SYSTEM_TOKEN, "session_id": None},
    ],
)
@KINDS
def test_some_callers_get_nothing(kind: CredentialKind, facts: dict[str, Any]) -> None:
    mint = minter(CLOCK)

    assert mint.current(kind, caller(**facts)) is None
    assert mint.fresh(kind, caller(**facts)) is None


@KINDS
def test_api_token_with_the_scope_gets_tokens_with_its_scopes_its_id_and_no_longer_life(kind: CredentialKind) -> None:
    clock = CLOCK
    facts: dict[str, Any] = {"kind": CredentialKind.API_TOKEN, "token_id": "atk_1", "session_id": None}
    scopes = ("reports:read", "tokens:mint")

    minted = minter(clock).current(kind, caller(**facts, scopes=scopes, expires_at=clock.now + 60.7))

    assert minted is not None
    proven = read(kind, minted.token, clock)
    assert (proven.token_id, proven.scopes, proven.session_id) == ("atk_1", scopes, None)
    assert proven.expires_at == clock.now + 60
    expired = caller(**facts, scopes=scopes, expires_at=clock.now)
    assert minter(clock).current(kind, expired) is None


def test_agent_token_says_user_whoever_it_is_for() -> None:
    mint = minter(CLOCK)
    minted = mint.current(AGENT, caller(Role.ADMIN))

    assert minted is not None
    assert claims_of(minted.token)["role"] == "USER"


def test_memory_of_minted_tokens_is_bounded() -> None:
    mint = minter(CLOCK, entries=2)
    first = mint.current(WEBSOCKET, caller())
    for number in range(5):
        mint.current(WEBSOCKET, caller(session_id=f"sess_{number + 2}"))

    assert mint.current(WEBSOCKET, caller()) != first


def test_tokens_show_in_no_representation() -> None:
    minted = minter(CLOCK).current(WEBSOCKET, caller())

    assert minted is not None
    assert minted.token not in repr(minted)
