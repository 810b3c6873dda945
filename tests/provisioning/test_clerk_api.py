import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning.clerk_api import COOLDOWN_MAX_S, COOLDOWN_MIN_S, ClerkApi, cooldown_s, profile_in
from provisioning.profile import Profile
from tests.support.clerk_backend import SECRET_KEY, ClerkBackend, Failure

ALICE = "user_alice"
GENEROUS_S = 5.0


@pytest.fixture
async def backend() -> AsyncIterator[ClerkBackend]:
    async with ClerkBackend().running() as running:
        running.add_user(ALICE)
        running.add_organization("org_acme", "Acme")
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def api_for(backend: ClerkBackend, session: aiohttp.ClientSession, **more: Any) -> ClerkApi:
    return ClerkApi(session, backend.url, SECRET_KEY, **more)


async def test_name_and_verified_primary_email_are_read(backend: ClerkBackend, session: aiohttp.ClientSession) -> None:
    profile = await api_for(backend, session, deadline_s=GENEROUS_S).user_profile(ALICE)

    assert profile == Profile("Alice Ng", "alice@example.com", "alice@example.com")


async def test_unverified_email_is_not_taken(backend: ClerkBackend, session: aiohttp.ClientSession) -> None:
    backend.add_user(ALICE, verified=False)

    profile = await api_for(backend, session, deadline_s=GENEROUS_S).user_profile(ALICE)

    assert profile == Profile("Alice Ng", None)


async def test_organization_name_is_read(backend: ClerkBackend, session: aiohttp.ClientSession) -> None:
    name = await api_for(backend, session, deadline_s=GENEROUS_S).organization_name("org_acme")

    assert name == "Acme"


async def test_without_a_secret_key_nothing_is_asked(backend: ClerkBackend, session: aiohttp.ClientSession) -> None:
    api = ClerkApi(session, backend.url, None)

    assert await api.user_profile(ALICE) is None
    assert backend.asked == []


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        ("rate_limited", "rate_limited"),
        ("failed", "failed"),
        ("hang", "timeout"),
        ("slow_body", "timeout"),
        ("garbage", "malformed"),
        ("html", "malformed"),
        ("array", "malformed"),
        ("redirect", "refused"),
        ("reset", "unreachable"),
    ],
)
async def test_every_failure_is_none_with_a_counted_reason(
    backend: ClerkBackend, session: aiohttp.ClientSession, failure: Failure, outcome: str
) -> None:
    backend.failure = failure
    api = api_for(backend, session, deadline_s=0.6 if outcome == "timeout" else GENEROUS_S)

    assert await api.user_profile(ALICE) is None
    assert {word: count for word, count in api.outcomes.items() if count} == {outcome: 1}


async def test_a_body_over_the_cap_is_not_read(backend: ClerkBackend, session: aiohttp.ClientSession) -> None:
    backend.failure = "huge"
    api = api_for(backend, session, deadline_s=GENEROUS_S)

    assert await api.user_profile(ALICE) is None
    assert api.outcomes["malformed"] == 1


async def test_a_redirect_does_not_take_the_secret_key_along(
    backend: ClerkBackend, session: aiohttp.ClientSession
) -> None:
    backend.failure = "redirect"

    await api_for(backend, session, deadline_s=GENEROUS_S).user_profile(ALICE)

    assert backend.asked == [f"/v1/users/{ALICE}"]


async def test_a_dead_address_is_unreachable(session: aiohttp.ClientSession) -> None:
    api = ClerkApi(session, "http://127.0.0.1:1/v1", SECRET_KEY, deadline_s=GENEROUS_S)

    assert await api.user_profile(ALICE) is None
    assert api.outcomes["unreachable"] == 1


async def test_a_person_clerk_does_not_know_is_none(backend: ClerkBackend, session: aiohttp.ClientSession) -> None:
    api = api_for(backend, session, deadline_s=GENEROUS_S)

    assert await api.user_profile("user_nobody") is None
    assert api.outcomes["absent"] == 1


async def test_after_429_nobody_asks_until_retry_after_is_over(
    backend: ClerkBackend, session: aiohttp.ClientSession
) -> None:
    clock = Clock()
    api = api_for(backend, session, clock=clock, deadline_s=GENEROUS_S)
    backend.failure, backend.retry_after = "rate_limited", "7"
    await api.user_profile(ALICE)
    backend.failure = None
    clock.now += 6.9
    during = await api.user_profile(ALICE)
    clock.now += 0.2
    after = await api.user_profile(ALICE)

    assert during is None
    assert after is not None
    assert len(backend.asked) == 2
    assert api.outcomes["cooling_down"] == 1


async def test_one_flight_per_person(backend: ClerkBackend, session: aiohttp.ClientSession) -> None:
    backend.delay_s = 0.05
    api = api_for(backend, session, deadline_s=GENEROUS_S)

    profiles = await asyncio.gather(*(api.user_profile(ALICE) for _ in range(50)))

    assert set(profiles) == {Profile("Alice Ng", "alice@example.com", "alice@example.com")}
    assert len(backend.asked) == 1


async def test_a_waiter_that_gives_up_leaves_the_others_their_answer(
    backend: ClerkBackend, session: aiohttp.ClientSession
) -> None:
    backend.delay_s = 0.05
    api = api_for(backend, session, deadline_s=GENEROUS_S)
    first = asyncio.create_task(api.user_profile(ALICE))
    second = asyncio.create_task(api.user_profile(ALICE))
    await asyncio.sleep(0.01)
    first.cancel()

    assert await second == Profile("Alice Ng", "alice@example.com", "alice@example.com")


async def test_an_id_cannot_leave_its_place_in_the_address(
    backend: ClerkBackend, session: aiohttp.ClientSession
) -> None:
    await api_for(backend, session, deadline_s=GENEROUS_S).user_profile("../organizations/org_acme?x=#y")

    assert backend.asked == ["/v1/users/..%2Forganizations%2Forg_acme%3Fx%3D%23y"]


async def test_a_session_with_proxies_from_the_environment_is_refused() -> None:
    async with aiohttp.ClientSession(trust_env=True) as session:
        with pytest.raises(ValueError, match="proxy"):
            ClerkApi(session, "https://api.clerk.com/v1", SECRET_KEY)


async def test_a_hanging_clerk_costs_no_more_than_the_deadline(
    backend: ClerkBackend, session: aiohttp.ClientSession
) -> None:
    backend.failure = "hang"
    began = time.monotonic()

    await api_for(backend, session).user_profile(ALICE)

    assert time.monotonic() - began < GENEROUS_S


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
user_keys = st.sampled_from(["first_name", "last_name", "username", "primary_email_address_id", "email_addresses"])


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(user_keys, json_values))
def test_any_document_is_read_without_an_error(document: dict[str, Any]) -> None:
    profile = profile_in(document)

    assert profile.name is None or profile.name.strip() == profile.name != ""
    assert profile.email is None


@settings(max_examples=200, deadline=None)
@given(st.none() | st.text() | st.integers().map(str))
def test_cooldown_stays_within_its_bounds(text: str | None) -> None:
    assert COOLDOWN_MIN_S <= cooldown_s(text) <= COOLDOWN_MAX_S
