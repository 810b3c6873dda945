"""What of a person goes when Clerk says that they are deleted: whatever names them, or tells where they were.

Ids stay, since the tombstone refuses by them, and times. So does the audit trail, which nothing is taken out of
(decision 032).
"""

from collections.abc import Sequence
from datetime import timedelta

from provisioning.database.pool import Connection, Database
from provisioning.profile import Profile, personal_organization_name

NAMELESS = "deleted"
"""The name of a deleted person's API tokens."""
LATE = timedelta(days=1)
BATCH = 1000

_USER = """
    UPDATE users SET deleted_at = now(), updated_at = now(), name = NULL, email = NULL, verified_email = NULL,
                     settings = '{}', banned_at = NULL
    WHERE id = $1
"""
# It was named after them.
_PERSONAL_ORGANIZATION = "UPDATE organizations SET name = $2, updated_at = now() WHERE personal_owner_id = $1"
# Rows that others lock several of are locked in one order by all, here and below.
_TOKENS = f"""
    UPDATE api_tokens SET name = '{NAMELESS}', last_used_address = NULL, sealed_secret = NULL, sealed_until = NULL
    WHERE id IN (
        SELECT id FROM api_tokens
        WHERE user_id = ANY($1::text[])
          AND (name <> '{NAMELESS}' OR last_used_address IS NOT NULL OR sealed_until IS NOT NULL)
        ORDER BY id FOR NO KEY UPDATE
    )
"""  # noqa: S608 - a constant of our own, here and below
# In the order in which `Logins` writes them. What is written from here on is left to `erase_late`.
_LOCK_LOGINS = """
    SELECT session_id FROM logins WHERE session_id IN (
        SELECT session_id FROM logins WHERE user_id = ANY($1::text[]) UNION ALL
        SELECT l.session_id FROM logins l JOIN users u ON l.impersonator_id = u.clerk_id
        WHERE u.id = ANY($1::text[]) AND (l.address IS NOT NULL OR l.user_agent IS NOT NULL)
    ) ORDER BY session_id COLLATE "C" FOR UPDATE
"""
_LOGINS = "DELETE FROM logins WHERE session_id = ANY($2::text[]) AND user_id = ANY($1::text[])"
# As somebody else: the session is that one's, the address theirs.
_IMPERSONATIONS = """
    UPDATE logins l SET address = NULL, user_agent = NULL FROM users u
    WHERE l.session_id = ANY($2::text[]) AND u.id = ANY($1::text[]) AND l.impersonator_id = u.clerk_id
"""
# An organization of Clerk's goes on without them, and with its trial; Stripe has to be searched for a customer that an
# attempt may have made with the address in it, for its key is another one without.
_TRIALS = """
    UPDATE outbox o SET payload = o.payload || '{"email": null, "erased": true}' FROM organizations g
    WHERE o.state <> 'delivered' AND o.payload ->> 'userId' = ANY($1::text[])
      AND o.topic = 'stripe' AND g.id = o.payload ->> 'organizationId' AND g.clerk_id IS NOT NULL
"""
# Nobody is told of them any more. Whoever is delivering a row at this moment finds it is no longer theirs.
_UNTOLD = """
    UPDATE outbox SET state = 'delivered', finished_at = now(), taken_by = NULL, last_error = NULL, payload = '{}'
    WHERE state <> 'delivered' AND payload ->> 'userId' = ANY($1::text[]) AND NOT payload ? 'erased'
"""
_LATELY = "SELECT id FROM users WHERE deleted_at > now() - $1::interval"


async def erase(connection: Connection, user_id: str) -> None:
    """Leave a tombstone, inside the caller's transaction, before its audit events.

    Args:
        connection: Within a transaction that has the person's turn (`persons.take_turn`).
        user_id: `usr_…`.
    """
    await connection.execute(_USER, user_id)
    await connection.execute(_PERSONAL_ORGANIZATION, user_id, personal_organization_name(Profile()))
    await _erase_traces(connection, [user_id])


async def erase_late(database: Database) -> int:
    """Erase again what was noted of people while they were being deleted: logins and uses are written beside requests.

    Returns:
        How many people were looked at.

    Raises:
        DatabaseUnavailable: The rest is for the next time.
    """
    async with database.connection() as connection:
        rows = await connection.fetch(_LATELY, LATE)
    people = [row["id"] for row in rows]
    for first in range(0, len(people), BATCH):
        async with database.transaction() as connection:
            await _erase_traces(connection, people[first : first + BATCH])
    return len(people)


async def _erase_traces(connection: Connection, people: Sequence[str]) -> None:
    await connection.execute(_TOKENS, people)
    logins = [row["session_id"] for row in await connection.fetch(_LOCK_LOGINS, people)]
    await connection.execute(_LOGINS, people, logins)
    await connection.execute(_IMPERSONATIONS, people, logins)
    await connection.execute(_TRIALS, people)
    await connection.execute(_UNTOLD, people)
