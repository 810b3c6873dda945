"""`POST /webhooks/stripe`: what Stripe says of subscriptions, signed."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import structlog

from gateway.answer import Answer, json_answer
from gateway.api.endpoints import Call
from gateway.errors import StoreUnavailable, VerifierUnavailable, WebhookRefused
from gateway.revocation.changes import OrganizationChanged
from gateway.revocation.revocations import Revocations
from gateway.verify.stripe_signature import check_stripe_signature
from provisioning.audit import Origin
from provisioning.errors import DatabaseUnavailable, EventMalformed, StripeUnavailable
from provisioning.stripe_api import StripeApi
from provisioning.stripe_events import Plans, StripeEvent, organization_in, parse_event, parse_subscription
from provisioning.stripe_subscriptions import StripeSubscriptions

EVENT_CAP = 1024 * 1024
"""Bytes of one event; Stripe's are some kilobytes."""
_RETRY_AFTER_S = 60
_ODD = ("other_mode", "organization_unknown")  # several environments may share an account
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StripeWebhooks:
    """Answers Stripe, which sends again whatever is not answered with 2xx.

    Attributes:
        secrets: Of this endpoint at Stripe, `whsec_…`; several while one is rolled.
        revocations: Told of every organization whose subscription changed.
        clock: Unix seconds.
    """

    subscriptions: StripeSubscriptions
    stripe: StripeApi
    plans: Plans
    secrets: tuple[bytes, ...] = field(repr=False)
    revocations: Revocations
    clock: Callable[[], float]

    async def receive(self, call: Call) -> Answer:
        """Take one event; what is not for us is taken too, and changes nothing.

        Raises:
            WebhookRefused: Not signed by Stripe for this endpoint within the last minutes, or no event.
            VerifierUnavailable: PostgreSQL, or Stripe where it must be asked, is away: Stripe sends again.
        """
        signature = _signature(call)
        body = await call.read_body(EVENT_CAP)
        check_stripe_signature(signature, body, self.secrets, self.clock())
        try:
            event = parse_event(body, self.plans)
        except EventMalformed as error:
            raise WebhookRefused("body_malformed") from error
        if event.fetches and self.subscriptions.concerns(event):
            event = await self._completed(event)
        address, request_id = call.arrived.view.address or None, call.arrived.incoming.request_id
        try:
            applied = await self.subscriptions.apply(event, Origin("gateway", address=address, request_id=request_id))
        except DatabaseUnavailable as error:
            raise StoreUnavailable("database_unavailable") from error
        if applied.matters and applied.organization_id is not None:
            self.revocations.tell(OrganizationChanged(applied.organization_id))
        tell = _log.warning if applied.outcome in _ODD else _log.info
        tell("webhook", source="stripe", type=event.type, outcome=applied.outcome, delivery_id=event.stamp.event_id)
        return json_answer(200, {"outcome": applied.outcome})

    async def _completed(self, event: StripeEvent) -> StripeEvent:
        """Ask Stripe for the subscription that an event only names; events about it may have come before its owner."""
        assert event.subscription_id is not None  # noqa: S101 - else it is of no concern
        try:
            document = await self.stripe.fetch_subscription(event.subscription_id)
            if document is None:
                return event
            snapshot = parse_subscription(document, self.plans)
        except StripeUnavailable as error:
            raise VerifierUnavailable(f"stripe_{error.reason}", _RETRY_AFTER_S) from error
        except EventMalformed as error:
            raise VerifierUnavailable("stripe_malformed", _RETRY_AFTER_S) from error
        return replace(event, snapshot=snapshot, organization_id=event.organization_id or organization_in(document))


def _signature(call: Call) -> str:
    """Read the field, which must come once.

    Raises:
        WebhookRefused: It does not.
    """
    values = [value for name, value in call.arrived.incoming.fields if name.lower() == b"stripe-signature"]
    if len(values) != 1:
        raise WebhookRefused("headers_missing")
    return values[0].decode("latin-1")
