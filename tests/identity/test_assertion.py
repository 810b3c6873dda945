"""Signed assertions: what they say, how long they are used, and what becomes of them as ring and clock move."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest

from gateway.actors.actor import Actor
from gateway.actors.beliefs import Caller
from gateway.api.well_known import WellKnown
from gateway.credentials.kinds import Carrier, CredentialKind
from gateway.errors import StoreUnavailable
from gateway.identity.assertion import LIFE_S, NO_ASSERTION, Assertions
from gateway.identity.header_set import identity_block
from gateway.verify.principal import Impersonator, Principal
from provisioning.database.pool import Database
from provisioning.key_ring import COOLDOWN_S, KeyRing
from provisioning.records import Role, Standing
from tests.support.gateway import ORIGIN, gateway_under_test, mint_token
from tests.support.rings import RULES, Clock, records_over, ring_over, started
from tests.support.tokens import person
from tests.support.wire import bearer

HALF = LIFE_S / 2


class CountingRing(KeyRing):
    """Counts signatures."""

    signatures = 0

    def sign(self, claims: Any) -> str:
        self.signatures += 1
        return super().sign(claims)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, acquire_timeout=60, statement_timeout=60) as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def ring(database: Database, clock: Clock) -> AsyncIterator[CountingRing]:
    counting = CountingRing(records_over(database), ORIGIN, RULES, clock=clock, monotonic=clock)
    async with started(counting):
        yield counting


@pytest.fixture
async def alice(database: Database) -> Standing:
    return await person(database)


@pytest.fixture
def assertions(ring: CountingRing, clock: Clock) -> Assertions:
    return Assertions(ring, {"app", "other"}, 100, clock=clock)


def caller_of(standing: Standing, *permissions: str, **facts: Any) -> Caller:
    """A caller as `Callers` makes it, of a session unless the facts say otherwise."""
    principal = Principal(
        kind=CredentialKind.SESSION,
        carrier=Carrier.HEADER,
        issuer="https://clerk.example.test",
        subject="user_alice",
        expires_at=2e9,
        **{"session_id": "sess_1", **facts},
    )
    actor = Actor(standing.user.id, Role.USER, standing.organization.id, "admin", permissions, principal)
    return Caller(actor, standing, identity_block(actor))


def token_of(line: bytes) -> str:
    name, _, value = line.decode("ascii").removesuffix("\r\n").partition(": ")
    assert name == "X-Actor-Assertion"
    return value


async def test_an_assertion_says_what_the_headers_say(
    assertions: Assertions, ring: CountingRing, alice: Standing, clock: Clock
) -> None:
    caller = caller_of(alice, "org:reports:read", impersonator=Impersonator("user_2support", None))

    claims = ring.verify(token_of(assertions.line(caller, "app")), audience="app")

    assert isinstance(claims.pop("jti"), str)
    assert claims == {
        "iss": ORIGIN,
        "aud": "app",
        "sub": alice.user.id,
        "iat": clock(),
        "exp": clock() + LIFE_S,
        "role": "USER",
        "auth": "session",
        "sid": "sess_1",
        "token_id": None,
        "scopes": ["*"],
        "org": {"id": alice.organization.id, "role": "admin", "permissions": ["org:reports:read"]},
        "plan": None,
        "flags": {},
        "act": {"sub": "user_2support"},
    }


async def test_scopes_of_a_token_are_told_as_a_list(
    assertions: Assertions, ring: CountingRing, alice: Standing
) -> None:
    line = assertions.line(caller_of(alice, scopes=("reports:read", "profile:write"), token_id="atk_1"), "app")

    claims = ring.verify(token_of(line), audience="app")

    assert (claims["scopes"], claims["token_id"]) == (["reports:read", "profile:write"], "atk_1")
    assert "act" not in claims


async def test_an_assertion_is_used_until_half_its_life(
    assertions: Assertions, ring: CountingRing, alice: Standing, clock: Clock
) -> None:
    caller = caller_of(alice)
    first = assertions.line(caller, "app")
    clock.now += HALF - 1
    same = assertions.line(caller, "app")
    clock.now += 1
    other = assertions.line(caller, "app")

    assert same is first
    assert other != first
    assert ring.signatures == 2


async def test_the_next_session_token_of_a_person_costs_no_signature(
    assertions: Assertions, ring: CountingRing, alice: Standing
) -> None:
    lines = {assertions.line(caller_of(alice), "app") for _ in range(5)}

    assert len(lines) == 1
    assert ring.signatures == 1


async def test_every_upstream_and_every_actor_has_its_own(
    assertions: Assertions, ring: CountingRing, alice: Standing
) -> None:
    caller = caller_of(alice)
    lines = {
        assertions.line(caller, "app"),
        assertions.line(caller, "other"),
        assertions.line(caller_of(alice, "org:reports:read"), "app"),
        assertions.line(caller_of(alice, session_id="sess_2"), "app"),
    }

    assert len(lines) == 4
    assert ring.signatures == 4


async def test_an_upstream_that_wants_none_costs_no_signature(
    assertions: Assertions, ring: CountingRing, alice: Standing
) -> None:
    assert assertions.line(caller_of(alice), "plain") == NO_ASSERTION
    assert ring.signatures == 0


async def test_a_clock_set_back_makes_another(
    assertions: Assertions, ring: CountingRing, alice: Standing, clock: Clock
) -> None:
    caller = caller_of(alice)
    assertions.line(caller, "app")
    clock.now -= 3600

    assert ring.verify(token_of(assertions.line(caller, "app")), audience="app")["iat"] == clock()


async def test_what_a_discarded_key_signed_is_used_no_more(
    assertions: Assertions, ring: CountingRing, alice: Standing, clock: Clock, database: Database
) -> None:
    caller = caller_of(alice)
    assertions.line(caller, "app")
    await records_over(database).rotate(clock(), clock(), discard=True)
    clock.now += COOLDOWN_S
    await ring.refresh()

    token = token_of(assertions.line(caller, "app"))

    assert jwt.get_unverified_header(token)["kid"] == ring.keys[0].kid
    assert ring.verify(token, audience="app")


async def test_an_assertion_that_no_server_would_take_is_left_empty(assertions: Assertions, alice: Standing) -> None:
    many = [f"org:feature{number}:read" for number in range(400)]

    assert assertions.line(caller_of(alice, *many), "app") == NO_ASSERTION


async def test_without_a_key_nobody_is_told_anything_unsigned(database: Database, alice: Standing) -> None:
    ring = ring_over(database, Clock())  # not started: as after a start without PostgreSQL
    with pytest.raises(StoreUnavailable):
        Assertions(ring, {"app"}, 10).line(caller_of(alice), "app")
    with pytest.raises(StoreUnavailable):
        WellKnown(ring, 300).document()


async def test_an_upstream_chooses_whether_it_wants_assertions(database_url: str) -> None:
    async with gateway_under_test(database_url) as gateway:
        received = gateway.upstream.received
        await gateway.get("/x", bearer(mint_token()))
        assert await gateway.reload(upstreams={"app": {"assertion": False}})
        await gateway.get("/x", bearer(mint_token()))
        await gateway.get("/public/x", "X-Actor-Assertion: mine")

        signed, unsigned, anonymous = (one.one("X-Actor-Assertion") for one in received)

    assert jwt.get_unverified_header(signed)["alg"] == "ES256"
    assert (unsigned, anonymous) == ("", "")


async def test_assertions_of_two_gateways_verify_by_the_keys_of_either(database_url: str) -> None:
    async with gateway_under_test(database_url) as one, gateway_under_test(database_url) as two:
        await one.get("/x", bearer(mint_token()))
        published = (await two.get("/.well-known/jwks.json")).json()
        assertion = one.upstream.received[-1].one("X-Actor-Assertion")

    key = jwt.PyJWKSet.from_dict(published)[jwt.get_unverified_header(assertion)["kid"]]
    assert jwt.decode(assertion, key, ["ES256"], audience="app", issuer=ORIGIN)["auth"] == "session"


async def test_a_running_gateway_takes_up_what_an_operator_rotates(database_url: str, database: Database) -> None:
    async with gateway_under_test(database_url, keys={"refresh_every": "20ms"}) as gateway:
        await gateway.get("/x", bearer(mint_token()))
        await records_over(database).rotate(time.time(), time.time(), discard=True)
        (row,) = await records_over(database).read()
        async with asyncio.timeout(20):
            while [key["kid"] for key in (await gateway.get("/.well-known/jwks.json")).json()["keys"]] != [row.kid]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await gateway.get("/x", bearer(mint_token()))

        first, last = (one.one("X-Actor-Assertion") for one in gateway.upstream.received)

    assert jwt.get_unverified_header(first)["kid"] != row.kid
    assert jwt.get_unverified_header(last)["kid"] == row.kid
