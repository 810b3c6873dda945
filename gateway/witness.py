"""What a request leaves behind in our records: uses of API tokens, logins, refusals. Noted in memory, never waited for.

Nothing of it is on the way of a caller whom the near cache knows.
"""

from dataclasses import dataclass

from gateway.actors.actor import Actor
from gateway.actors.beliefs import Caller
from gateway.actors.origin import origin_of
from gateway.credentials.kinds import CredentialKind
from gateway.edge.arrival import Arrived
from gateway.errors import PolicyDenied
from gateway.parts import Parts
from gateway.policy.routes import CompiledRoute
from provisioning.audit_notes import AuditNotes
from provisioning.database.pool import Database
from provisioning.denials import Denial
from provisioning.logins import Announce, Login, announce_nothing
from provisioning.records import Role
from provisioning.token_uses import TokenUses

ADMIN_SCOPE = "admin"


@dataclass(frozen=True, slots=True)
class Witness:
    """Told by the pipeline, and by whoever runs own endpoints."""

    token_uses: TokenUses
    notes: AuditNotes

    def resolved(self, caller: Caller, arrived: Arrived, now: float) -> None:
        """A caller was asked for who was not known: the first request with a credential, or the first in a while.

        Args:
            caller: Good.
            arrived: The request.
            now: Unix seconds.
        """
        actor = caller.actor
        principal = actor.principal
        if principal.kind is CredentialKind.API_TOKEN:
            # Here alone, and not where a token is known: none is known for longer than a use is noted once.
            if principal.token_id is not None:
                self.token_uses.note(principal.token_id, arrived.view.address)
        elif principal.kind is CredentialKind.SESSION and principal.session_id is not None and not principal.pending:
            logins = self.notes.logins
            if logins.wants(principal.session_id):
                origin = origin_of(actor, arrived)
                logins.note(Login(principal.session_id, caller.standing.user, actor.organization_id, origin, now))

    def refused(self, actor: Actor, arrived: Arrived, rule: CompiledRoute, error: Exception) -> None:
        """Somebody known may not do this; what only administrators may is put on record.

        Args:
            actor: Who.
            arrived: The request.
            rule: Of the route or own endpoint.
            error: Why; only a `PolicyDenied` is a verdict on this actor.
        """
        if isinstance(error, PolicyDenied) and is_for_administrators(rule):
            denial = Denial(
                origin_of(actor, arrived),
                actor.organization_id or None,
                rule.name,
                arrived.incoming.method,
                error.reason,
            )
            self.notes.denials.note(denial)


async def audit_notes(
    parts: Parts, database: Database, announce: Announce = announce_nothing, announced: object = None
) -> AuditNotes:
    """Begin to write what is noted, or carry it over.

    Args:
        parts: Of the settings.
        database: Where it is written.
        announce: Told of logins.
        announced: What `announce` is made of.
    """

    async def start() -> AuditNotes:
        notes = AuditNotes(database, announce)
        notes.start()
        return notes

    return await parts.hold("audit notes", (database, announced), start, AuditNotes.close)


def is_for_administrators(rule: CompiledRoute) -> bool:
    """Whether a rule lets nobody in but administrators, and programs of operators."""
    return ADMIN_SCOPE in rule.scopes or (bool(rule.roles) and Role.USER not in rule.roles)
