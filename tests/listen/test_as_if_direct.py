"""Between a client and an upstream nothing changes but what is documented.

Each exchange is made three times: straight, through the fast lane, and through the aiohttp lane; an independent parser
reads both ends. What may differ is written down here once more, from the documents and not from the code.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings

from tests.support.gateway import gateway_under_test
from tests.support.independent_ends import Lines, Message, ScriptedUpstream, ask, scripted_upstream
from tests.support.postgres import PostgresPerWorker
from tests.support.raw_exchanges import Asked, asked

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # It warns that a strategy's example cannot be written down, and would hide what failed.
    pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning"),
]

IDENTITY = b"""
    x-actor-id x-actor-role x-actor-auth x-actor-scopes x-actor-session-id x-actor-token-id x-actor-impersonator-id
    x-organization-id x-organization-role x-organization-permissions x-subscription-status x-subscription-plan
    x-feature-flags x-actor-assertion
""".split()
FORWARDED = b"x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port".split()
OURS = (*IDENTITY, *FORWARDED, b"x-request-id", b"traceparent")
FRAMING = (b"content-length", b"transfer-encoding")
DROPPED_REQUEST = re.compile(
    rb"x-actor-.*|x-organization-.*|x-subscription-.*|x-feature-flags|x-request-id|x-forwarded-.*|forwarded|x-real-ip"
    rb"|x-original-.*|x-rewrite-url|x-envoy-.*|x-clerk-.*|x-auth-request-.*|remote-(?:user|groups|email|name)"
    rb"|x-goog-iap-.*|x-goog-authenticated-user-.*|cf-access-.*|x-pomerium-.*|x-authentik-.*|x-consumer-.*"
    rb"|connection|keep-alive|te|proxy-authorization|http2-settings"
)
DROPPED_ANSWER = re.compile(
    rb"x-actor-.*|x-organization-.*|x-forwarded-.*|x-request-id"
    rb"|connection|keep-alive|trailer|upgrade|proxy-authenticate|transfer-encoding"
)


@dataclass(frozen=True)
class Way:
    """A port to ask, and the upstream behind it."""

    port: int
    upstream: ScriptedUpstream

    async def exchange(self, asked: Asked) -> tuple[Message, list[Message]]:
        """What the client saw, and what the upstream saw."""
        self.upstream.script, self.upstream.seen[:] = asked.answer, []
        seen = await ask(self.port, asked.method, asked.request)
        if asked.answer.close:
            await self.upstream.settled()  # the next exchange shall not meet a connection that is about to end
        return seen, list(self.upstream.seen)


@pytest.fixture(scope="module")
def shared_database_url(postgres: PostgresPerWorker) -> Iterator[str]:
    url = postgres.create()
    yield url
    postgres.drop(url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ways(shared_database_url: str) -> AsyncIterator[list[Way]]:
    """Straight, by the fast lane, by the aiohttp lane."""
    async with AsyncExitStack() as stack:
        upstreams = [await stack.enter_async_context(scripted_upstream()) for _ in range(3)]
        made = [Way(upstreams[0].port, upstreams[0])]
        for fast_lane, upstream in zip((True, False), upstreams[1:], strict=True):
            options: dict[str, Any] = {"fast_lane": fast_lane, "upstreams": {"app": {"url": upstream.url}}}
            gateway = await stack.enter_async_context(gateway_under_test(shared_database_url, **options))
            made.append(Way(gateway.port, upstream))
        yield made


def nominated(message: Message) -> set[bytes]:
    options = {option.strip().lower() for value in message.all(b"connection") for option in value.split(b",")}
    return options - {b"close", b"keep-alive", b"set-cookie"}


def passing(message: Message, dropped: re.Pattern[bytes]) -> Lines:
    """The fields of a message that its hop does not keep, any spelling."""
    gone = nominated(message)
    return [
        (name, value)
        for name, value in message.lines
        if not dropped.fullmatch(re.sub(rb"[^a-z0-9]", b"-", name)) and name not in gone
    ]


def judge_request(sent: Message, arrived: Message) -> None:
    """Hold what the upstream saw against what it would have seen."""
    assert arrived.start == sent.start
    assert arrived.body == sent.body
    assert arrived.whole

    apart = {b"content-length", b"transfer-encoding"}
    expected = [line for line in passing(sent, DROPPED_REQUEST) if line[0] not in apart]
    assert sorted(arrived.without(*OURS, *apart)) == sorted(expected)
    assert [int(value) for value in arrived.all(b"content-length")] == [
        int(value) for value in sent.all(b"content-length")
    ]
    assert arrived.all(b"transfer-encoding") == sent.all(b"transfer-encoding")
    assert [name for name in OURS if len(arrived.all(name)) != 1] == []
    assert {value for name in IDENTITY for value in arrived.all(name)} == {b""}
    assert [arrived.all(name)[0] for name in FORWARDED] == [b"127.0.0.1", b"http", b"app.example.test", b"80"]


def judge_answer(method: str, direct: Message, relayed: Message, http10: bool) -> None:
    """Hold what the client saw against what it would have seen."""
    if not direct.start:
        assert relayed.start[0] == b"502"
        assert relayed.whole
        return
    assert relayed.start == direct.start
    assert relayed.whole == direct.whole
    if http10 and not direct.whole:
        assert direct.body.startswith(relayed.body)  # cut by a reset, which takes along what was not read
    else:
        assert relayed.body == direct.body
    expected = passing(direct, DROPPED_ANSWER)
    assert relayed.without(b"connection", b"transfer-encoding") == expected

    bodiless = method == "HEAD" or direct.start[0] in (b"204", b"304")
    has_length = bool(direct.all(b"content-length"))
    chunks = [] if bodiless or has_length or http10 else [b"chunked"]
    assert relayed.all(b"transfer-encoding") == chunks


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(asked=asked())
async def test_what_each_end_sees_is_what_a_direct_connection_shows(ways: list[Way], asked: Asked) -> None:
    outcomes = await asyncio.gather(*(way.exchange(asked) for way in ways))
    (direct, (sent,)), *others = outcomes

    for relayed, arrived in others:
        assert arrived, relayed
        for message in arrived:  # an upstream that dies unheard may be asked again
            judge_request(sent, message)
        judge_answer(asked.method, direct, relayed, b" HTTP/1.0\r\n" in asked.request.raw)
