"""`POST /webhooks/clerk`: what Clerk tells of people, organizations, memberships and sessions.

Answered with 2xx only after what was told is on disk: Svix sends again whatever is answered otherwise.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from gateway.answer import Answer, json_answer
from gateway.api.endpoints import Call
from gateway.errors import StoreUnavailable, WebhookRefused
from gateway.revocation.changes import PersonChanged, SessionOver, SignedOut
from gateway.revocation.revocations import Revocations
from gateway.verify.svix import SvixSecrets, read_head
from provisioning.clerk_events import ClerkEvent, PersonGone, PersonTold, SessionEnded, parse_event
from provisioning.clerk_facts import ClerkFacts, Outcome
from provisioning.errors import DatabaseUnavailable, EventMalformed

BODY_CAP = 1024 * 1024
"""Bytes of one event: metadata and addresses of a person are some tens of thousands at most."""
FORGOTTEN_AT_ONCE = 500
"""Members of a deleted organization; then others have their turn on the loop."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ClerkWebhooks:
    """Answers Clerk.

    Attributes:
        revocations: Told, after the commit, what nobody may go on with.
        instance_id: `ins_…` every event must carry; None: any.
        clock: Unix seconds.
    """

    secrets: SvixSecrets
    facts: ClerkFacts
    revocations: Revocations
    instance_id: str | None
    clock: Callable[[], float]

    async def receive(self, call: Call) -> Answer:
        """Take one delivery.

        Raises:
            WebhookRefused: Not Clerk's, not this instance's, not of now, or malformed.
            ContentTooLarge: Over BODY_CAP.
            StoreUnavailable: It could not be written down; Svix sends it again.
        """
        head = read_head(call.arrived.incoming.fields, self.clock())
        body = await call.read_body(BODY_CAP)
        self.secrets.check(head, body)
        try:
            event = parse_event(body, head.sent_at)
        except EventMalformed:
            raise WebhookRefused("body_malformed") from None
        if self.instance_id not in (None, event.instance_id):
            raise WebhookRefused("instance_unknown")
        request_id = call.arrived.incoming.request_id
        try:
            outcome = await self.facts.receive(head.id, event, request_id)
        except DatabaseUnavailable as error:
            raise StoreUnavailable("database_unavailable") from error
        _log.info("webhook", source="clerk", type=event.kind, outcome=outcome.word, delivery_id=head.id)
        await self._tell(event, outcome)
        return json_answer(200, {"outcome": outcome.word})

    async def _tell(self, event: ClerkEvent, outcome: Outcome) -> None:
        if isinstance(event.fact, SessionEnded):  # sent again as well: what is over stays so
            told = event.fact
            self.revocations.tell(SessionOver(told.session_id, outcome.user_id, told.clerk_user_id))
        if isinstance(event.fact, PersonGone | PersonTold) and outcome.impersonator_ended:
            person = event.fact
            self.revocations.tell(SignedOut(person.clerk_user_id, person.at.timestamp(), outcome.user_id, acting=True))
        for number, one in enumerate(outcome.changed, 1):
            self.revocations.tell(PersonChanged(one.user_id, one.clerk_user_id, one.organization_id, one.closes))
            if number % FORGOTTEN_AT_ONCE == 0:
                await asyncio.sleep(0)
