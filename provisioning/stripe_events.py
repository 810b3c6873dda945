"""Reads Stripe's events: which subscription, whose, and what is said of it. Pure, and lenient where Stripe's API
versions differ: ids may be expanded into objects, periods stand on the subscription or on its items, and an invoice
names its subscription in one of two places.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from provisioning.errors import EventMalformed
from provisioning.stripe_facts import PaymentWord, Snapshot, Stamp

ORGANIZATION_KEY = "organization_id"
PLAN_KEY = "plan"
_MAX_TEXT = 255
_LATEST_S = 253_402_300_799  # the last second of the year 9999
_PAYMENTS: Mapping[str, PaymentWord] = {
    "invoice.paid": "paid",
    "invoice.payment_succeeded": "paid",
    "invoice.payment_failed": "failed",
}
_CHECKOUTS = frozenset({"checkout.session.completed", "checkout.session.async_payment_succeeded"})


@dataclass(frozen=True, slots=True)
class Plans:
    """How prices are called here.

    Attributes:
        names: Plan by id of a price, `price_…`.
    """

    names: Mapping[str, str]

    def of(self, price: Mapping[str, Any]) -> str:
        """Name what a price buys: as the settings say, else its own metadata `plan`, its look-up key, its id.

        A price that nobody named gives its id, which no rule names by accident.
        """
        price_id = _text(price.get("id")) or ""
        metadata = price.get("metadata")
        named = _text(metadata.get(PLAN_KEY)) if isinstance(metadata, dict) else None
        return self.names.get(price_id) or named or _text(price.get("lookup_key")) or price_id


@dataclass(frozen=True, slots=True)
class StripeEvent:
    """One event, as far as it tells of a subscription.

    Attributes:
        type: Such as `customer.subscription.updated`.
        livemode: Of live money; None: it does not say.
        subscription_id: `sub_…` of Stripe; None: the event is of no interest.
        customer_id: `cus_…`.
        organization_id: As the object's metadata say.
        snapshot: The whole subscription, if the event holds it.
        payment: What became of a payment, if it tells of one.
        fetches: It names a subscription without telling what it is: Stripe must be asked.
    """

    type: str
    stamp: Stamp
    livemode: bool | None = None
    subscription_id: str | None = None
    customer_id: str | None = None
    organization_id: str | None = None
    snapshot: Snapshot | None = None
    payment: PaymentWord | None = None
    fetches: bool = False


def parse_event(body: bytes, plans: Plans) -> StripeEvent:
    """Read an event whose signature has been checked.

    Raises:
        EventMalformed: It is none, or says something of a subscription that cannot be.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise EventMalformed("body_not_json") from None
    if not isinstance(document, dict):
        raise EventMalformed("body_no_object")
    kind, data = _demanded(document, "type"), document.get("data")
    content = data.get("object") if isinstance(data, dict) else None
    if not isinstance(content, dict):
        raise EventMalformed("object_missing")
    stamp, livemode = Stamp(_demanded_moment(document, "created"), _demanded(document, "id")), document.get("livemode")
    mode = livemode if isinstance(livemode, bool) else None
    if kind.startswith("customer.subscription."):
        return StripeEvent(
            kind,
            stamp,
            mode,
            _demanded(content, "id"),
            _id_in(content.get("customer")),
            organization_in(content),
            parse_subscription(content, plans),
        )
    if kind in _PAYMENTS:
        return _payment(kind, stamp, mode, content)
    if kind in _CHECKOUTS and content.get("mode", "subscription") == "subscription":
        subscription, customer = _id_in(content.get("subscription")), _id_in(content.get("customer"))
        return StripeEvent(kind, stamp, mode, subscription, customer, organization_in(content), fetches=True)
    return StripeEvent(kind, stamp, mode)


def parse_subscription(content: Mapping[str, Any], plans: Plans) -> Snapshot:
    """Read a subscription object.

    Raises:
        EventMalformed: A part of it is missing or cannot be.
    """
    items = content.get("items")
    entries = items.get("data") if isinstance(items, dict) else None
    rows = [row for row in entries if isinstance(row, dict)] if isinstance(entries, list) else []
    prices = [price for price in (*(row.get("price") for row in rows), content.get("plan")) if isinstance(price, dict)]
    ends = [_moment(holder, "current_period_end") for holder in (content, *rows)]
    known_ends = [end for end in ends if end is not None]
    return Snapshot(
        status=_demanded(content, "status"),
        plan=plans.of(prices[0]) if prices else "",
        started_at=_moment(content, "created") or _moment(content, "start_date") or datetime.fromtimestamp(0, UTC),
        trial_ends_at=_moment(content, "trial_end"),
        # Items may have periods of their own: what is paid for until the first of them ends is all of it.
        current_period_end=min(known_ends) if known_ends else None,
        cancel_at_period_end=content.get("cancel_at_period_end") is True,
        cancel_at=_moment(content, "cancel_at"),
        canceled_at=_moment(content, "canceled_at") or _moment(content, "ended_at"),
    )


def _payment(kind: str, stamp: Stamp, livemode: bool | None, invoice: Mapping[str, Any]) -> StripeEvent:
    """An invoice names its subscription itself, or since 2025-03-31 in `parent.subscription_details`."""
    parent = invoice.get("parent")
    details = parent.get("subscription_details") if isinstance(parent, dict) else None
    if not isinstance(details, dict):
        details = invoice.get("subscription_details")
    if not isinstance(details, dict):
        details = {}
    subscription = _id_in(invoice.get("subscription")) or _id_in(details.get("subscription"))
    organization = organization_in(details) or organization_in(invoice)
    customer = _id_in(invoice.get("customer"))
    return StripeEvent(kind, stamp, livemode, subscription, customer, organization, payment=_PAYMENTS[kind])


def organization_in(holder: Mapping[str, Any]) -> str | None:
    """Read whose an object of Stripe is, as whoever holds our key wrote into its metadata."""
    metadata = holder.get("metadata")
    return _text(metadata.get(ORGANIZATION_KEY)) if isinstance(metadata, dict) else None


def _id_in(value: object) -> str | None:
    """Read an id that may have been expanded into the object it names."""
    return _text(value.get("id")) if isinstance(value, dict) else _text(value)


def _text(value: object) -> str | None:
    """Read a text that PostgreSQL can keep; anything else says nothing."""
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT or not value.isprintable():
        return None
    return value


def _demanded(holder: Mapping[str, Any], key: str) -> str:
    text = _text(holder.get(key))
    if text is None:
        raise EventMalformed(f"{key}_missing")
    return text


def _moment(holder: Mapping[str, Any], key: str) -> datetime | None:
    """Read Unix seconds; null and absent say nothing.

    Raises:
        EventMalformed: Something else stands there.
    """
    value = holder.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LATEST_S:
        raise EventMalformed(f"{key}_invalid")
    return datetime.fromtimestamp(value, UTC)


def _demanded_moment(holder: Mapping[str, Any], key: str) -> datetime:
    moment = _moment(holder, key)
    if moment is None:
        raise EventMalformed(f"{key}_missing")
    return moment
