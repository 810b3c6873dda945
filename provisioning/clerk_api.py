"""Clerk's Backend API, as far as first sight needs it: a person's name and e-mail, an organization's name.

It is a courtesy, never a condition: whatever goes wrong becomes None with a counted reason, soon. Shapes are read
leniently, because they grow without notice (facts: Clerk's Backend API, version 2026-05-12).
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
from yarl import URL

from provisioning.profile import Profile, clean_email, clean_name
from provisioning.single_flight import SingleFlight

DEADLINE_S = 0.6
BODY_BYTES = 1024 * 1024
COOLDOWN_MIN_S = 1.0
COOLDOWN_MAX_S = 60.0
OUTCOMES = ("ok", "absent", "rate_limited", "cooling_down", "refused", "failed", "timeout", "unreachable", "malformed")


class _Unanswered(Exception):
    """Clerk did not tell; `outcome` is a word of `OUTCOMES`."""

    def __init__(self, outcome: str) -> None:
        self.outcome = outcome
        super().__init__(outcome)


class ClerkApi:
    """Asks Clerk's Backend API. Without a secret key it answers None at once.

    Attributes:
        outcomes: Count of requests by outcome (a word of `OUTCOMES`), for metrics.
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
        self.outcomes = dict.fromkeys(OUTCOMES, 0)

    async def user_profile(self, clerk_user_id: str) -> Profile | None:
        """Fetch name and primary verified e-mail; None when Clerk does not tell now."""
        document = await self._ask("users", clerk_user_id)
        return None if document is None else profile_in(document)

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
        try:
            document = await self._document(path)
        except _Unanswered as error:
            self.outcomes[error.outcome] += 1
            return None
        self.outcomes["ok"] += 1
        return document

    async def _document(self, path: str) -> Mapping[str, Any]:
        if self._clock() < self._cool_until:
            raise _Unanswered("cooling_down")
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
                asyncio.timeout(self._deadline_s),
                self._session.get(url, headers=headers, allow_redirects=False) as response,
            ):
                self._check_status(response)
                return await _read_object(response.content)
        except TimeoutError:
            raise _Unanswered("timeout") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _Unanswered("unreachable") from error

    def _check_status(self, response: aiohttp.ClientResponse) -> None:
        match response.status:
            case 200:
                return
            case 404:
                raise _Unanswered("absent")
            case 429:
                self._cool_until = self._clock() + cooldown_s(response.headers.get("Retry-After"))
                raise _Unanswered("rate_limited")
            case status if status >= 500:
                raise _Unanswered("failed")
            case _:
                raise _Unanswered("refused")


def cooldown_s(retry_after: str | None) -> float:
    """Read `Retry-After` in seconds, held between 1 and 60; Clerk sends no dates there."""
    text = (retry_after or "").strip()
    seconds = float(text) if text.isascii() and text.isdigit() and len(text) < 10 else COOLDOWN_MIN_S
    return min(max(seconds, COOLDOWN_MIN_S), COOLDOWN_MAX_S)


def profile_in(document: Mapping[str, Any]) -> Profile:
    """Read Clerk's User: given and family name, else the user name; the primary e-mail if Clerk verified it."""
    full_name = f"{_text(document.get('first_name')) or ''} {_text(document.get('last_name')) or ''}"
    name = clean_name(full_name) or clean_name(_text(document.get("username")))
    addresses = document.get("email_addresses")
    for entry in addresses if isinstance(addresses, list) else ():
        if not isinstance(entry, dict) or entry.get("id") != document.get("primary_email_address_id"):
            continue
        verification = entry.get("verification")
        if isinstance(verification, dict) and verification.get("status") == "verified":
            return Profile(name, clean_email(_text(entry.get("email_address"))))
    return Profile(name)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


async def _read_object(content: aiohttp.StreamReader) -> Mapping[str, Any]:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > BODY_BYTES:
            raise _Unanswered("malformed")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _Unanswered("malformed") from None
    if not isinstance(document, dict):
        raise _Unanswered("malformed")
    return document
