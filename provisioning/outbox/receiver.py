"""What every receiver is, and the one way in which they ask over HTTP."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

import aiohttp
from yarl import URL

from provisioning.outbox.backoff import retry_after_s
from provisioning.outbox.effects import Delivery, DeliveryFailed, Reason, Topic

BODY_BYTES = 1024 * 1024
_REFUSALS = frozenset({401, 403, 404, 410})


class Receiver(Protocol):
    """Delivers the effects of one topic."""

    @property
    def topic(self) -> Topic:
        """Which."""
        ...

    @property
    def most(self) -> int:
        """How many it takes at once."""
        ...

    @property
    def deadline_s(self) -> float:
        """For one call of `deliver`, all in all."""
        ...

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Deliver all of these, or none as far as is known. The same may come again: the key makes it once.

        Raises:
            DeliveryFailed: With the reason.
            DatabaseUnavailable: Our own records could not be asked for it.
        """
        ...


def reason_of(status: int) -> Reason:
    """Judge an HTTP status that is not 2xx."""
    match status:
        case 429:
            return "rate_limited"
        case 409:
            return "conflict"
        case 408 | 425:
            return "failed"
        case _ if status in _REFUSALS or status < 400:
            return "refused"
        case _:
            return "failed" if status >= 500 else "rejected"


async def ask(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None = None,
) -> bytes:
    """Ask a receiver once. Nothing that fails here is repeated by its message: URLs and answers may hold secrets.

    Args:
        session: Must not take proxies from the environment.
        method: Such as `POST`.
        url: Absolute; as it is written, escapes and all.
        headers: Besides ours.
        body: To send.

    Returns:
        The body of a 2xx, at most `BODY_BYTES`.

    Raises:
        DeliveryFailed: No answer, or one that is not 2xx. The caller's deadline raises `TimeoutError` instead.
    """
    fields = {"User-Agent": "actorgate", "Accept-Encoding": "identity", **headers}
    try:
        target = URL(url, encoded=True)
        async with session.request(method, target, headers=fields, data=body, allow_redirects=False) as response:
            if not 200 <= response.status < 300:
                raise DeliveryFailed(reason_of(response.status), retry_after_s(response.headers.get("Retry-After")))
            return await _read(response.content)
    except TimeoutError:
        raise
    except (aiohttp.ClientError, OSError, ValueError):
        # None: a cause would carry the address into a traceback, and a webhook's address is a secret.
        raise DeliveryFailed("unreachable") from None


async def _read(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > BODY_BYTES:
            raise DeliveryFailed("malformed")
    return bytes(body)


async def within(deadline_s: float, receiver: Receiver, deliveries: Sequence[Delivery]) -> None:
    """Let a receiver deliver, for so long at most.

    Raises:
        DeliveryFailed: As `deliver`; `timeout` when it took too long.
    """
    try:
        async with asyncio.timeout(deadline_s):
            await receiver.deliver(deliveries)
    except TimeoutError:
        raise DeliveryFailed("timeout") from None
