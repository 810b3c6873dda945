"""Opaque machine tokens and Clerk, who alone knows them: what is asked, what is remembered, what an outage is."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from config.model import Cache
from gateway.credentials.kinds import Carrier, Credential, CredentialKind
from gateway.errors import CredentialRejected, VerifierUnavailable
from gateway.verify.machine import MachineRules
from gateway.verify.machine_api import KEY_REFUSED_S, MachineApi
from gateway.verify.machine_tokens import BELIEVED_S, REFUSED_S, STRANGERS_PER_S, MachineTokens
from gateway.verify.session import SessionRules
from provisioning.clerk_api import ClerkApi
from tests.support.clerk_backend import SECRET_KEY, ClerkBackend
from tests.support.clerk_keys import ISSUER
from tests.support.clerk_machines import MACHINE_SECRET_KEY, USER, MachineDesk, errors

NOW = 1_700_000_000
GENEROUS_S = 30.0
API_KEY, OAUTH, M2M = CredentialKind.CLERK_API_KEY, CredentialKind.CLERK_OAUTH, CredentialKind.CLERK_M2M
Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Bench:
    """Tokens before a desk of Clerk's, with clocks to set."""

    backend: ClerkBackend
    session: aiohttp.ClientSession
    now: float = NOW
    monotonic: float = 1000.0
    cache: Cache = field(default_factory=lambda: Cache.model_validate({"near_ttl": "10m"}))
    machine_secret_key: str | None = None
    secret_key: str | None = SECRET_KEY
    deadline_s: float = GENEROUS_S

    def __post_init__(self) -> None:
        self.tally = ClerkApi(self.session, self.backend.url, None)
        api = MachineApi(
            self.session,
            self.backend.url,
            self.secret_key,
            self.machine_secret_key,
            tally=self.tally,
            deadline_s=self.deadline_s,
            monotonic=lambda: self.monotonic,
        )
        rules = MachineRules(SessionRules((ISSUER,)))
        self.tokens = MachineTokens(api, rules, self.cache, clock=lambda: self.now, monotonic=lambda: self.monotonic)

    @property
    def desk(self) -> MachineDesk:
        """Clerk's."""
        return self.backend.machines

    def credential(self, token: str) -> Credential:
        """As the classifier would make it."""
        kind = {"ak": API_KEY, "oat": OAUTH, "mt": M2M}[token.partition("_")[0]]
        return Credential(kind, Carrier.HEADER, token)

    async def verify(self, token: str) -> str:
        """The subject, or the reason why not; an outage says so."""
        try:
            return (await self.tokens.verify(self.credential(token))).subject
        except VerifierUnavailable as error:
            return f"outage: {error.reason}"
        except CredentialRejected as error:
            return error.reason


@pytest.fixture
async def backend() -> AsyncIterator[ClerkBackend]:
    async with ClerkBackend().running() as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


@pytest.fixture
async def bench(backend: ClerkBackend, session: aiohttp.ClientSession) -> AsyncIterator[Bench]:
    made = Bench(backend, session)
    yield made
    await made.tokens.close()


async def test_each_kind_is_asked_about_at_its_endpoint(bench: Bench) -> None:
    api_key, oauth, m2m = bench.desk.api_key(), bench.desk.oauth(), bench.desk.m2m()
    for token in (api_key, oauth, m2m):
        await bench.verify(token)

    assert [(question.path, question.body) for question in bench.desk.asked] == [
        ("/v1/api_keys/verify", {"secret": api_key}),
        ("/v1/oauth_applications/access_tokens/verify", {"access_token": oauth}),
        ("/v1/m2m_tokens/verify", {"token": m2m}),
    ]
    assert {question.authorization for question in bench.desk.asked} == {f"Bearer {SECRET_KEY}"}
    assert {question.version for question in bench.desk.asked} == {"2026-05-12"}
    assert bench.tally.outcomes["ok"] == 3


async def test_tokens_of_machines_are_asked_about_with_the_machines_own_key(
    backend: ClerkBackend, session: aiohttp.ClientSession
) -> None:
    bench = Bench(backend, session, machine_secret_key=MACHINE_SECRET_KEY)
    for token in (bench.desk.m2m(), bench.desk.api_key()):
        await bench.verify(token)

    assert [question.authorization for question in bench.desk.asked] == [
        f"Bearer {MACHINE_SECRET_KEY}",
        f"Bearer {SECRET_KEY}",
    ]
    assert await bench.verify(bench.desk.m2m(scopes=["mch_other"])) == "token-invalid"


async def test_good_answer_is_believed_for_a_minute_at_most_and_then_asked_for_again(bench: Bench) -> None:
    token = bench.desk.api_key()
    await bench.verify(token)
    await bench.verify(token)
    known = bench.tokens.remembered(bench.credential(token))
    asked_early = len(bench.desk.asked)
    bench.monotonic += BELIEVED_S
    unknown = bench.tokens.remembered(bench.credential(token))
    await bench.verify(token)

    assert known is not None
    assert 0.7 * BELIEVED_S <= known.recheck_at - 1000.0 <= BELIEVED_S
    assert unknown is None
    assert (asked_early, len(bench.desk.asked)) == (1, 2)


async def test_near_ttl_shortens_belief(backend: ClerkBackend, session: aiohttp.ClientSession) -> None:
    bench = Bench(backend, session, cache=Cache.model_validate({"near_ttl": "2s"}))
    token = bench.desk.api_key()
    await bench.verify(token)
    bench.monotonic += 2.0
    await bench.verify(token)

    assert len(bench.desk.asked) == 2


async def test_revoked_token_is_refused_once_it_is_asked_about_again(bench: Bench) -> None:
    token = bench.desk.api_key()
    before = await bench.verify(token)
    bench.desk.documents[token]["revoked"] = True
    believed = await bench.verify(token)
    bench.monotonic += BELIEVED_S
    after = await bench.verify(token)

    assert (before, believed, after) == (USER, USER, "machine_revoked")


async def test_token_is_not_believed_past_its_end(bench: Bench) -> None:
    token = bench.desk.api_key(expiration=(NOW + 5) * 1000)
    before = await bench.verify(token)
    bench.now += 5
    after = await bench.verify(token)

    assert (before, after, len(bench.desk.asked)) == (USER, "machine_expired", 1)


async def test_refusal_is_remembered_for_seconds(bench: Bench) -> None:
    for _ in range(3):
        assert await bench.verify("ak_of_nobody_whatever") == "token-invalid"
    asked = len(bench.desk.asked)
    bench.monotonic += REFUSED_S
    await bench.verify("ak_of_nobody_whatever")

    assert (asked, len(bench.desk.asked)) == (1, 2)
    assert bench.tally.outcomes["absent"] == 2


@pytest.mark.parametrize("token", ["ak_", "ak_short", "ak_" + "x" * 513, "oat_sp ace in it", 'mt_"quoted"quoted'])
async def test_what_cannot_be_a_token_is_refused_without_a_question(bench: Bench, token: str) -> None:
    assert await bench.verify(token) == "token-invalid"
    assert bench.desk.asked == []


async def test_refusal_of_the_credential_comes_first(bench: Bench) -> None:
    credential = Credential(API_KEY, Carrier.HEADER, "", "token-too-long")
    with pytest.raises(CredentialRejected) as refused:
        await bench.tokens.verify(credential)

    assert refused.value.reason == "token-too-long"


async def test_hundred_first_uses_at_once_are_one_question(bench: Bench) -> None:
    token, way = bench.desk.oauth(), asyncio.Event()
    bench.desk.held = way.wait
    waiting = [asyncio.create_task(bench.verify(token)) for _ in range(100)]
    await asyncio.sleep(0)
    way.set()

    assert set(await asyncio.gather(*waiting)) == {USER}
    assert len(bench.desk.asked) == 1


def answering(status: int, body: str, content_type: str = "application/json") -> Reply:
    async def reply(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=body, content_type=content_type)

    return reply


async def redirect(request: web.Request) -> web.StreamResponse:
    return web.Response(status=307, headers={"Location": request.path})


async def reset(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(3600)
    return web.Response()


async def forbidden(_: web.Request) -> web.StreamResponse:
    return errors(403, "authorization_invalid")


OUTAGES: dict[str, tuple[Reply, str]] = {
    "500": (answering(500, "{}"), "unexpected-error"),
    "503 html": (answering(503, "<h1>maintenance</h1>", "text/html"), "unexpected-error"),
    "403": (forbidden, "unexpected-error"),
    "redirect": (redirect, "unexpected-error"),
    "reset": (reset, "clerk_unreachable"),
    "404 of a proxy": (answering(404, "<h1>not here</h1>", "text/html"), "clerk_malformed"),
    "404 without errors": (answering(404, '{"errors": []}'), "clerk_malformed"),
    "400 of something else": (answering(400, '{"error": "bad"}'), "clerk_malformed"),
    "200 that is no JSON": (answering(200, "{"), "clerk_malformed"),
    "200 that is a list": (answering(200, "[]"), "clerk_malformed"),
    "200 that is empty": (answering(200, ""), "clerk_malformed"),
    "200 that says nothing": (answering(200, "{}"), "clerk_malformed"),
    "200 that is huge": (answering(200, '{"id": "' + "x" * 300_000 + '"}'), "clerk_malformed"),
}


@pytest.mark.parametrize(("reply", "reason"), OUTAGES.values(), ids=OUTAGES.keys())
async def test_whatever_else_clerk_answers_is_an_outage_and_not_remembered(
    bench: Bench, reply: Reply, reason: str
) -> None:
    token = bench.desk.api_key()
    bench.desk.reply = reply
    during = await bench.verify(token)
    asked = len(bench.desk.asked)
    bench.desk.reply = None
    after = await bench.verify(token)

    assert (during, after, asked) == (f"outage: {reason}", USER, 1)


async def test_clerk_that_hangs_is_an_outage_in_time(backend: ClerkBackend, session: aiohttp.ClientSession) -> None:
    bench = Bench(backend, session, deadline_s=0.05)
    bench.desk.reply = hang

    assert await bench.verify("ak_of_nobody_whatever") == "outage: clerk_timeout"
    assert bench.tally.outcomes["timeout"] == 1


async def test_clerk_that_cannot_be_reached_is_an_outage(session: aiohttp.ClientSession) -> None:
    bench = Bench(ClerkBackend(url="http://127.0.0.1:9/v1"), session)

    assert await bench.verify("ak_of_nobody_whatever") == "outage: clerk_unreachable"


async def test_outage_of_a_known_token_is_no_reason_to_believe_it_for_longer(bench: Bench) -> None:
    token = bench.desk.api_key()
    await bench.verify(token)
    bench.monotonic += BELIEVED_S
    bench.desk.reply = answering(500, "{}")

    assert await bench.verify(token) == "outage: unexpected-error"


async def test_our_own_refused_key_is_told_to_operators_and_clerk_is_left_alone(bench: Bench) -> None:
    token, other = bench.desk.api_key(), bench.desk.oauth()
    bench.desk.secret_key = "sk_live_rotated"
    with capture_logs() as logs:
        replies = [await bench.verify(token), await bench.verify(other)]
        with pytest.raises(VerifierUnavailable) as refused:
            await bench.tokens.verify(bench.credential(token))
    asked = len(bench.desk.asked)
    bench.desk.secret_key = SECRET_KEY
    bench.monotonic += KEY_REFUSED_S
    after = await bench.verify(token)

    assert replies == ["outage: secret-key-invalid"] * 2
    assert refused.value.retry_after_s == KEY_REFUSED_S
    assert (asked, after) == (1, USER)
    assert [(line["log_level"], line["setting"]) for line in logs] == [("error", "clerk.secret_key")]
    assert all(secret not in str(logs) for secret in (token, SECRET_KEY))


async def test_refused_key_of_the_machine_leaves_other_questions_alone(
    backend: ClerkBackend, session: aiohttp.ClientSession
) -> None:
    bench = Bench(backend, session, machine_secret_key="ak_not_the_machines")

    assert await bench.verify(bench.desk.m2m()) == "outage: secret-key-invalid"
    assert await bench.verify(bench.desk.api_key()) == USER


async def test_without_a_key_nobody_is_asked(backend: ClerkBackend, session: aiohttp.ClientSession) -> None:
    bench = Bench(backend, session, secret_key=None)

    assert await bench.verify(bench.desk.api_key()) == "outage: secret-key-invalid"
    assert bench.desk.asked == []


@pytest.mark.parametrize(("field", "wait_s"), [("7", 7), ("", 1), ("soon", 1), ("3600", 60)])
async def test_limit_of_clerks_is_kept_for_as_long_as_it_says(bench: Bench, field: str, wait_s: int) -> None:
    token = bench.desk.api_key()

    async def limited(_: web.Request) -> web.StreamResponse:
        return errors(429, "too_many_requests", {"Retry-After": field})

    bench.desk.reply = limited
    with pytest.raises(VerifierUnavailable) as refused:
        await bench.tokens.verify(bench.credential(token))
    bench.desk.reply = None
    bench.monotonic += wait_s - 0.5
    inside = await bench.verify(token)
    bench.monotonic += 0.5
    after = await bench.verify(token)

    assert (refused.value.reason, refused.value.retry_after_s) == ("clerk_rate_limited", wait_s)
    assert (inside, after) == ("outage: clerk_rate_limited", USER)
    assert len(bench.desk.asked) == 2


async def test_junk_cannot_use_clerks_limit_up(bench: Bench) -> None:
    known = bench.desk.api_key()
    await bench.verify(known)
    bench.monotonic += BELIEVED_S
    junk = [await bench.verify(f"ak_of_nobody_{number:08}") for number in range(2 * STRANGERS_PER_S)]
    still = await bench.verify(known)
    asked = len(bench.desk.asked)
    bench.monotonic += 1
    later = await bench.verify("ak_of_nobody_at_all")

    assert junk == ["token-invalid"] * STRANGERS_PER_S + ["outage: clerk_busy"] * STRANGERS_PER_S
    assert (still, later) == (USER, "token-invalid")
    assert asked == STRANGERS_PER_S + 2


async def test_session_that_would_use_a_proxy_of_the_environment_is_refused() -> None:
    async with aiohttp.ClientSession(trust_env=True) as session:
        with pytest.raises(ValueError, match="proxy"):
            MachineApi(session, "https://api.clerk.com/v1", SECRET_KEY)
