"""Stripe's API, as far as webhooks need it: one subscription, when an event names it without telling what it is."""

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
from yarl import URL

from provisioning.errors import StripeUnavailable

DEADLINE_S = 5.0
BODY_BYTES = 1024 * 1024


class StripeApi:
    """Asks Stripe."""

    def __init__(self, session: aiohttp.ClientSession, api_url: str, secret_key: str) -> None:
        """Settle whom to ask.

        Args:
            session: Belongs to the caller; must not take proxies from the environment.
            api_url: Without the version, such as `https://api.stripe.com`.
            secret_key: `sk_…` or `rk_…`.
        """
        if session.trust_env:
            raise ValueError("the session would send the secret key through a proxy that the environment names")
        self._session = session
        self._api_url = api_url.rstrip("/")
        self._secret_key = secret_key

    async def fetch_subscription(self, subscription_id: str) -> Mapping[str, Any] | None:
        """Fetch a subscription object; None when Stripe knows none of this id.

        Raises:
            StripeUnavailable: Stripe does not tell now, or not to this key.
        """
        headers = {
            "Authorization": f"Bearer {self._secret_key}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # so that the cap below counts what was sent
            "User-Agent": "actorgate",
        }
        url = URL(f"{self._api_url}/v1/subscriptions/{quote(subscription_id, safe='')}", encoded=True)
        try:
            async with (
                asyncio.timeout(DEADLINE_S),
                self._session.get(url, headers=headers, allow_redirects=False) as response,
            ):
                if response.status == 404:
                    return None
                if response.status != 200:
                    raise StripeUnavailable(_reason(response.status))
                document = await _read_object(response.content)
        except TimeoutError:
            raise StripeUnavailable("timeout") from None
        except (aiohttp.ClientError, OSError) as error:
            raise StripeUnavailable("unreachable") from error
        if document.get("id") != subscription_id:
            raise StripeUnavailable("malformed")
        return document


def _reason(status: int) -> str:
    if status == 429:
        return "rate_limited"
    return "failed" if status >= 500 else "refused"


async def _read_object(content: aiohttp.StreamReader) -> Mapping[str, Any]:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > BODY_BYTES:
            raise StripeUnavailable("malformed")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise StripeUnavailable("malformed") from None
    if not isinstance(document, dict):
        raise StripeUnavailable("malformed")
    return document
