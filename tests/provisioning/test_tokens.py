import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from provisioning.audit import Origin
from provisioning.database.pool import Database
from provisioning.errors import (
    OwnerUnfit,
    ScopesExceeded,
    ScopesUnknown,
    SecretGone,
    TokenEnded,
    TokenExpiryInvalid,
    TokenLimitReached,
    TokenMissing,
    TokenNameInvalid,
)
from provisioning.ids import new_id
from provisioning.new_tokens import MadeToken
from provisioning.records import ApiToken, Standing, Subject
from provisioning.sealing import Sealer
from provisioning.token_rules import TokenRules, unusable
from provisioning.token_text import parse_token
from provisioning.tokens import MAX_OVERLAP_S, Tokens
from tests.support.tokens import RULES, actions, count, events, execute, person, session_of, token_of, tokens_over


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        yield opened


@pytest.fixture
def tokens(database: Database) -> Tokens:
    return tokens_over(database)


@pytest.fixture
async def alice(database: Database) -> Standing:
    return await person(database)


async def is_good(tokens: Tokens, text: str) -> bool:
    """Judge a token as the gateway does."""
    parsed = parse_token(text)
    assert parsed is not None
    found = await tokens.find(parsed.public_id)
    right = parsed.matches(found.digest if found else None)
    return found is not None and right and unusable(found, datetime.now(UTC)) is None


async def test_a_new_token_is_found_with_its_owner(tokens: Tokens, alice: Standing) -> None:
    made = await tokens.create(session_of(alice), "CI  of\n mine", ["reports:read"])
    found = await tokens.find(made.token.public_id)

    assert found is not None
    assert found.token == made.token
    assert found.standing == alice
    assert found.token.scopes == ("reports:read",)
    assert found.token.name == "CI of mine"
    assert await is_good(tokens, made.text)
    assert await tokens.find("0" * 12) is None


async def test_t05_only_a_digest_is_stored_and_a_listing_shows_no_secret(
    tokens: Tokens, alice: Standing, database: Database
) -> None:
    made = await tokens.create(session_of(alice), "CI", [])
    secret = made.text[16:59]
    async with database.connection() as connection:
        stored = str([dict(row) for row in await connection.fetch("SELECT * FROM api_tokens")])
        told = str([dict(row) for row in await connection.fetch("SELECT * FROM audit_events")])

    assert secret not in stored + told + repr(await tokens.list_of(alice.user.id)) + repr(made)
    assert made.token.public_id in stored
    assert await actions(database, alice.organization.id) == ["user.created", "api_token.created"]


async def test_audit_says_who_made_which_token_and_from_where(
    tokens: Tokens, alice: Standing, database: Database
) -> None:
    made = await tokens.create(session_of(alice), "CI", ["reports:read"])
    event = (await events(database, alice.organization.id))[-1]

    assert event["targets"] == [made.token.id, alice.user.id]
    assert (event["actor_kind"], event["actor_id"], event["address"]) == ("user", alice.user.id, "203.0.113.9")
    assert event["metadata"]["publicId"] == made.token.public_id
    assert event["metadata"]["scopes"] == ["reports:read"]


async def test_tokens_are_listed_live_ones_first_and_then_the_newest(tokens: Tokens, alice: Standing) -> None:
    first, second, third = [(await tokens.create(session_of(alice), name, [])).token for name in ("a", "b", "c")]
    await tokens.revoke(session_of(alice), third.id)

    assert [token.id for token in await tokens.list_of(alice.user.id)] == [second.id, first.id, third.id]
    assert await tokens.list_of("usr_nobody") == ()


@pytest.mark.parametrize("name", ["", " \n\0 ", "x" * 101])
async def test_a_name_is_one_line_of_a_hundred_characters(tokens: Tokens, alice: Standing, name: str) -> None:
    with pytest.raises(TokenNameInvalid):
        await tokens.create(session_of(alice), name, [])


async def test_what_a_token_may_not_be_is_refused_before_anything_is_written(
    tokens: Tokens, alice: Standing, database: Database
) -> None:
    with pytest.raises(ScopesUnknown):
        await tokens.create(session_of(alice), "CI", ["typo"])
    with pytest.raises(ScopesExceeded):
        await tokens.create(session_of(alice), "CI", ["admin"])
    with pytest.raises(TokenExpiryInvalid):
        await tokens.create(session_of(alice), "CI", [], None)

    assert await count(database, "api_tokens") == 0
    assert await actions(database, alice.organization.id) == ["user.created"]


async def test_t07_a_token_makes_changes_and_rotates_nothing_wider_than_itself(
    tokens: Tokens, alice: Standing, database: Database
) -> None:
    narrow = await token_of(database, alice, "tokens:manage", "reports:read")
    wide = (await tokens.create(session_of(alice), "wide", ["reports:write"])).token
    own = (await tokens.create(narrow, "own", ["reports:read"])).token

    with pytest.raises(ScopesExceeded):
        await tokens.create(narrow, "CI", ["reports:write"])
    with pytest.raises(ScopesExceeded):
        await tokens.change(narrow, own.id, scopes=["reports:write"])
    with pytest.raises(ScopesExceeded):
        await tokens.rotate(narrow, wide.id)

    assert (await tokens.change(narrow, own.id, scopes=["tokens:manage"])).scopes == ("tokens:manage",)
    assert (await tokens.rotate(narrow, own.id)).token.scopes == ("tokens:manage",)
    assert (await tokens.revoke(narrow, wide.id)).revoked_at is not None


@pytest.mark.parametrize("by_session", [True, False], ids=["session", "token"])
async def test_nobody_reaches_their_own_token_of_another_organization(
    tokens: Tokens, alice: Standing, database: Database, by_session: bool
) -> None:
    at_acme = await person(database, Subject("user_alice", "org_acme"))
    there = (await tokens.create(session_of(at_acme), "there", [])).token
    here = session_of(alice) if by_session else await token_of(database, alice, "tokens:manage")

    for attempt in (tokens.get, tokens.rotate, tokens.revoke, tokens.reveal, tokens.change):
        with pytest.raises(TokenMissing):
            await attempt(here, there.id)
    listed = [token.name for token in await tokens.list_of(alice.user.id, alice.organization.id)]
    assert listed == ([] if by_session else ["Maker"])
    assert await tokens.get(session_of(at_acme), there.id) == there


async def test_nobody_reaches_a_token_of_somebody_else(tokens: Tokens, alice: Standing, database: Database) -> None:
    bob = await person(database, Subject("user_bob", "org_acme"))
    alice_there = await person(database, Subject("user_alice", "org_acme"))
    hers = (await tokens.create(session_of(alice_there), "hers", [])).token

    for attempt in (tokens.get, tokens.rotate, tokens.revoke, tokens.reveal, tokens.change):
        with pytest.raises(TokenMissing):
            await attempt(session_of(bob), hers.id)
        for nothing in (new_id("atk"), "atk_nothing", "a\0b", ""):
            with pytest.raises(TokenMissing):
                await attempt(session_of(bob), nothing)
    assert await tokens.get(session_of(alice_there), hers.id) == hers


async def test_a_token_is_renamed_and_rescoped(tokens: Tokens, alice: Standing, database: Database) -> None:
    made = (await tokens.create(session_of(alice), "CI", ["reports:read"])).token

    renamed = await tokens.change(session_of(alice), made.id, name="Build")
    rescoped = await tokens.change(session_of(alice), made.id, scopes=["reports:write"])

    assert (renamed.name, renamed.scopes) == ("Build", ("reports:read",))
    assert (rescoped.name, rescoped.scopes) == ("Build", ("reports:write",))
    assert (await events(database, alice.organization.id))[-1]["metadata"]["before"] == {
        "name": "Build",
        "scopes": ["reports:read"],
    }


async def test_a_revoked_token_is_refused_for_ever(tokens: Tokens, alice: Standing, database: Database) -> None:
    made = await tokens.create(session_of(alice), "CI", [])
    revoked = await tokens.revoke(session_of(alice), made.token.id)
    again = await tokens.revoke(session_of(alice), made.token.id)

    assert revoked == again
    assert not await is_good(tokens, made.text)
    with pytest.raises(TokenEnded, match="token_revoked"):
        await tokens.change(session_of(alice), made.token.id, name="Build")
    assert (await actions(database, alice.organization.id)).count("api_token.revoked") == 1


async def test_an_operator_ends_anybody_s_token(tokens: Tokens, alice: Standing, database: Database) -> None:
    made = await tokens.create(session_of(alice), "CI", [])
    await tokens.revoke_any(made.token.id, Origin("operator", "root"))

    assert not await is_good(tokens, made.text)
    assert (await events(database, alice.organization.id))[-1]["actor_id"] == "root"


async def test_a_leaked_token_is_ended_by_who_holds_all_of_it(
    tokens: Tokens, alice: Standing, database: Database
) -> None:
    made = await tokens.create(session_of(alice), "CI", [])
    parsed = parse_token(made.text)
    assert parsed is not None

    assert await tokens.revoke_leaked(parsed.public_id, bytes(32), Origin("gateway")) is None
    assert await is_good(tokens, made.text)
    assert await tokens.revoke_leaked(parsed.public_id, parsed.digest(), Origin("gateway")) is not None
    assert not await is_good(tokens, made.text)
    assert (await events(database, alice.organization.id))[-1]["metadata"]["cause"] == "leaked"


async def test_per_user_holds_when_all_come_at_once(tokens: Tokens, alice: Standing, database: Database) -> None:
    async def attempt(number: int) -> ApiToken | None:
        try:
            return (await tokens.create(session_of(alice), f"CI {number}", [])).token
        except TokenLimitReached:
            return None

    made = [token for token in await asyncio.gather(*(attempt(number) for number in range(40))) if token]

    assert len(made) == RULES.per_user == await count(database, "api_tokens")


async def test_ended_and_replaced_tokens_make_room(tokens: Tokens, alice: Standing, database: Database) -> None:
    made = [(await tokens.create(session_of(alice), "CI", [])).token for _ in range(RULES.per_user)]
    await tokens.rotate(session_of(alice), made[0].id)  # takes no room

    with pytest.raises(TokenLimitReached):
        await tokens.create(session_of(alice), "CI", [])
    await tokens.revoke(session_of(alice), made[1].id)
    await tokens.create(session_of(alice), "CI", [])
    await execute(database, "UPDATE api_tokens SET expires_at = now() WHERE id = $1", made[2].id)
    await tokens.create(session_of(alice), "CI", [])
    with pytest.raises(TokenLimitReached):
        await tokens.create(session_of(alice), "CI", [])


async def test_the_limit_is_each_person_s_own(tokens: Tokens, alice: Standing, database: Database) -> None:
    bob = await person(database, Subject("user_bob"))
    for _ in range(RULES.per_user):
        await tokens.create(session_of(alice), "CI", [])

    assert await is_good(tokens, (await tokens.create(session_of(bob), "CI", [])).text)


async def test_t04_both_tokens_are_good_during_the_overlap_and_then_only_the_new_one(
    tokens: Tokens, alice: Standing, database: Database
) -> None:
    old = await tokens.create(session_of(alice), "CI", ["reports:read"])
    new = await tokens.rotate(session_of(alice), old.token.id, 600)
    during = [await is_good(tokens, made.text) for made in (old, new)]
    left = await tokens.get(session_of(alice), old.token.id)
    await execute(database, "UPDATE api_tokens SET expires_at = now() WHERE id = $1", old.token.id)
    after = [await is_good(tokens, made.text) for made in (old, new)]

    assert during == [True, True]
    assert after == [False, True]
    assert left.replaced_by == new.token.id
    assert left.expires_at is not None
    assert timedelta(seconds=590) < left.expires_at - datetime.now(UTC) <= timedelta(seconds=600)
    assert (new.token.name, new.token.scopes) == ("CI", ("reports:read",))
    assert (new.token.expires_at or datetime.max.replace(tzinfo=UTC)) - new.token.created_at == timedelta(days=180)
    event = (await events(database, alice.organization.id))[-1]
    assert (event["action"], event["metadata"]["replacedBy"]) == ("api_token.rotated", new.token.id)


async def test_an_overlap_does_not_lengthen_a_life(tokens: Tokens, alice: Standing) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=60)
    old = await tokens.create(session_of(alice), "CI", [], soon)
    await tokens.rotate(session_of(alice), old.token.id, 3600)

    assert (await tokens.get(session_of(alice), old.token.id)).expires_at == soon


async def test_rotation_without_overlap_ends_the_old_token_at_once(tokens: Tokens, alice: Standing) -> None:
    old = await tokens.create(session_of(alice), "CI", [])
    new = await tokens.rotate(session_of(alice), old.token.id, 0)

    assert [await is_good(tokens, made.text) for made in (old, new)] == [False, True]


async def test_of_ten_rotations_at_once_one_succeeds(tokens: Tokens, alice: Standing, database: Database) -> None:
    old = await tokens.create(session_of(alice), "CI", [])
    results = await asyncio.gather(
        *(tokens.rotate(session_of(alice), old.token.id) for _ in range(10)), return_exceptions=True
    )

    assert sum(isinstance(result, MadeToken) for result in results) == 1
    assert {str(result) for result in results if isinstance(result, TokenEnded)} == {"token_replaced"}
    assert await count(database, "api_tokens") == 2


async def test_no_more_than_two_tokens_of_a_line_are_good(tokens: Tokens, alice: Standing) -> None:
    first = await tokens.create(session_of(alice), "CI", [])
    second = await tokens.rotate(session_of(alice), first.token.id, MAX_OVERLAP_S)
    third = await tokens.rotate(session_of(alice), second.token.id, MAX_OVERLAP_S)

    assert [await is_good(tokens, made.text) for made in (first, second, third)] == [False, True, True]


@pytest.mark.parametrize("overlap_s", [-1, MAX_OVERLAP_S + 1, float("nan")])
async def test_an_overlap_outside_its_bounds_is_refused(tokens: Tokens, alice: Standing, overlap_s: float) -> None:
    old = await tokens.create(session_of(alice), "CI", [])

    with pytest.raises(TokenExpiryInvalid, match="overlap_invalid"):
        await tokens.rotate(session_of(alice), old.token.id, overlap_s)


async def test_an_expired_token_cannot_be_brought_back(tokens: Tokens, alice: Standing, database: Database) -> None:
    old = await tokens.create(session_of(alice), "CI", [])
    await execute(database, "UPDATE api_tokens SET expires_at = now()")

    for attempt in (tokens.rotate, tokens.change, tokens.reveal):
        with pytest.raises(TokenEnded, match="token_expired"):
            await attempt(session_of(alice), old.token.id)
    assert (await tokens.revoke(session_of(alice), old.token.id)).revoked_at is None


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE users SET disabled_at = now()", "user_disabled"),
        ("UPDATE users SET deleted_at = now()", "user_deleted"),
        ("DELETE FROM memberships", "organization_left"),
    ],
)
async def test_t02_rights_are_those_of_the_owner_now(
    tokens: Tokens, alice: Standing, database: Database, statement: str, reason: str
) -> None:
    made = await tokens.create(session_of(alice), "CI", [])
    await execute(database, statement)
    found = await tokens.find(made.token.public_id)

    assert found is not None
    assert unusable(found, datetime.now(UTC)) == reason
    for attempt in (tokens.create(session_of(alice), "CI", []), tokens.rotate(session_of(alice), made.token.id)):
        with pytest.raises(OwnerUnfit, match=reason):
            await attempt


async def test_an_administrator_who_is_one_no_longer_cannot_rotate_into_a_fresh_admin_token(
    tokens: Tokens, alice: Standing, database: Database
) -> None:
    await execute(database, "UPDATE users SET role = 'ADMIN'")
    made = await tokens.create(session_of(alice), "CI", ["admin"])
    await execute(database, "UPDATE users SET role = 'USER'")

    with pytest.raises(ScopesExceeded):
        await tokens.rotate(session_of(alice), made.token.id)


async def test_the_first_token_is_revealed_once_and_erased(tokens: Tokens, database: Database) -> None:
    alice = await person(database, first_token=True)
    (first,) = await tokens.list_of(alice.user.id)

    made = await tokens.reveal(session_of(alice), first.id)

    assert first.revealable
    assert (first.name, first.scopes) == ("First token", RULES.scopes)
    assert await is_good(tokens, made.text)
    assert not made.token.revealable
    assert await count(database, "api_tokens WHERE sealed_secret IS NOT NULL OR sealed_until IS NOT NULL") == 0
    with pytest.raises(SecretGone):
        await tokens.reveal(session_of(alice), first.id)
    assert await actions(database, alice.organization.id) == [
        "user.created",
        "api_token.created",
        "api_token.revealed",
    ]


async def test_of_ten_who_reveal_at_once_one_sees_the_secret(tokens: Tokens, database: Database) -> None:
    alice = await person(database, first_token=True)
    (first,) = await tokens.list_of(alice.user.id)
    results = await asyncio.gather(
        *(tokens.reveal(session_of(alice), first.id) for _ in range(10)), return_exceptions=True
    )

    assert sum(isinstance(result, MadeToken) for result in results) == 1
    assert sum(isinstance(result, SecretGone) for result in results) == 9


async def test_a_secret_unread_for_its_time_is_not_revealed(tokens: Tokens, database: Database) -> None:
    alice = await person(database, first_token=True)
    (first,) = await tokens.list_of(alice.user.id)
    await execute(database, "UPDATE api_tokens SET sealed_until = now()")

    with pytest.raises(SecretGone):
        await tokens.reveal(session_of(alice), first.id)


async def test_another_master_key_reveals_nothing_and_erases_nothing(tokens: Tokens, database: Database) -> None:
    alice = await person(database, first_token=True)
    (first,) = await tokens.list_of(alice.user.id)
    stranger = Tokens(database, Sealer("another-master-key-of-enough-characters", "one-time secrets"), RULES)

    with pytest.raises(SecretGone, match="seal_broken"):
        await stranger.reveal(session_of(alice), first.id)

    assert await is_good(tokens, (await tokens.reveal(session_of(alice), first.id)).text)


async def test_a_sealed_secret_opens_only_in_its_own_row(tokens: Tokens, database: Database) -> None:
    alice = await person(database, first_token=True)
    other = (await tokens.create(session_of(alice), "other", [])).token
    await execute(
        database,
        """UPDATE api_tokens SET (sealed_secret, sealed_until) =
           (SELECT sealed_secret, sealed_until FROM api_tokens WHERE sealed_secret IS NOT NULL) WHERE id = $1""",
        other.id,
    )

    with pytest.raises(SecretGone, match="seal_broken"):
        await tokens.reveal(session_of(alice), other.id)


async def test_t07_a_token_does_not_reveal_a_wider_one(tokens: Tokens, database: Database) -> None:
    alice = await person(database, first_token=True)
    (first,) = await tokens.list_of(alice.user.id)
    narrow = await token_of(database, alice, "tokens:manage")

    with pytest.raises(ScopesExceeded):
        await tokens.reveal(narrow, first.id)


async def test_revoking_and_rotating_erase_what_nobody_read(tokens: Tokens, database: Database) -> None:
    alice = await person(database, first_token=True)
    bob = await person(database, Subject("user_bob"), first_token=True)
    await tokens.revoke(session_of(alice), (await tokens.list_of(alice.user.id))[0].id)
    await tokens.rotate(session_of(bob), (await tokens.list_of(bob.user.id))[0].id)

    assert await count(database, "api_tokens WHERE sealed_secret IS NOT NULL") == 0


async def test_a_token_without_end_is_made_where_that_is_allowed(alice: Standing, database: Database) -> None:
    tokens = tokens_over(database, TokenRules(None, None))
    made = await tokens.create(session_of(alice), "CI", [])

    assert made.token.expires_at is None
    assert (await tokens.rotate(session_of(alice), made.token.id, 60)).token.expires_at is None
    assert (await tokens.get(session_of(alice), made.token.id)).expires_at is not None
