"""Who manages API tokens, and what they may do at this moment."""

from dataclasses import dataclass, replace

from provisioning.audit import Origin
from provisioning.database.pool import Connection
from provisioning.errors import MakerEnded, ScopesExceeded

_SCOPES = """
    SELECT scopes FROM api_tokens
    WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
"""
MANAGE_SCOPE = "tokens:manage"


@dataclass(frozen=True, slots=True)
class Maker:
    """Who manages tokens: their own, of the organization they act in.

    Attributes:
        user_id: Whose tokens, `usr_…`.
        organization_id: The organization the caller acts in: a new token is for this one, and no other's is there.
        scopes: Of the token that asks; None: a session, or an operator, which scopes do not limit.
        origin: For the audit events.
    """

    user_id: str
    organization_id: str
    scopes: frozenset[str] | None
    origin: Origin


async def as_of_now(connection: Connection, maker: Maker) -> Maker:
    """Give the same maker with no more scopes than its token has now.

    What a process believes of a token may be from before another one revoked or narrowed it. For a request that is
    bounded by `cache.near_ttl`; a token made meanwhile would go on.

    Args:
        connection: Within the transaction that changes something.
        maker: As the request has it.

    Raises:
        MakerEnded: Its token has.
        ScopesExceeded: It manages no tokens any more.
    """
    if maker.scopes is None:
        return maker
    row = await connection.fetchrow(_SCOPES, maker.origin.actor_id, maker.user_id)
    if row is None:
        raise MakerEnded
    scopes = maker.scopes.intersection(row["scopes"])
    if MANAGE_SCOPE not in scopes:
        raise ScopesExceeded((MANAGE_SCOPE,))
    return replace(maker, scopes=scopes)
