"""Claims into a Principal, beyond Clerk's vectors."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.credentials.kinds import Carrier
from gateway.errors import CredentialRejected
from gateway.verify.claims import VerifiedClaims, decode_permissions, read_principal
from gateway.verify.principal import ClerkOrganization, Impersonator, Principal


def _read(**claims: Any) -> Principal:
    standard = {"iss": "https://c.test", "sub": "user_1", "exp": 1}
    return read_principal(
        VerifiedClaims(standard | claims), Carrier.HEADER, ("full_name", "name"), ("primary_email", "email")
    )


V1 = {"org_id": "org_a", "org_role": "org:admin", "org_slug": "a", "org_permissions": ["org:reports:read"]}
V2 = {"fea": "o:reports", "o": {"id": "org_a", "rol": "admin", "slg": "a", "per": "read", "fpm": "1"}}
ORGANIZATION = ClerkOrganization("org_a", "a", "admin", ("org:reports:read",))


def test_j14_both_versions_give_the_same_organization() -> None:
    assert _read(**V1).organization == ORGANIZATION
    assert _read(**V1, v=1).organization == ORGANIZATION
    assert _read(**V2, v=2).organization == ORGANIZATION


def test_j14_version_decides_which_claims_are_read() -> None:
    other = {"org_id": "org_b", "org_role": "org:owner"}
    first = _read(**(V2 | other)).organization
    second = _read(**(V2 | other), v=2).organization

    assert first == ClerkOrganization("org_b", None, "owner")
    assert second == ORGANIZATION


@pytest.mark.parametrize("version", [0, 3, "2", 2.0, True, None, [2]])
def test_j14_unknown_version_is_refused(version: object) -> None:
    with pytest.raises(CredentialRejected):
        _read(**V2, v=version)


@pytest.mark.parametrize("active", ["org_a", [], {}, {"id": None}, {"id": ""}, {"id": "org_a", "rol": 1}])
def test_malformed_organization_is_refused_not_ignored(active: object) -> None:
    with pytest.raises(CredentialRejected):
        _read(v=2, o=active)


def test_j15_impersonator_is_told() -> None:
    principal = _read(act={"iss": "https://dashboard.clerk.com", "sub": "user_9", "sid": "sess_9"})

    assert principal.impersonator == Impersonator("user_9", "sess_9")
    assert principal.subject == "user_1"


@pytest.mark.parametrize("act", ["user_9", {}, {"sub": ""}, {"sub": 1}, [], False])
def test_j15_malformed_act_is_refused_not_ignored(act: object) -> None:
    with pytest.raises(CredentialRejected):
        _read(act=act)


@pytest.mark.parametrize(
    "bad", ["user_\r\nX-Actor-Role: ADMIN", "user_\0", "a b", "usér", "", "u" * 256, "\x7f", "\ud800"]
)
def test_h12_ids_that_do_not_fit_a_header_line_are_refused(bad: str) -> None:
    for claims in ({"sub": bad}, {"sid": bad}, {"org_id": bad}, {"org_id": "org_a", "org_role": bad}):
        with pytest.raises(CredentialRejected):
            _read(**claims)


def test_h12_permissions_and_slug_that_do_not_fit_a_header_line_are_dropped() -> None:
    listed = _read(org_id="o", org_slug="a\r\nb", org_permissions=["org:a:b", "x y", "z\r\n", 1]).organization
    decoded = decode_permissions("o:a,o:b c", "read,wri te", "3,1")

    assert listed == ClerkOrganization("o", None, "", ("org:a:b",))
    assert decoded == ("org:a:read",)


@pytest.mark.parametrize(
    "features, names, masks",
    [
        ("o:a", "read", "1,x"),
        ("o:a,b", "read", "1"),
        ("o:a", "read", "١"),
        ("o:a", "read", "+1"),
        ("o:a", "read", "1" * 5000),
        (None, "read", "1"),
        ("o:a", ["read"], "1"),
        ("o:a", "read", 1),
        ("u:a", "read", "1"),
    ],
)
def test_malformed_masks_grant_nothing(features: object, names: object, masks: object) -> None:
    assert decode_permissions(features, names, masks) == ()


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from(["o", "u", "uo", "ou"]), st.sampled_from("abcd")), max_size=5),
    st.lists(st.sampled_from(["read", "write", "own"]), max_size=3, unique=True),
    st.lists(st.integers(0, 9), max_size=6),
)
def test_granted_permissions_are_those_of_both_readings(
    features: list[tuple[str, str]], names: list[str], masks: list[int]
) -> None:
    def reading(entries: list[tuple[str, str]]) -> set[str]:
        pairs = zip(entries, masks, strict=False)
        return {f"org:{f}:{n}" for (s, f), m in pairs if s != "u" for b, n in enumerate(names) if m >> b & 1}

    granted = decode_permissions(",".join(f"{s}:{f}" for s, f in features), ",".join(names), ",".join(map(str, masks)))

    assert set(granted) == reading(features) & reading([entry for entry in features if entry[0] != "u"])


def test_first_usable_profile_claim_counts() -> None:
    principal = _read(full_name=" \x00 ", name=" Zoë 李 ", primary_email="a@evil.test@company.test", email="z@c.test")

    assert (principal.name, principal.email) == ("Zoë 李", "z@c.test")


@pytest.mark.parametrize("value", [1, "", " ", "a\r\nb", "\ud800", "x" * 321, None])
def test_profile_claims_that_no_store_can_hold_are_unknown(value: object) -> None:
    principal = _read(name=value, email=value)

    assert (principal.name, principal.email) == (None, None)


def test_email_is_not_shown() -> None:
    assert "z@c.test" not in repr(_read(email="z@c.test"))


@pytest.mark.parametrize("ages", [None, [0], [0, 1, 2], ["0", "0"], [-2, 0], [0.5, 0], [True, 0], {"0": 0}])
def test_malformed_factor_ages_are_unknown(ages: object) -> None:
    assert _read(fva=ages).factor_ages is None
