from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.grammar import BUILT_IN_SCOPES
from config.model import Tokens as TokenSettings
from provisioning.errors import ScopesExceeded, ScopesUnknown, TokenExpiryInvalid
from provisioning.records import ApiToken, FoundToken, Organization, Role, User
from provisioning.token_rules import Expiry, TokenRules, check_gift, held, unusable

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
RULES = TokenRules(30 * 86400.0, 90 * 86400.0, 20, ("reports:read", "reports:write"))
FREE = TokenRules(None, None)
TOKEN = ApiToken("atk_1", "0123456789AB", "CI", ("reports:read",), "usr_1", "org_1", NOW - DAY, NOW + DAY)
FOUND = FoundToken(
    TOKEN,
    bytes(32),
    User("usr_1", "user_1", Role.USER, NOW, NOW),
    Organization("org_1", None, "One", NOW, NOW),
    "member",
)
scopes = st.lists(st.sampled_from([*sorted(BUILT_IN_SCOPES), *RULES.scopes]))


def test_a_token_lives_as_long_as_the_default_unless_its_maker_says() -> None:
    assert RULES.expires_at(Expiry.DEFAULT, NOW) == NOW + 30 * DAY
    assert RULES.expires_at(NOW + 90 * DAY, NOW) == NOW + 90 * DAY
    assert FREE.expires_at(Expiry.DEFAULT, NOW) is None
    assert FREE.expires_at(None, NOW) is None
    assert FREE.expires_at(NOW + 9999 * DAY, NOW) == NOW + 9999 * DAY


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (None, "expiry_never"),
        (NOW, "expiry_past"),
        (NOW - DAY, "expiry_past"),
        (NOW + 91 * DAY, "expiry_too_late"),
    ],
)
def test_an_end_outside_the_rules_is_refused(asked: datetime | None, reason: str) -> None:
    with pytest.raises(TokenExpiryInvalid) as refused:
        RULES.expires_at(asked, NOW)

    assert refused.value.reason == reason


def test_a_default_that_nobody_wrote_gives_way_to_a_shorter_longest_life() -> None:
    rules = TokenRules.of(TokenSettings(max_life=86400.0))

    assert rules.expires_at(Expiry.DEFAULT, NOW) == NOW + DAY


def test_a_rotated_token_lives_as_long_again_within_the_rules() -> None:
    forever = replace(TOKEN, expires_at=None)

    assert RULES.renewed(TOKEN, NOW) == NOW + 2 * DAY
    assert RULES.renewed(replace(TOKEN, expires_at=NOW + 200 * DAY), NOW) == NOW + 90 * DAY
    assert RULES.renewed(forever, NOW) == NOW + 90 * DAY
    assert FREE.renewed(forever, NOW) is None


def test_unknown_scopes_are_named() -> None:
    with pytest.raises(ScopesUnknown) as refused:
        RULES.checked_scopes(["reports:read", "zoo", "admin", "ant"])

    assert refused.value.scopes == ("ant", "zoo")


def test_scopes_count_once_in_the_order_given() -> None:
    assert RULES.checked_scopes(["tokens:mint", "reports:read", "tokens:mint"]) == ("tokens:mint", "reports:read")


def exceeding(gift: list[str], own: list[str], role: Role) -> set[str]:
    try:
        check_gift(gift, own, role)
    except ScopesExceeded as refused:
        return set(refused.scopes)
    return set()


@given(scopes, scopes, st.sampled_from([Role.USER, Role.ADMIN]))
def test_nobody_gives_more_than_they_hold(gift: list[str], own: list[str], role: Role) -> None:
    given_away = set(gift) - exceeding(gift, own, role)

    assert given_away == set(gift) & set(held(own, role))
    assert given_away <= set(own)


def test_a_session_gives_all_but_what_needs_an_administrator() -> None:
    check_gift(sorted(BUILT_IN_SCOPES), None, Role.ADMIN)

    with pytest.raises(ScopesExceeded) as refused:
        check_gift(sorted(BUILT_IN_SCOPES), None, Role.USER)

    assert refused.value.scopes == ("admin", "rate-limit:unlimited")


def test_t02_an_owner_who_is_no_administrator_any_more_has_no_admin_token() -> None:
    assert held(("reports:read", "admin"), Role.ADMIN) == ("reports:read", "admin")
    assert held(("reports:read", "admin"), Role.USER) == ("reports:read",)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (FOUND, None),
        (replace(FOUND, token=replace(TOKEN, expires_at=None)), None),
        (replace(FOUND, token=replace(TOKEN, expires_at=NOW)), "token_expired"),
        (replace(FOUND, token=replace(TOKEN, revoked_at=NOW - DAY)), "token_revoked"),
        (replace(FOUND, user=replace(FOUND.user, disabled_at=NOW)), "user_disabled"),
        (replace(FOUND, user=replace(FOUND.user, deleted_at=NOW)), "user_deleted"),
        (replace(FOUND, organization_role=None), "organization_left"),
    ],
)
def test_t02_every_reason_why_a_token_no_longer_counts_has_a_word(found: FoundToken, reason: str | None) -> None:
    assert unusable(found, NOW) == reason
    assert (found.standing is None) == (found.organization_role is None)
