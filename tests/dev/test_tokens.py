"""What the local issuer's tokens say is what Clerk's would."""

from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dev.personas import PERSONAS, Membership, Organization, Persona, clerk_like_id, find_membership
from gateway.dev.tokens import SigningKey, session_claims
from tests.dev.places import GATEWAY, NOW, a_mint, a_place, signing_key

ISSUER = "http://127.0.0.1:5555"
BY_NAME = {persona.name: persona for persona in PERSONAS}


def claims_of(persona: Persona, organization: str | None = None) -> dict[str, Any]:
    membership = find_membership(persona, organization)
    return session_claims(persona, membership, issuer=ISSUER, origin=GATEWAY, now=NOW, token_id="t")


def granted(claims: Mapping[str, Any]) -> set[str]:
    """Read the masks as Clerk's documentation does: over every entry of `fea`, for those with an organization scope."""
    organization = claims.get("o", {})
    names, masks = organization.get("per"), organization.get("fpm")
    if not names or not masks:
        return set()
    entries = [entry.split(":") for entry in claims["fea"].split(",")]
    return {
        f"org:{feature}:{name}"
        for (scope, feature), mask in zip(entries, masks.split(","), strict=False)
        for bit, name in enumerate(names.split(","))
        if "o" in scope and int(mask) >> bit & 1
    }


@pytest.mark.parametrize("persona", PERSONAS, ids=lambda persona: persona.name)
def test_common_claims_are_those_of_a_session_that_lives_an_hour(persona: Persona) -> None:
    claims = claims_of(persona)

    assert (claims["v"], claims["iss"], claims["azp"]) == (2, ISSUER, GATEWAY)
    assert (claims["iat"], claims["nbf"], claims["exp"]) == (NOW, NOW - 10, NOW + 3600)
    assert claims["sub"] == persona.id
    assert claims["sid"].startswith("sess_")
    assert claims["fva"] == [0, -1]


def test_admin_has_the_role_without_prefix_and_all_permissions() -> None:
    claims = claims_of(BY_NAME["alice"])

    assert claims["o"]["rol"] == "admin"
    assert claims["o"]["slg"] == "acme"
    assert claims["fea"] == "o:reports,o:billing,u:beta"
    assert granted(claims) == {"org:reports:read", "org:reports:write", "org:billing:read", "org:billing:write"}


def test_member_without_permissions_has_no_masks() -> None:
    organization = claims_of(BY_NAME["bob"])["o"]

    assert set(organization) == {"id", "slg", "rol"}


def test_persona_alone_has_no_organization_and_the_user_s_plan() -> None:
    claims = claims_of(BY_NAME["carol"])

    assert "o" not in claims
    assert claims["pla"] == "u:free_user"


def test_persona_of_two_organizations_has_the_chosen_one() -> None:
    claims = claims_of(BY_NAME["dave"], "globex")

    assert claims["o"]["slg"] == "globex"
    assert claims["pla"] == "o:free_org"


def test_impersonated_persona_names_who_acts() -> None:
    claims = claims_of(BY_NAME["erin"])

    assert claims["sub"] == BY_NAME["erin"].id
    assert claims["act"]["sub"] == BY_NAME["support"].id


def test_only_mallory_s_session_is_pending() -> None:
    pending = [persona.name for persona in PERSONAS if claims_of(persona)["sts"] == "pending"]

    assert pending == ["mallory"]


def test_minted_token_verifies_against_the_shown_keys() -> None:
    place = a_place()
    alice = BY_NAME["alice"]
    token = a_mint(place).token(alice, find_membership(alice, None), now=NOW)
    unverified_header = jwt.get_unverified_header(token)
    shown = jwt.PyJWKSet.from_dict(signing_key().jwks())[unverified_header["kid"]]

    claims = jwt.decode(
        token,
        shown,
        algorithms=["RS256"],
        issuer=place.issuer_url,
        options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
    )

    assert unverified_header == {
        "alg": "RS256",
        "typ": "JWT",
        "cat": "cl_B7d4PD111AAA",
        "kid": signing_key().instance_id,
    }
    assert claims["sub"] == alice.id


def test_shown_key_is_written_as_clerk_writes_it() -> None:
    (key,) = signing_key().jwks()["keys"]

    assert (key["use"], key["kty"], key["alg"], key["e"]) == ("sig", "RSA", "RS256", "AQAB")
    assert key["kid"].startswith("ins_")
    assert set(key) == {"use", "kty", "kid", "alg", "n", "e"}


def test_key_survives_its_pem_and_stays_out_of_the_repr() -> None:
    read = SigningKey.from_pem(signing_key().pem)

    assert read.jwks() == signing_key().jwks()
    assert "RSA" not in repr(read)


@given(st.binary(max_size=200))
def test_nonsense_is_no_key(pem: bytes) -> None:
    with pytest.raises(ValueError):
        SigningKey.from_pem(pem)


words = st.text("abcdefgh_-", min_size=1, max_size=8)


@st.composite
def memberships(draw: st.DrawFn) -> Membership:
    features = draw(st.lists(words, min_size=1, max_size=6, unique=True))
    permissions = draw(st.sets(st.tuples(st.sampled_from(features), words), max_size=70))
    names = tuple(f"org:{feature}:{name}" for feature, name in sorted(permissions))
    return Membership(Organization("acme", "Acme", tuple(features), "pro"), "member", names)


@settings(max_examples=200)
@given(memberships(), st.lists(words, max_size=3, unique=True))
def test_masks_grant_what_the_membership_grants(membership: Membership, own: list[str]) -> None:
    persona = Persona("x", "X", "X", "", (membership,), user_features=tuple(own))

    claims = session_claims(persona, membership, issuer=ISSUER, origin=GATEWAY, now=NOW, token_id="t")

    assert granted(claims) == set(membership.permissions)


@given(words, st.text(max_size=20))
def test_ids_look_like_clerk_s_and_repeat(prefix: str, seed: str) -> None:
    made = clerk_like_id(prefix, seed)

    assert made == clerk_like_id(prefix, seed)
    assert made.startswith(f"{prefix}_")
    assert len(made) == len(prefix) + 28
    assert made[-27:].isalnum()
