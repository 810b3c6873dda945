"""Stripe: a customer and a trial subscription for an organization, each made once. Plain HTTP, form-encoded, API v1.

Two things make it once. For as long as Stripe remembers an `Idempotency-Key` (24 hours at least) the same request gives
the same answer. Past that, and for a subscription at every further attempt, Stripe is asked first for what carries our
metadata.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson

from provisioning.outbox.effects import Delivery, DeliveryFailed, Topic
from provisioning.outbox.receiver import ask
from provisioning.outbox.stripe_ids import StripeIds

DEADLINE_S = 20.0
KEY_TRUSTED_FOR = timedelta(hours=12)
"""Since the effect was written. Half of what Stripe promises; its search is behind by an hour at the very worst."""
ORGANIZATION = "organization_id"
"""Name of the metadata that tells whose a customer and a subscription are."""


class Stripe:
    """Makes what a trial needs."""

    topic: Topic = "stripe"
    most = 1

    def __init__(
        self,
        session: aiohttp.ClientSession,
        secret_key: str,
        price_id: str,
        ids: StripeIds,
        *,
        api_url: str = "https://api.stripe.com",
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Settle whom to ask.

        Args:
            session: Belongs to the caller.
            secret_key: `sk_…` or `rk_…`.
            price_id: `price_…` of the trial.
            ids: Remembers what was made.
            api_url: Without the version.
            deadline_s: For both, with the questions before them.
        """
        self._session = session
        self._secret_key = secret_key
        self._price_id = price_id
        self._ids = ids
        self._api_url = api_url.rstrip("/")
        self.deadline_s = deadline_s

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Make what is missing, and remember each as soon as it is made."""
        for delivery in deliveries:
            organization_id = str(delivery.payload["organizationId"])
            made = await self._ids.of(organization_id)
            customer = made.customer
            if customer is None:
                customer = await self._customer(organization_id, delivery)
                await self._ids.note_customer(organization_id, customer)
            if made.subscription is None:
                subscription = await self._subscription(organization_id, customer, delivery)
                if subscription is not None:
                    await self._ids.note_subscription(organization_id, subscription, customer)

    async def _customer(self, organization_id: str, delivery: Delivery) -> str:
        if not _is_young(delivery) or "erased" in delivery.payload:
            query = {"query": f"metadata['{ORGANIZATION}']:'{organization_id}'"}
            found = _with_metadata(await self._get("customers/search", query), organization_id)
            if found is not None:
                return found
        payload = delivery.payload
        fields = {
            "name": payload.get("organizationName"),
            "email": payload.get("email"),
            f"metadata[{ORGANIZATION}]": organization_id,
            "metadata[user_id]": payload.get("userId"),
        }
        return _id_in(await self._post("customers", fields, delivery.key))

    async def _subscription(self, organization_id: str, customer: str, delivery: Delivery) -> str | None:
        """Make the trial; None when it would be over already."""
        if delivery.attempts > 1:
            found = await self._listed(organization_id, customer, delivery)
            if found is not None:
                return found
        ends_at = delivery.payload.get("trialEndsAt")
        if not isinstance(ends_at, int) or ends_at <= datetime.now(UTC).timestamp():
            return None
        fields = {
            "customer": customer,
            "items[0][price]": self._price_id,
            "trial_end": str(ends_at),
            # Nobody has given a means of payment yet; a trial that runs out must not become an open invoice.
            "trial_settings[end_behavior][missing_payment_method]": "cancel",
            f"metadata[{ORGANIZATION}]": organization_id,
            "metadata[user_id]": delivery.payload.get("userId"),
        }
        return _id_in(await self._post("subscriptions", fields, delivery.key))

    async def _listed(self, organization_id: str, customer: str, delivery: Delivery) -> str | None:
        """Find what an earlier attempt made: a list, unlike a search, is never behind.

        The key alone would not do: it is forgotten one day, and with other settings (another price) it is another.
        """
        try:
            listed = await self._get("subscriptions", {"customer": customer, "status": "all", "limit": "100"})
        except DeliveryFailed as failure:
            # A restricted key may write and not read. While Stripe remembers our key, nothing is made twice.
            if failure.reason not in {"refused", "rejected"} or not _is_young(delivery):
                raise
            return None
        return _with_metadata(listed, organization_id)

    async def _get(self, path: str, query: Mapping[str, str]) -> Mapping[str, Any]:
        url = f"{self._api_url}/v1/{path}?{urlencode(query)}"
        return _document(await ask(self._session, "GET", url, headers=self._headers()))

    async def _post(self, path: str, fields: Mapping[str, object], key: str) -> Mapping[str, Any]:
        body = urlencode([(name, str(value)) for name, value in fields.items() if value is not None]).encode()
        headers = {
            **self._headers(),
            "Content-Type": "application/x-www-form-urlencoded",
            "Idempotency-Key": idempotency_key(path, key, body),
        }
        return _document(await ask(self._session, "POST", f"{self._api_url}/v1/{path}", headers=headers, body=body))

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._secret_key}", "Accept": "application/json"}


def idempotency_key(path: str, key: str, body: bytes) -> str:
    """Name one request for Stripe: the effect, and what is asked for it. Stripe refuses a key with another body."""
    return f"{path}:{key}:{hashlib.sha256(body).hexdigest()[:16]}"


def _is_young(delivery: Delivery) -> bool:
    """Whether Stripe remembers every key that was used for this."""
    return datetime.now(UTC) - delivery.created_at < KEY_TRUSTED_FOR


def _document(answer: bytes) -> Mapping[str, Any]:
    try:
        document = orjson.loads(answer)
    except orjson.JSONDecodeError:
        raise DeliveryFailed("malformed") from None
    if not isinstance(document, dict):
        raise DeliveryFailed("malformed")
    return document


def _id_in(document: Mapping[str, Any]) -> str:
    found = document.get("id")
    if not isinstance(found, str) or not found:
        raise DeliveryFailed("malformed")
    return found


def _with_metadata(listed: Mapping[str, Any], organization_id: str) -> str | None:
    """Find the oldest object of a list that is this organization's; Stripe lists the youngest first."""
    data = listed.get("data")
    if not isinstance(data, list):
        raise DeliveryFailed("malformed")
    ours = [
        entry
        for entry in data
        if isinstance(entry, dict)
        and isinstance(entry.get("metadata"), dict)
        and entry["metadata"].get(ORGANIZATION) == organization_id
    ]
    return _id_in(ours[-1]) if ours else None
