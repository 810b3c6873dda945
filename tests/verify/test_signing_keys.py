"""Fetching signing keys from a real server, on a clock we turn."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.errors import CredentialRejected, VerifierUnavailable
from gateway.verify.signing_keys import PROBE_S, FetchResult, SigningKeys
from tests.support import jwks_server
from tests.support.clerk_keys import KID, jwk, jwks
from tests.support.jwks_server import JwksServer, serve_jwks

TTL, COOLDOWN, CEILING = 300.0, 10.0, 3600.0


class Clock:
    """A monotonic clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def _running(server: JwksServer, clock: Callable[[], float], ttl: float = TTL) -> AsyncIterator[SigningKeys]:
    keys = SigningKeys(server.url, ttl=ttl, cooldown=COOLDOWN, stale_ceiling=CEILING, monotonic=clock)
    await keys.start()
    try:
        yield keys
    finally:
        await keys.close()


@pytest.fixture
async def server() -> AsyncIterator[JwksServer]:
    async with serve_jwks() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def keys(server: JwksServer, clock: Clock) -> AsyncIterator[SigningKeys]:
    """Keys whose first fetch is done."""
    async with _running(server, clock) as running:
        await running.fetch_key(KID)
        yield running


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for is a counter, which tells nobody
            await asyncio.sleep(0.01)


async def test_hundred_cold_requests_share_one_fetch(server: JwksServer, clock: Clock) -> None:
    async with _running(server, clock) as keys:
        found = await asyncio.gather(*(keys.fetch_key(KID) for _ in range(100)))

    assert {key.kid for key in found} == {KID}
    assert server.fetches == 1


async def test_known_key_is_found_without_waiting(keys: SigningKeys, server: JwksServer) -> None:
    assert keys.find_key(KID) is not None
    assert keys.age_s() == 0
    assert server.fetches == 1


async def test_k01_flood_of_unknown_names_makes_one_fetch_per_cooldown(
    keys: SigningKeys, server: JwksServer, clock: Clock
) -> None:
    for _ in range(3):
        for number in range(300):
            with pytest.raises(CredentialRejected):
                await keys.fetch_key(f"ins_{clock.now}_{number}")
        clock.now += COOLDOWN

    assert server.fetches == 4
    assert keys.find_key(KID) is not None


async def test_k01_a_thousand_unknown_names_at_once_share_one_fetch(keys: SigningKeys, server: JwksServer) -> None:
    server.gate.clear()
    waiting = [asyncio.create_task(keys.fetch_key(f"ins_{number}")) for number in range(1000)]
    await _until(lambda: server.fetches == 2)
    server.gate.set()
    await asyncio.gather(*waiting, return_exceptions=True)

    assert server.fetches == 2


async def test_a_name_that_was_unknown_for_long_is_found_one_cooldown_after_it_came(
    keys: SigningKeys, server: JwksServer, clock: Clock
) -> None:
    for _ in range(5):
        with pytest.raises(CredentialRejected):
            await keys.fetch_key("ins_late")
        clock.now += COOLDOWN
    fetches = server.fetches
    server.body = jwks(jwk(), jwk("other", "ins_late"))

    assert (await keys.fetch_key("ins_late")).kid == "ins_late"
    assert (fetches, server.fetches) == (6, 7)


async def test_unknown_name_is_refused_without_waiting_inside_the_cooldown(
    keys: SigningKeys, server: JwksServer
) -> None:
    with pytest.raises(CredentialRejected):
        await keys.fetch_key("ins_unknown")
    with pytest.raises(CredentialRejected) as refused:
        keys.find_key("ins_other")

    assert refused.value.reason == "jwk-kid-mismatch"


async def test_unknown_name_cannot_be_judged_after_a_failure(
    keys: SigningKeys, server: JwksServer, clock: Clock
) -> None:
    server.answer = jwks_server.status_500
    with pytest.raises(VerifierUnavailable) as first:
        await keys.fetch_key("ins_unknown")
    clock.now += 1
    with pytest.raises(VerifierUnavailable) as second:
        keys.find_key("ins_unknown")

    assert (first.value.retry_after_s, second.value.retry_after_s) == (2, 1)
    assert server.fetches == 2


async def test_source_that_is_back_is_found_without_anybody_asking_for_a_key(
    keys: SigningKeys, server: JwksServer, clock: Clock
) -> None:
    server.answer = jwks_server.status_500
    with pytest.raises(VerifierUnavailable):
        await keys.fetch_key("ins_unknown")
    server.answer = None
    clock.now += PROBE_S
    await _until(lambda: keys.breaker.closed)

    assert server.fetches == 3


async def test_flood_of_unknown_names_while_the_source_is_away_makes_no_fetch_but_the_probes(
    keys: SigningKeys, server: JwksServer, clock: Clock
) -> None:
    server.answer = jwks_server.status_500
    for number in range(300):
        with pytest.raises(VerifierUnavailable):
            await keys.fetch_key(f"ins_{number}")
    first = server.fetches
    clock.now += PROBE_S
    for number in range(300):
        with pytest.raises(VerifierUnavailable):
            await keys.fetch_key(f"ins_{number}")

    assert (first, server.fetches) == (2, 2)


async def test_k02_flood_of_bad_signatures_makes_one_fetch_per_cooldown(
    keys: SigningKeys, server: JwksServer, clock: Clock
) -> None:
    key = await keys.fetch_key(KID)
    for _ in range(2):
        for _ in range(100):
            assert await keys.fetch_newer(key) is None
        clock.now += COOLDOWN

    assert server.fetches == 3
    assert keys.find_key(KID) == key


async def test_key_rotated_under_its_name_is_found_by_one_fetch(keys: SigningKeys, server: JwksServer) -> None:
    old = await keys.fetch_key(KID)
    server.body = jwks(jwk("rotated"))
    newer = await asyncio.gather(*(keys.fetch_newer(old) for _ in range(50)))

    assert len({key.numbers for key in newer if key is not None}) == 1
    assert None not in newer
    assert server.fetches == 2
    assert keys.generation == 2


BROKEN = [
    (jwks_server.status_500, FetchResult.STATUS),
    (jwks_server.redirect, FetchResult.STATUS),
    (jwks_server.html, FetchResult.UNUSABLE),
    (jwks_server.empty_keys, FetchResult.UNUSABLE),
    (jwks_server.too_large, FetchResult.TOO_LARGE),
    (jwks_server.dropped, FetchResult.UNREACHABLE),
]


@pytest.mark.parametrize("answer, result", BROKEN, ids=[answer.__name__ for answer, _ in BROKEN])
async def test_k03_last_good_keys_serve_up_to_the_ceiling(
    keys: SigningKeys, server: JwksServer, clock: Clock, answer: jwks_server.Answer, result: FetchResult
) -> None:
    server.answer = answer
    clock.now += TTL + 1
    stale = await keys.fetch_key(KID)
    clock.now += CEILING - TTL - 2
    still = keys.find_key(KID)
    await _until(lambda: keys.fetches[result] == 2)
    clock.now += 2
    with pytest.raises(VerifierUnavailable):
        await keys.fetch_key(KID)

    assert stale == still
    assert not keys.ready


@pytest.mark.parametrize("answer", [jwks_server.hang, jwks_server.slow_body])
async def test_k03_source_that_hangs_keeps_no_request_waiting_for_it(
    keys: SigningKeys, server: JwksServer, clock: Clock, answer: jwks_server.Answer
) -> None:
    server.answer = answer
    clock.now += TTL + 1
    async with asyncio.timeout(4):
        assert (await keys.fetch_key(KID)).kid == KID
        with pytest.raises(VerifierUnavailable):
            await keys.fetch_key("ins_unknown")
    await _until(lambda: keys.fetches[FetchResult.TIMEOUT] == 1)

    assert keys.find_key(KID) is not None


async def test_k03_cold_start_without_a_source_is_unavailable_until_it_answers(
    server: JwksServer, clock: Clock
) -> None:
    server.answer = jwks_server.status_500
    async with _running(server, clock) as keys:
        with pytest.raises(VerifierUnavailable) as refused:
            await keys.fetch_key(KID)
        with pytest.raises(VerifierUnavailable):
            keys.find_key(KID)
        server.answer = None
        clock.now += COOLDOWN
        key = await keys.fetch_key(KID)

    assert refused.value.retry_after_s == PROBE_S
    assert key.kid == KID


async def test_r03_redirect_is_not_followed(server: JwksServer, clock: Clock) -> None:
    server.answer = jwks_server.redirect
    async with _running(server, clock) as keys:
        with pytest.raises(VerifierUnavailable):
            await keys.fetch_key(KID)

    assert server.elsewhere == 0


async def test_r05_proxy_of_the_environment_is_not_used(
    server: JwksServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with _running(server, clock) as keys:
        key = await keys.fetch_key(KID)

    assert key.kid == KID


async def test_k04_new_key_is_found_by_one_fetch_while_500_requests_wait(keys: SigningKeys, server: JwksServer) -> None:
    server.body = jwks(jwk(), jwk("new", "ins_new"))
    found = await asyncio.gather(*(keys.fetch_key("ins_new") for _ in range(500)))

    assert {key.kid for key in found} == {"ins_new"}
    assert server.fetches == 2
    assert keys.generation == 2


async def test_k04_removed_key_is_refused_after_the_time_to_live_despite_a_flood(
    keys: SigningKeys, server: JwksServer, clock: Clock
) -> None:
    server.body = jwks(jwk("new", "ins_new"))
    clock.now += TTL + 1
    with pytest.raises(CredentialRejected):
        await keys.fetch_key(KID)

    assert (await keys.fetch_key("ins_new")).kid == "ins_new"


async def test_generation_stands_while_the_contents_do(keys: SigningKeys, server: JwksServer, clock: Clock) -> None:
    clock.now += TTL + 1
    await keys.fetch_key(KID)

    assert server.fetches == 2
    assert keys.generation == 1
    assert keys.fetches[FetchResult.OK] == 2


async def test_keys_are_refreshed_in_the_background(server: JwksServer, clock: Clock) -> None:
    async with _running(server, clock, ttl=0.05):
        await _until(lambda: server.fetches >= 3)


async def test_j16_two_instances_share_no_keys(keys: SigningKeys, clock: Clock) -> None:
    async with serve_jwks() as other:
        other.body = jwks(jwk("instance-b"))
        async with _running(other, clock) as others:
            theirs = await others.fetch_key(KID)

    assert theirs != keys.find_key(KID)


async def test_close_ends_a_fetch_under_way(server: JwksServer, clock: Clock) -> None:
    server.answer = jwks_server.hang
    async with _running(server, clock):
        await _until(lambda: server.fetches == 1)

    assert [task for task in asyncio.all_tasks() if "SigningKeys" in repr(task)] == []
