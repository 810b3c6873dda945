"""Uses of features, from the request to PostHog's wire."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

import aiohttp
import pytest

from gateway.actors.actor import Actor
from gateway.actors.beliefs import Caller
from gateway.actors.system_tokens import NOBODY
from gateway.credentials.kinds import Carrier, CredentialKind
from gateway.telemetry import usage as module
from gateway.telemetry.posthog import PosthogBatches
from gateway.telemetry.usage import Usage
from gateway.verify.principal import Impersonator, Principal
from provisioning.records import Role
from tests.support.gateway import GatewayUnderTest, gateway_under_test, mint_token
from tests.support.posthog import PROJECT_KEY, Failure, Posthog
from tests.support.upstream import answering, answering_and_closing
from tests.support.wire import bearer, request

ROUTES: list[dict[str, Any]] = [
    {"path": "/reports/**", "auth": "required", "upstream": "app", "track": "report_viewed"},
    {"path": "/open/**", "auth": "none", "upstream": "app", "track": "open_viewed"},
    {"path": "/maybe/**", "auth": "optional", "upstream": "app", "track": "maybe_viewed"},
    {"path": "/**", "auth": "required", "upstream": "app"},
]


USES_ALONE = {"deliver": False}  # people are told of by the outbox


@pytest.fixture
async def posthog() -> AsyncIterator[Posthog]:
    async with Posthog().running() as running:
        yield running


@pytest.fixture(params=[True, False], ids=["fast_lane", "aiohttp_lane"])
async def tracked(
    request: pytest.FixtureRequest, database_url: str, posthog: Posthog
) -> AsyncIterator[GatewayUnderTest]:
    configured = {"host": posthog.host, "project_key": PROJECT_KEY}
    async with gateway_under_test(
        database_url, routes=ROUTES, posthog=configured, outbox=USES_ALONE, fast_lane=request.param
    ) as gateway:
        yield gateway


def usage_in(gateway: GatewayUnderTest) -> Usage:
    return gateway.reloader.current.sources.usage


async def test_a_use_is_told_with_who_where_and_when(tracked: GatewayUnderTest, posthog: Posthog) -> None:
    session = mint_token(sub="user_2uses")
    before = datetime.now(UTC)
    reply = await tracked.get("/reports/x", bearer(session))
    current = (await tracked.get("/users/current", bearer(session))).json()
    await posthog.until_taken(1)
    (event,) = posthog.taken.values()

    assert reply.status == 200
    assert (event["event"], event["distinct_id"]) == ("report_viewed", current["id"])
    assert event["properties"]["$groups"] == {"organization": current["organization"]["id"]}
    assert event["properties"]["auth"] == "session"
    assert before <= datetime.fromisoformat(event["timestamp"]) <= datetime.now(UTC)
    assert posthog.batches[0]["api_key"] == PROJECT_KEY


@pytest.mark.parametrize(("status", "counts"), [(200, 1), (204, 1), (302, 1), (304, 1), (400, 0), (404, 0), (500, 0)])
async def test_answers_below_400_count(tracked: GatewayUnderTest, posthog: Posthog, status: int, counts: int) -> None:
    posthog.failure = "failed"  # what counts stays
    length = b"" if status in (204, 304) else b"Content-Length: 0\r\n"
    tracked.upstream.respond = answering(b"HTTP/1.1 %d Said\r\n%b\r\n" % (status, length))

    assert (await tracked.get("/reports/x", bearer(mint_token()))).status == status
    assert usage_in(tracked).waiting == counts


async def test_what_is_refused_broken_untracked_or_nobodys_does_not_count(
    tracked: GatewayUnderTest, posthog: Posthog
) -> None:
    posthog.failure = "failed"
    session = mint_token()
    acting = mint_token(sub="user_2acted", sid="sess_2acted", act={"sub": "user_2support"})
    for target, lines in (
        ("/reports/x", ()),
        ("/x", (bearer(session),)),
        ("/open/x", (bearer(session),)),
        ("/maybe/x", ()),
        ("/reports/x", (bearer(acting),)),
        ("/users/current", (bearer(session),)),
    ):
        await tracked.get(target, *lines)
    tracked.upstream.respond = answering_and_closing(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal")
    async with tracked.wire() as wire:
        await wire.send(request("/reports/x", bearer(session)))
        await wire.rest()
    tracked.upstream.respond = answering_and_closing(b"garbage\r\n\r\n")
    await tracked.get("/reports/x", bearer(session))

    assert usage_in(tracked).waiting == 0


async def test_each_request_of_a_connection_is_a_use(tracked: GatewayUnderTest, posthog: Posthog) -> None:
    async with tracked.wire() as wire:
        for _ in range(5):
            await wire.ask(request("/reports/x", bearer(mint_token())))
    await posthog.until_taken(5)

    assert len({event["uuid"] for batch in posthog.batches for event in batch["batch"]}) == 5


async def test_somebody_known_on_a_route_for_all_counts(tracked: GatewayUnderTest, posthog: Posthog) -> None:
    posthog.failure = "failed"
    await tracked.get("/maybe/x", bearer(mint_token()))

    assert usage_in(tracked).waiting == 1


async def test_what_waits_is_sent_at_the_end_of_a_process(database_url: str, posthog: Posthog) -> None:
    configured = {"host": posthog.host, "project_key": PROJECT_KEY}
    async with gateway_under_test(database_url, routes=ROUTES, posthog=configured, outbox=USES_ALONE) as gateway:
        await gateway.get("/reports/x", bearer(mint_token()))
        usage = usage_in(gateway)

    assert len(posthog.taken) == 1
    assert usage.waiting == 0
    assert usage.tally.by_result["delivered"] == 1


async def test_without_posthog_nothing_is_noted_and_a_reload_begins_it(database_url: str, posthog: Posthog) -> None:
    posthog.failure = "failed"
    async with gateway_under_test(database_url, routes=ROUTES) as gateway:
        await gateway.get("/reports/x", bearer(mint_token()))
        before = usage_in(gateway).waiting
        assert await gateway.reload(posthog={"host": posthog.host, "project_key": PROJECT_KEY})
        await gateway.get("/reports/x", bearer(mint_token()))
        after = usage_in(gateway).waiting
        posthog.failure = None

    assert (before, after, len(posthog.taken)) == (0, 1, 1)


async def test_a_reload_that_leaves_posthog_as_it_is_keeps_what_waits(database_url: str, posthog: Posthog) -> None:
    posthog.failure = "failed"
    configured = {"host": posthog.host, "project_key": PROJECT_KEY}
    async with gateway_under_test(database_url, routes=ROUTES, posthog=configured, outbox=USES_ALONE) as gateway:
        await gateway.get("/reports/x", bearer(mint_token()))
        usage = usage_in(gateway)
        assert await gateway.reload(cache={"near_ttl": "10s"})

        assert usage_in(gateway) is usage
        posthog.failure = None

    assert len(posthog.taken) == 1


async def test_losses_are_in_the_metrics(tracked: GatewayUnderTest, posthog: Posthog) -> None:
    posthog.failure = "refused"
    await tracked.get("/reports/x", bearer(mint_token()))
    await posthog.next_request()
    while usage_in(tracked).waiting:  # noqa: ASYNC110 - the answer is on its way
        await asyncio.sleep(0.001)

    assert await tracked.metric("gateway_usage_events_total", result="refused") == 1
    assert await tracked.metric("gateway_usage_waiting") == 0


# The same without a gateway around it, faster.


def caller(user_id: str = "usr_1", impersonator: Impersonator | None = None) -> Caller:
    principal = Principal(
        CredentialKind.SESSION, Carrier.HEADER, "https://issuer", "user_1", 2e9, "sess_1", impersonator=impersonator
    )
    return Caller(Actor(user_id, Role.USER, "org_1", "admin", (), principal), NOBODY, b"")


@asynccontextmanager
async def using(posthog: Posthog, **changes: Any) -> AsyncIterator[Usage]:
    async with aiohttp.ClientSession() as session:
        usage = Usage(
            PosthogBatches(session, posthog.host, PROJECT_KEY, deadline_s=0.2), deliver_every_s=0.001, **changes
        )
        try:
            yield usage
        finally:
            await usage.close()


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_MIN_S", 0.001)
    monkeypatch.setattr(module, "BACKOFF_MAX_S", 0.01)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("failure", ["rate_limited", "failed", "hang", "lost_answer", "reset"])
async def test_a_failure_delays_and_loses_nothing_and_counts_nothing_twice(posthog: Posthog, failure: Failure) -> None:
    posthog.failure = failure
    async with using(posthog) as usage:
        for _ in range(3):
            usage.note("feature", caller(), 200)
        usage.start()
        for _ in range(3):
            await posthog.next_request()
        usage.note("feature", caller("usr_2"), 200)
        posthog.failure = None
        while usage.waiting:
            await posthog.next_request()
            await asyncio.sleep(0)

    ids = [[event["uuid"] for event in batch["batch"]] for batch in posthog.batches]
    assert ids[0] == ids[1] == ids[2]
    assert sorted(event["distinct_id"] for event in posthog.taken.values()) == ["usr_1"] * 3 + ["usr_2"]
    assert usage.tally.by_result == {"delivered": 4, "refused": 0, "no_room": 0, "undelivered": 0}


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("failure", ["refused", "redirect"])
async def test_a_batch_that_is_refused_for_good_holds_up_no_other(posthog: Posthog, failure: Failure) -> None:
    posthog.failure = failure
    async with using(posthog) as usage:
        usage.note("bad", caller(), 200)
        usage.start()
        await posthog.next_request()
        while usage.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        posthog.failure = None
        usage.note("good", caller(), 200)
        await posthog.until_taken(1)

    assert [event["event"] for event in posthog.taken.values()] == ["good"]
    assert usage.tally.by_result["refused"] == 1


@pytest.mark.usefixtures("_impatient")
async def test_a_batch_that_is_too_large_is_halved_until_it_fits(posthog: Posthog) -> None:
    posthog.failure = "too_large"
    async with using(posthog) as usage:
        for number in range(10):
            usage.note("feature", caller(f"usr_{number}"), 200)
        usage.start()
        await posthog.until_taken(10)

    assert sorted(event["distinct_id"] for event in posthog.taken.values()) == sorted(f"usr_{n}" for n in range(10))
    assert usage.tally.by_result["delivered"] == 10


async def test_memory_is_bounded_whatever_was_formed_and_losses_are_counted(posthog: Posthog) -> None:
    posthog.failure = "failed"
    async with using(posthog, most_waiting=1200) as usage:
        for _ in range(1000):
            usage.note("feature", caller(), 200)
        usage.start()
        await posthog.next_request()
        for _ in range(1000):
            usage.note("feature", caller(), 200)

        assert usage.waiting == 1200

    assert usage.tally.by_result["no_room"] == 800
    assert usage.tally.by_result["undelivered"] == 1200
    assert usage.waiting == 0


@pytest.mark.usefixtures("_impatient")
async def test_many_uses_go_in_batches_of_500(posthog: Posthog) -> None:
    async with using(posthog) as usage:
        for _ in range(1700):
            usage.note("feature", caller(), 200)
        usage.start()
        await posthog.until_taken(1700)
        while usage.waiting:  # noqa: ASYNC110 - the last answer is on its way
            await asyncio.sleep(0.001)

    assert [len(batch["batch"]) for batch in posthog.batches] == [500, 500, 500, 200]


async def test_retry_after_is_heeded_up_to_a_minute() -> None:
    assert 7 <= module._rest_s(1, 7.0) <= 7 * 1.25
    assert 60 <= module._rest_s(1, 86400.0) <= 75
    assert 1 <= module._rest_s(1, None) <= 1.25
    assert 60 <= module._rest_s(50, None) <= 75


async def test_a_process_ends_though_posthog_hangs(posthog: Posthog) -> None:
    posthog.failure = "hang"
    async with using(posthog) as usage:
        usage.note("feature", caller(), 200)

    assert usage.tally.by_result["undelivered"] == 1
    assert len(posthog.batches) == 1


def test_nobodys_use_is_nobodys() -> None:
    nowhere = cast(aiohttp.ClientSession, None)  # nothing is sent
    usage = Usage(PosthogBatches(nowhere, "http://127.0.0.1:1", PROJECT_KEY))
    usage.note("feature", None, 200)
    usage.note("feature", caller(""), 200)
    usage.note("feature", caller(impersonator=Impersonator("user_support")), 200)
    usage.note("feature", caller(), 400)

    assert usage.waiting == 0
