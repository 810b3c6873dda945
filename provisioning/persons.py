"""What first sight and webhooks share about one person: turns, and linking a new Clerk id to the row that is theirs."""

from provisioning.audit import Event, Origin
from provisioning.database.pool import Connection
from provisioning.records import User

# A lock of the transaction, which leaves nothing behind on the connection. A row could not stand for somebody whom we
# have not heard of, or who left an organization before.
_TAKE_TURN = "SELECT pg_advisory_xact_lock(hashtextextended('person ' || $1::text, 0))"
_SAME_ADDRESS = """
    SELECT id, clerk_id FROM users WHERE lower(verified_email) = lower($1) AND deleted_at IS NULL LIMIT 2 FOR UPDATE
"""
# What Clerk said of the old account does not order what it says of the new one. A ban stands until Clerk says of the
# new one that there is none.
_LINK = "UPDATE users SET clerk_id = $2, clerk_updated_at = NULL, updated_at = now() WHERE id = $1"


async def take_turn(connection: Connection, clerk_user_id: str) -> None:
    """Wait until nobody else's transaction is about this person; theirs wait for ours.

    Before any other lock of the transaction, and for one person at most: so nobody who waits here is waited for.
    """
    await connection.execute(_TAKE_TURN, clerk_user_id)


async def link(connection: Connection, verified_email: str | None, clerk_user_id: str) -> str | None:
    """Give the one row with this address to another Clerk id, which has none; gives the id it had before.

    The row of somebody disabled or banned is linked as well, and they stay so. When several rows have the address,
    nobody can tell whose it is, and none is linked.

    Args:
        connection: Within a transaction, after `take_turn`.
        verified_email: As Clerk verified it, compared without case; None: nothing is linked.
        clerk_user_id: Clerk's `user_…`, new to us.
    """
    if verified_email is None:
        return None
    rows = await connection.fetch(_SAME_ADDRESS, verified_email)
    if len(rows) != 1:
        return None
    await connection.execute(_LINK, rows[0]["id"], clerk_user_id)
    return str(rows[0]["clerk_id"])


def linked_event(user: User, clerk_id_before: str, organization_id: str | None, origin: Origin) -> Event:
    """Put a linking into words; in an organization's chain, or in the gateway's own."""
    facts = {"clerkId": user.clerk_id, "clerkIdBefore": clerk_id_before}
    return Event("user.linked", organization_id, origin, (user.id,), facts)
