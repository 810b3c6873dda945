"""What Clerk answers about an opaque token, judged: good only if it says so in every respect."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.credentials.kinds import CredentialKind
from gateway.errors import CredentialRejected
from gateway.verify.machine import MachineRules
from gateway.verify.machine_answer import AnswerMalformed, read_answer
from gateway.verify.principal import Principal
from gateway.verify.session import SessionRules
from tests.support.clerk_keys import ABSENT, ISSUER
from tests.support.clerk_machines import CLIENT, GATEWAY_MACHINE, MACHINE, ORGANIZATION, USER, MachineDesk

NOW = 1_700_000_000
RULES = MachineRules(SessionRules((ISSUER,)))
TOKEN = "the token that was asked about"
KINDS = [CredentialKind.CLERK_API_KEY, CredentialKind.CLERK_OAUTH, CredentialKind.CLERK_M2M]


def document_of(kind: CredentialKind, **changes: Any) -> dict[str, Any]:
    """A good answer of Clerk's, changed."""
    desk = MachineDesk("")
    make = {KINDS[0]: desk.api_key, KINDS[1]: desk.oauth, KINDS[2]: desk.m2m}[kind]
    return desk.documents[make(**changes)]


def answered(kind: CredentialKind, rules: MachineRules = RULES, **changes: Any) -> Principal:
    return read_answer(document_of(kind, **changes), kind, TOKEN, rules, NOW)


@pytest.mark.parametrize(("kind", "subject"), list(zip(KINDS, (USER, USER, MACHINE), strict=True)))
def test_good_token_speaks_for_its_subject(kind: CredentialKind, subject: str) -> None:
    document = document_of(kind)

    principal = read_answer(document, kind, TOKEN, RULES, NOW)

    assert (principal.kind, principal.subject, principal.issuer) == (kind, subject, "")
    assert (principal.token_id, list(principal.scopes or ())) == (document["id"], document["scopes"])
    assert principal.expires_at == float("inf")


def test_api_key_of_an_organization_speaks_for_it() -> None:
    assert answered(KINDS[0], subject=ORGANIZATION).subject == ORGANIZATION


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"revoked": True}, "machine_revoked"),
        ({"expired": True}, "machine_expired"),
        ({"active": False}, "machine_inactive"),
        ({"active": None}, "machine_inactive"),
        ({"expiration": NOW}, "machine_expired"),
        ({"expiration": (NOW - 1) * 1000}, "machine_expired"),
        ({"expiration": 0}, "machine_expired"),
        ({"expiration": -5}, "machine_expired"),
    ],
)
def test_two_hundred_alone_proves_nothing(kind: CredentialKind, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(CredentialRejected) as refused:
        answered(kind, **changes)

    assert refused.value.reason == reason


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("expiration", [NOW + 60, (NOW + 60) * 1000, (NOW + 60) * 1000.0])
def test_token_lives_until_its_end_in_seconds_or_milliseconds(kind: CredentialKind, expiration: float) -> None:
    assert answered(kind, expiration=expiration).expires_at == NOW + 60


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "changes",
    [
        {"revoked": ABSENT},
        {"revoked": None},
        {"revoked": "false"},
        {"revoked": 0},
        {"expired": ABSENT},
        {"expired": "no"},
        {"expiration": "2030-01-01"},
        {"expiration": True},
        {"expiration": float("nan")},
        {"subject": ABSENT},
        {"subject": None},
        {"subject": 7},
        {"id": ABSENT},
        {"id": "two words"},
        {"id": TOKEN.replace(" ", "_")},
        {"scopes": "read write"},
        {"scopes": {"read": True}},
        {"object": "session"},
    ],
)
def test_answer_that_does_not_say_clearly_is_no_answer(kind: CredentialKind, changes: dict[str, Any]) -> None:
    with pytest.raises(AnswerMalformed):
        read_answer(document_of(kind, **changes), kind, TOKEN.replace(" ", "_"), RULES, NOW)


def test_token_made_for_another_application_or_machine_is_refused() -> None:
    rules = MachineRules(SessionRules((ISSUER,)), frozenset({CLIENT}), GATEWAY_MACHINE)
    for kind, changes, reason in (
        (KINDS[1], {"client_id": "client_other"}, "machine_client"),
        (KINDS[1], {"org_id": "org_2x"}, "machine_organization"),
        (KINDS[2], {"scopes": ["mch_other"]}, "machine_audience"),
        (KINDS[2], {"scopes": ABSENT}, "machine_audience"),
    ):
        assert answered(kind, rules).kind is kind
        with pytest.raises(CredentialRejected) as refused:
            answered(kind, rules, **changes)

        assert refused.value.reason == reason


VALUES: Any = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", USER, ORGANIZATION, MACHINE, "api_key", "ak_1"])
    | st.lists(st.none() | st.sampled_from(["read", "*", "é", ""]) | st.lists(st.integers(), max_size=1), max_size=3)
    | st.just({"a": 1})
)
MEMBERS = ["active", "object", "id", "subject", "scopes", "revoked", "expired", "expiration", "client_id", "org_id"]


@settings(max_examples=500)
@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(MEMBERS), VALUES))
def test_any_answer_is_good_bad_or_none(kind: CredentialKind, changes: dict[str, Any]) -> None:
    document = document_of(kind) | changes
    try:
        principal = read_answer(document, kind, TOKEN, RULES, NOW)
    except (CredentialRejected, AnswerMalformed):
        return

    assert document["revoked"] is False
    assert document["expired"] is False
    assert document.get("active", True) is True
    assert principal.expires_at > NOW
    assert "*" not in (principal.scopes or ())
