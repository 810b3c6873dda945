"""Which of Clerk's machine tokens something claims to be: by its shape alone, and before anybody is asked."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.credentials.find import Marks, find_credentials, may_pass
from gateway.credentials.kinds import Carrier, CredentialKind
from gateway.credentials.machine import MACHINE, OPAQUE, prefixes_of
from gateway.credentials.session_cookie import CookieRules
from gateway.errors import CredentialMalformed
from tests.support.clerk_keys import ISSUER, mint_token
from tests.support.clerk_machines import mint_m2m, mint_oauth

OWN_ISSUER = "https://gateway.example.test"
MARKS = Marks(frozenset({ISSUER}), prefixes_of(MACHINE))


def kind_of(token: str) -> CredentialKind:
    """What a bearer is taken for."""
    (found,) = find_credentials(b"Bearer " + token.encode(), None, [], CookieRules(), 0, OWN_ISSUER)
    return found.kind


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        ("ak_LCWGdaM8mv8K4PC/57IICZQXAeWfCgF30DZaFXHoGn9=", CredentialKind.CLERK_API_KEY),
        ("oat_8XOIucKvqHVr5tYP123456789abcdefghij", CredentialKind.CLERK_OAUTH),
        ("mt_8XOIucKvqHVr5tYP123456789abcdefghij", CredentialKind.CLERK_M2M),
        ("ak_", CredentialKind.CLERK_API_KEY),
        ("AK_8XOIucKvqHVr5tYP", CredentialKind.SESSION),
        ("m2m_8XOIucKvqHVr5tYP", CredentialKind.SESSION),
        ("xak_8XOIucKvqHVr5tYP", CredentialKind.SESSION),
        ("oat", CredentialKind.SESSION),
    ],
)
def test_opaque_tokens_are_told_by_their_prefix(token: str, kind: CredentialKind) -> None:
    assert kind_of(token) is kind


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        (mint_oauth(), CredentialKind.CLERK_OAUTH),
        (mint_oauth({"typ": "application/at+jwt"}), CredentialKind.CLERK_OAUTH),
        (mint_oauth({"typ": "AT+JWT"}), CredentialKind.SESSION),
        (mint_oauth({"typ": ["at+jwt"]}), CredentialKind.SESSION),
        (mint_m2m(), CredentialKind.CLERK_M2M),
        (mint_m2m({"cat": "cl_B7d4PD111AAA"}), CredentialKind.CLERK_M2M),
        (mint_m2m({"typ": "at+jwt"}), CredentialKind.CLERK_M2M),
        (mint_token(), CredentialKind.SESSION),
        (mint_token(header={"cat": "cl_B7d4PD333AAA"}), CredentialKind.SESSION),
        (mint_oauth(iss=OWN_ISSUER, aud="agent"), CredentialKind.AGENT_TOKEN),
        ("eyJ.eyJ.x", CredentialKind.SESSION),
    ],
)
def test_jwts_are_told_by_what_they_say_of_themselves(token: str, kind: CredentialKind) -> None:
    assert kind_of(token) is kind


def test_they_are_carried_as_a_bearer_alone() -> None:
    for token in ("ak_8XOIucKvqHVr5tYP", mint_m2m()):
        assert find_credentials(None, token.encode(), [], CookieRules(), 0) == ()
        (found,) = find_credentials(None, None, [f"__session={token}; __client_uat=1".encode()], CookieRules(), 0)
        assert (found.kind, found.carrier) == (CredentialKind.SESSION, Carrier.COOKIE)


@pytest.mark.parametrize("token", ["ak_8XOIucKvqHVr5tYP", "oat_8XOIucKvqHVr5tYP", "mt_8XOIucKvqHVr5tYP"])
def test_opaque_ones_are_the_applications_where_no_route_takes_them(token: str) -> None:
    value = b"Bearer " + token.encode()

    assert may_pass(value, Marks(frozenset({ISSUER})))
    assert not may_pass(value, MARKS)
    assert not may_pass(token.encode(), MARKS)


@pytest.mark.parametrize("token", [mint_oauth(), mint_m2m()])
def test_jwts_of_our_instance_never_pass(token: str) -> None:
    assert not may_pass(b"Bearer " + token.encode(), Marks(frozenset({ISSUER})))
    assert may_pass(b"Bearer " + mint_oauth(iss="https://other.test").encode(), MARKS)


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["at+jwt", "mch_x", ISSUER]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=4), children, max_size=3),
    max_leaves=6,
)
PARTS = st.fixed_dictionaries({}, optional={"typ": JSON, "cat": JSON, "alg": JSON, "kid": JSON})
CLAIMS = st.fixed_dictionaries({}, optional={"sub": JSON, "iss": JSON, "aud": JSON})
PREFIXED = st.sampled_from([*OPAQUE, b"agt_", b"ags_", b"eyJ", b""])


@settings(max_examples=300)
@given(PREFIXED, st.binary(max_size=60) | st.from_regex(rb"[A-Za-z0-9._~+/=-]*", fullmatch=True))
def test_any_bearer_is_malformed_or_of_one_kind(prefix: bytes, rest: bytes) -> None:
    token = prefix + rest
    try:
        found = find_credentials(b"Bearer " + token, None, [], CookieRules(), 0, OWN_ISSUER)
    except CredentialMalformed:
        return

    assert len(found) == 1
    named = {kind for mark, kind in OPAQUE.items() if token.startswith(mark)}
    if not token.startswith((b"agt_", b"ags_")):
        assert {found[0].kind} & MACHINE == named  # whatever has no prefix here is no readable JWT


@settings(max_examples=300, deadline=None)
@given(PARTS, CLAIMS)
def test_any_jwt_is_of_one_kind(header: dict[str, Any], claims: dict[str, Any]) -> None:
    kind = kind_of(mint_token(header=header, **claims))

    subject, wanted = claims.get("sub", "user_x"), header.get("typ", "JWT")
    if claims.get("iss") != OWN_ISSUER:
        machine = isinstance(subject, str) and subject.startswith("mch_")
        oauth = wanted in ("at+jwt", "application/at+jwt") if isinstance(wanted, str) else False
        expected = CredentialKind.CLERK_OAUTH if oauth else CredentialKind.SESSION
        assert kind is (CredentialKind.CLERK_M2M if machine else expected)
