"""The three questions to Clerk's Backend API that tell whether an opaque machine token is good. Clerk's wire.

No answer is told from a bad one: whatever is neither 200 nor a refusal of the token in Clerk's words is an outage, our
own wrong secret key before all. After a 429 and after a refused key nobody is asked for a while.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import orjson
import structlog
from yarl import URL

from gateway.credentials.kinds import CredentialKind
from gateway.errors import CredentialRejected, VerifierUnavailable
from provisioning.clerk_api import OPEN_S, ClerkApi, cooldown_s, judge
from provisioning.database.breaker import Breaker

DEADLINE_S = 2.0
KEY_REFUSED_S = 10.0
"""Seconds in which nobody is asked with a key that Clerk refused."""
_API_VERSION = "2026-05-12"
_MAX_BODY_BYTES = 256 * 1024
_QUESTIONS = {
    CredentialKind.CLERK_API_KEY: ("api_keys/verify", "secret"),
    CredentialKind.CLERK_OAUTH: ("oauth_applications/access_tokens/verify", "access_token"),
    CredentialKind.CLERK_M2M: ("m2m_tokens/verify", "token"),
}
_log = structlog.get_logger()


class MachineApi:
    """Asks Clerk about opaque machine tokens."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        api_url: str,
        secret_key: str | None,
        machine_secret_key: str | None = None,
        *,
        tally: ClerkApi | None = None,
        deadline_s: float = DEADLINE_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Settle whom to ask.

        Args:
            session: Belongs to the caller; must not take proxies from the environment.
            api_url: With the version, such as `https://api.clerk.com/v1`.
            secret_key: `sk_…` of the instance.
            machine_secret_key: `ak_…` of the machine that we are, for tokens of machines; None: the instance's key.
            tally: Whose `outcomes` count these questions as well, and whose breaker counts for them: it is one Clerk.
            deadline_s: For one question, all in all.
            monotonic: Seconds that never go back.
        """
        if session.trust_env:
            raise ValueError("the session would send secrets through a proxy that the environment names")
        self._session = session
        self._api_url = api_url.rstrip("/")
        self._keys = dict.fromkeys(_QUESTIONS, ("clerk.secret_key", secret_key))
        if machine_secret_key is not None:
            self._keys[CredentialKind.CLERK_M2M] = ("clerk.machine_secret_key", machine_secret_key)
        self._tally = tally
        self._breaker = tally.breaker if tally is not None else Breaker(OPEN_S, monotonic)
        self._deadline_s = deadline_s
        self._monotonic = monotonic
        self._quiet: dict[str, tuple[float, str]] = {}  # by setting: until when, and why

    async def ask(self, kind: CredentialKind, token: str) -> Mapping[str, Any]:
        """Ask about one token; gives what a 200 says.

        Raises:
            CredentialRejected: `token-invalid`: Clerk does not know it.
            VerifierUnavailable: Clerk did not tell: `secret-key-invalid` (ours), `unexpected-error`, and others.
        """
        setting, key = self._keys[kind]
        self._check_quiet(setting)
        if key is None:
            raise VerifierUnavailable("secret-key-invalid", retry_after_s=int(KEY_REFUSED_S))
        if not self._breaker.allows():
            self._count("breaker_open")
            raise VerifierUnavailable("clerk_away", retry_after_s=max(1, math.ceil(self._breaker.rest_s())))
        try:
            return await self._asked(_QUESTIONS[kind], key, setting, token)
        finally:
            self._breaker.abandoned()  # has no effect after a verdict

    async def _asked(self, question: tuple[str, str], key: str, setting: str, token: str) -> Mapping[str, Any]:
        path, member = question
        headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # so that the cap counts what was sent
            "Clerk-API-Version": _API_VERSION,
            "User-Agent": "actorgate",
        }
        url, body = URL(f"{self._api_url}/{path}", encoded=True), orjson.dumps({member: token})
        try:
            async with (
                asyncio.timeout(self._deadline_s),
                # A redirect would take the token and our key elsewhere.
                self._session.post(url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                return await self._answer(response, setting)
        except TimeoutError:  # before the next: aiohttp's timeouts are both
            raise self._unanswered("timeout", "clerk_timeout") from None
        except (aiohttp.ClientError, OSError):
            raise self._unanswered("unreachable", "clerk_unreachable") from None

    def malformed(self) -> VerifierUnavailable:
        """Count a 200 that says nothing, and give what to raise."""
        return self._unanswered("malformed", "clerk_malformed")

    async def _answer(self, response: aiohttp.ClientResponse, setting: str) -> Mapping[str, Any]:
        match response.status:
            case 200:
                document = await _read_object(response.content)
                if document is None:
                    raise self.malformed()
                self._judged("ok")
                return document
            case 400 | 404:
                # In Clerk's words only: some proxy's 404 says nothing of the token.
                document = await _read_object(response.content)
                if document is None or not isinstance(document.get("errors"), list) or not document["errors"]:
                    raise self.malformed()
                self._judged("absent")
                raise CredentialRejected("token-invalid")
            case 401:
                _log.error("Clerk refuses our secret key; no machine token can be checked", setting=setting)
                self._be_quiet(setting, KEY_REFUSED_S, "secret-key-invalid")
                raise self._unanswered("refused", "secret-key-invalid", int(KEY_REFUSED_S))
            case 429:
                wait_s = cooldown_s(response.headers.get("Retry-After"))
                self._be_quiet(setting, wait_s, "clerk_rate_limited")
                raise self._unanswered("rate_limited", "clerk_rate_limited", math.ceil(wait_s))
            case status:
                raise self._unanswered("failed" if status >= 500 else "refused", "unexpected-error")

    def _be_quiet(self, setting: str, wait_s: float, reason: str) -> None:
        self._quiet[setting] = self._monotonic() + wait_s, reason

    def _check_quiet(self, setting: str) -> None:
        until, reason = self._quiet.get(setting, (-math.inf, ""))
        left = until - self._monotonic()
        if left > 0:
            self._count("cooling_down")
            raise VerifierUnavailable(reason, retry_after_s=math.ceil(left))

    def _unanswered(self, outcome: str, reason: str, retry_after_s: int = 1) -> VerifierUnavailable:
        self._judged(outcome)
        return VerifierUnavailable(reason, retry_after_s=retry_after_s)

    def _judged(self, outcome: str) -> None:
        """Count how a question ended, and tell the breaker."""
        self._count(outcome)
        judge(self._breaker, outcome)

    def _count(self, outcome: str) -> None:
        if self._tally is not None:
            self._tally.outcomes[outcome] += 1


async def _read_object(content: aiohttp.StreamReader) -> Mapping[str, Any] | None:
    """Read a body that must be one small JSON object; None when it is not."""
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            return None
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None
