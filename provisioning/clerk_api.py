"""Clerk's Backend API, as far as first sight needs it: a person's name and e-mail, an organization's name.

It is a courtesy, never a condition: whatever goes wrong becomes None with a counted reason, soon. Shapes are read
leniently, because they grow without notice (facts: Clerk's Backend API, version 2026-05-12).
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
from yarl import URL

from provisioning.database.breaker import Breaker
from provisioning.profile import Profile, clean_email, clean_name
from provisioning.single_flight import SingleFlight

DEADLINE_S = 0.6
BODY_BYTES = 1024 * 1024
COOLDOWN_MIN_S = 1.0
COOLDOWN_MAX_S = 60.0
OPEN_S = 1.0
"""How long nobody asks after a failure."""
OUTCOMES = (
    "ok",
    "absent",
    "rate_limited",
    "cooling_down",
    "refused",
    "failed",
    "timeout",
    "unreachable",
    "malformed",
    "breaker_open",
)
AWAY = frozenset({"failed", "timeout", "unreachable", "malformed"})
"""What speaks for an outage: one may be a bad answer, or a kept connection that Clerk closed; two without a good one
between them mean that nobody is there."""


_ABSENT: Mapping[str, Any] = MappingProxyType({})
"""What Clerk tells of somebody it does not know: an answer too."""


class ClerkUnanswered(Exception):
    """Clerk did not tell.

    Attributes:
        outcome: A word of `OUTCOMES`.
        retry_after_s: For how long it wants to be left alone; None: it did not say.
    """

    def __init__(self, outcome: str, retry_after_s: float | None = None) -> None:
        self.outcome = outcome
        self.retry_after_s = retry_after_s
        super().__init__(outcome)


class ClerkApi:
    """Asks Clerk's Backend API. Without a secret key it answers None at once.

    Attributes:
        outcomes: Count of requests by outcome (a word of `OUTCOMES`), for metrics.
        breaker: Shared state of "Clerk's Backend API is away", of all who ask there.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        api_url: str,
        secret_key: str | None,
        *,
        deadline_s: float = DEADLINE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Settle whom to ask.

        Args:
            session: Belongs to the caller; must not take proxies from the environment.
            api_url: With the version, such as `https://api.clerk.com/v1`.
            secret_key: `sk_…`; None: nothing is ever asked.
            deadline_s: For one question, all in all.
            clock: Seconds that never go back.
        """
        if session.trust_env:
            raise ValueError("the session would send the secret key through a proxy that the environment names")
        self._session = session
        self._api_url = api_url.rstrip("/")
        self._secret_key = secret_key
        self._deadline_s = deadline_s
        self._clock = clock
        self._cool_until = 0.0
        self._flights: SingleFlight[Mapping[str, Any] | None] = SingleFlight()
        self.breaker = Breaker(OPEN_S, clock)
        self.outcomes = dict.fromkeys(OUTCOMES, 0)

    async def user_profile(self, clerk_user_id: str) -> Profile | None:
        """Fetch name and primary verified e-mail; None when Clerk does not tell now."""
        document = await self._ask("users", clerk_user_id)
        return None if document is None or document is _ABSENT else profile_in(document)

    async def verified_emails(self, clerk_user_id: str) -> frozenset[str] | None:
        """Fetch the addresses that Clerk verified, spelled as they are there; None when Clerk does not tell now."""
        document = await self._ask("users", clerk_user_id)
        return None if document is None else frozenset(address for _, address in _verified(document))

    async def ask_profile(self, clerk_user_id: str, deadline_s: float) -> Profile:
        """Fetch name and primary verified e-mail, by a question of its own, for whoever can wait.

        Such a question is no probe: while it waits, for longer than others may, nobody else would be let through.

        Args:
            clerk_user_id: Clerk's `user_…`.
            deadline_s: All in all.

        Raises:
            ClerkUnanswered: With the outcome; `absent`: there is no such person.
        """
        if self._secret_key is None:
            raise ClerkUnanswered("refused")
        return profile_in(await self._counted(f"users/{quote(clerk_user_id, safe='')}", deadline_s))

    async def ask(self, path: str, deadline_s: float, *, method: str = "GET") -> object:
        """Ask anything, by a question of its own; gives what the answer's JSON says.

        Args:
            path: Behind the version, escaped, with its query.
            deadline_s: All in all.
            method: Of HTTP.

        Raises:
            ClerkUnanswered: With the outcome; `absent`: there is no such thing.
        """
        if self._secret_key is None:
            raise ClerkUnanswered("refused")
        try:
            answer = await self._answer(path, deadline_s, method)
        except ClerkUnanswered as error:
            self.outcomes[error.outcome] += 1
            raise
        self.outcomes["ok"] += 1
        return answer

    async def organization_name(self, clerk_organization_id: str) -> str | None:
        """Fetch an organization's name; None when Clerk does not tell now."""
        document = await self._ask("organizations", clerk_organization_id)
        return None if document is None else clean_name(_text(document.get("name")))

    async def close(self) -> None:
        """End what is under way."""
        await self._flights.close()

    async def _ask(self, collection: str, key: str) -> Mapping[str, Any] | None:
        if self._secret_key is None:
            return None
        path = f"{collection}/{quote(key, safe='')}"
        return await self._flights.run(path, lambda: self._fetch(path))

    async def _fetch(self, path: str) -> Mapping[str, Any] | None:
        if not self.breaker.allows():
            self.outcomes["breaker_open"] += 1
            return None
        try:
            document = await self._counted(path, self._deadline_s)
        except ClerkUnanswered as error:
            judge(self.breaker, error.outcome)
            return _ABSENT if error.outcome == "absent" else None
        except BaseException:
            self.breaker.abandoned()
            raise
        judge(self.breaker, "ok")
        return document

    async def _counted(self, path: str, deadline_s: float) -> Mapping[str, Any]:
        try:
            document = await self._document(path, deadline_s)
        except ClerkUnanswered as error:
            self.outcomes[error.outcome] += 1
            raise
        self.outcomes["ok"] += 1
        return document

    async def _document(self, path: str, deadline_s: float) -> Mapping[str, Any]:
        document = await self._answer(path, deadline_s, "GET")
        if not isinstance(document, dict):
            raise ClerkUnanswered("malformed")
        return document

    async def _answer(self, path: str, deadline_s: float, method: str) -> object:
        if (cooling_s := self._cool_until - self._clock()) > 0:
            raise ClerkUnanswered("cooling_down", cooling_s)
        headers = {
            "Authorization": f"Bearer {self._secret_key}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # so that the cap below counts what was sent
            "User-Agent": "actorgate",
        }
        url = URL(f"{self._api_url}/{path}", encoded=True)
        try:
            # Not ClientTimeout alone: name resolution and a slow body count too.
            async with (
                asyncio.timeout(deadline_s),
                self._session.request(method, url, headers=headers, allow_redirects=False) as response,
            ):
                self._check_status(response)
                return await _read_json(response.content)
        except TimeoutError:
            raise ClerkUnanswered("timeout") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ClerkUnanswered("unreachable") from error

    def _check_status(self, response: aiohttp.ClientResponse) -> None:
        match response.status:
            case 200:
                return
            case 404:
                raise ClerkUnanswered("absent")
            case 429:
                cooling_s = cooldown_s(response.headers.get("Retry-After"))
                self._cool_until = self._clock() + cooling_s
                raise ClerkUnanswered("rate_limited", cooling_s)
            case status if status >= 500:
                raise ClerkUnanswered("failed")
            case _:
                raise ClerkUnanswered("refused")


def judge(breaker: Breaker, outcome: str) -> None:
    """Tell the breaker how a question ended, by a word of `OUTCOMES`."""
    if outcome == "cooling_down":
        breaker.abandoned()  # nobody was asked
    elif outcome in AWAY:
        breaker.failed(timed_out=True)
    else:
        breaker.succeeded()


def cooldown_s(retry_after: str | None) -> float:
    """Read `Retry-After` in seconds, held between 1 and 60; Clerk sends no dates there."""
    text = (retry_after or "").strip()
    seconds = float(text) if text.isascii() and text.isdigit() and len(text) < 10 else COOLDOWN_MIN_S
    return min(max(seconds, COOLDOWN_MIN_S), COOLDOWN_MAX_S)


def profile_in(document: Mapping[str, Any]) -> Profile:
    """Read Clerk's User: given and family name, else the user name; the primary e-mail if Clerk verified it."""
    full_name = f"{_text(document.get('first_name')) or ''} {_text(document.get('last_name')) or ''}"
    name = clean_name(full_name) or clean_name(_text(document.get("username")))
    primary = document.get("primary_email_address_id")
    email = next((clean_email(address) for key, address in _verified(document) if key == primary), None)
    return Profile(name, email, email)


def _verified(document: Mapping[str, Any]) -> Iterator[tuple[object, str]]:
    """Give id and address of each e-mail address of Clerk's User that Clerk verified."""
    addresses = document.get("email_addresses")
    for entry in addresses if isinstance(addresses, list) else ():
        if not isinstance(entry, dict):
            continue
        verification, address = entry.get("verification"), _text(entry.get("email_address"))
        if address is not None and isinstance(verification, dict) and verification.get("status") == "verified":
            yield entry.get("id"), address


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


async def _read_json(content: aiohttp.StreamReader) -> object:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > BODY_BYTES:
            raise ClerkUnanswered("malformed")
    try:
        answer: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ClerkUnanswered("malformed") from None
    return answer
