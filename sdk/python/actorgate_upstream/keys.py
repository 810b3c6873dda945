"""The gateway's public keys: fetched, kept, refreshed before they are old."""

import asyncio
import json
import time
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from typing import IO

import jwt

from actorgate_upstream.errors import AssertionInvalid, KeysUnavailable

_TIMEOUT_S = 3.0
_LARGEST_BYTES = 256 * 1024
_EXPECTED = {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig"}
_MAY_LACK = {"alg": "ES256", "use": "sig"}
_PUBLIC = ("kty", "crv", "x", "y")


class Keys:
    """Keys by `kid`.

    Attributes:
        generation: Changes whenever the keys do.
        fetches: How often the gateway was asked.
    """

    def __init__(
        self,
        url: str,
        *,
        ttl_s: float = 300.0,
        cooldown_s: float = 10.0,
        stale_s: float = 3600.0,
        fetch: Callable[[], Awaitable[bytes]] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember where the keys are; nothing is fetched before somebody needs one.

        Args:
            url: `https://…/.well-known/jwks.json`; http for loopback and networks you trust.
            ttl_s: Seconds after which they are fetched again, in the background.
            cooldown_s: Shortest time between two fetches.
            stale_s: Seconds they are believed while the gateway cannot be asked.
            fetch: Gives the document instead of `url`, with any error when it cannot.
            monotonic: Clock that never steps.
        """
        if not url.startswith(("https://", "http://")):
            raise ValueError("write the address of the keys as https://…")
        self.generation = 0
        self.fetches = 0
        self._url = url
        self._ttl_s, self._cooldown_s, self._stale_s = ttl_s, cooldown_s, max(stale_s, ttl_s)
        self._fetch = fetch or self._fetch_url
        self._monotonic = monotonic
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched_at = self._asked_at = -inf
        self._failing = False
        self._flight: asyncio.Task[None] | None = None

    def known(self, kid: str) -> jwt.PyJWK | None:
        """Look a key up without waiting; begins a refresh when the keys are getting old."""
        age = self._monotonic() - self._fetched_at
        if age > self._stale_s:
            return None
        if age > self._ttl_s and self._may_ask():
            self._begin()
        return self._keys.get(kid)

    async def find(self, kid: str) -> jwt.PyJWK:
        """Look a key up, asking the gateway first when that may help.

        Raises:
            AssertionInvalid: It has no such key.
            KeysUnavailable: It cannot be asked.
        """
        key = self.known(kid)
        if key is not None:
            return key
        if self._flight is not None or self._may_ask():
            await asyncio.wait({self._begin()})
            key = self.known(kid)
        if key is not None:
            return key
        if self._failing or self._fetched_at == -inf:
            raise KeysUnavailable("the gateway's keys cannot be fetched")
        raise AssertionInvalid("kid unknown")

    def _may_ask(self) -> bool:
        return self._monotonic() - self._asked_at >= self._cooldown_s

    def _begin(self) -> "asyncio.Task[None]":
        if self._flight is None:
            self._asked_at = self._monotonic()
            self._flight = asyncio.create_task(self._refresh())
            self._flight.add_done_callback(self._landed)
        return self._flight

    def _landed(self, _: "asyncio.Task[None]") -> None:
        self._flight = None

    async def _refresh(self) -> None:
        self.fetches += 1
        try:
            keys = parse_keys(await self._fetch())
        except Exception:  # noqa: BLE001 - whatever the matter is, those we have stay
            self._failing = True
            return
        self._failing, self._fetched_at = False, self._asked_at
        if keys.keys() != self._keys.keys():
            self._keys = keys
            self.generation += 1

    async def _fetch_url(self) -> bytes:
        return await asyncio.to_thread(_read, self._url)


def parse_keys(document: bytes) -> dict[str, jwt.PyJWK]:
    """Read a key set; what is no P-256 key for ES256 is left out.

    Raises:
        ValueError: It is none, or holds no key for us.
    """
    found = json.loads(document)
    listed = found.get("keys") if isinstance(found, dict) else None
    keys = {}
    for entry in listed if isinstance(listed, list) else []:
        if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str):
            continue
        told = {**_MAY_LACK, **entry}
        if any(told.get(name) != value for name, value in _EXPECTED.items()):
            continue
        try:
            keys[entry["kid"]] = jwt.PyJWK({name: entry[name] for name in _PUBLIC}, algorithm="ES256")
        except (jwt.PyJWTError, KeyError, TypeError, ValueError):
            continue
    if not keys:
        raise ValueError("no keys")
    return keys


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Whoever answers must not choose another source."""

    def redirect_request(self, req: urllib.request.Request, fp: IO[bytes], *_: object) -> None:
        """Follow nothing."""


def _read(url: str) -> bytes:
    # Neither a proxy of the environment nor a redirect may stand between us and the keys.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    with opener.open(url, timeout=_TIMEOUT_S) as response:
        body: bytes = response.read(_LARGEST_BYTES + 1)
    if len(body) > _LARGEST_BYTES:
        raise ValueError("too large")
    return body
