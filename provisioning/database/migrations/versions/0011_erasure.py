"""What was left of people who are deleted, and the ways to find it."""

from alembic import op

revision = "0011"
down_revision: str | None = "0010"

STATEMENTS = (
    "CREATE INDEX users_deleted ON users (deleted_at) WHERE deleted_at IS NOT NULL",
    "CREATE INDEX logins_impersonator ON logins (impersonator_id) WHERE impersonator_id IS NOT NULL",
    "CREATE INDEX outbox_person ON outbox ((payload ->> 'userId')) WHERE state <> 'delivered'",
    # What `erasure.py` does from now on at once, for those who were deleted before.
    """
    UPDATE organizations o SET name = 'Personal', updated_at = now()
    FROM users u WHERE u.deleted_at IS NOT NULL AND o.personal_owner_id = u.id AND o.name <> 'Personal'
    """,
    """
    UPDATE api_tokens t SET name = 'deleted', last_used_address = NULL, sealed_secret = NULL, sealed_until = NULL
    FROM users u WHERE u.deleted_at IS NOT NULL AND t.user_id = u.id
    """,
    "DELETE FROM logins l USING users u WHERE u.deleted_at IS NOT NULL AND l.user_id = u.id",
    """
    UPDATE logins l SET address = NULL, user_agent = NULL
    FROM users u WHERE u.deleted_at IS NOT NULL AND l.impersonator_id = u.clerk_id
    """,
    """
    UPDATE outbox o SET payload = o.payload || '{"email": null, "erased": true}'
    FROM users u, organizations g
    WHERE u.deleted_at IS NOT NULL AND o.state <> 'delivered' AND o.payload ->> 'userId' = u.id
      AND o.topic = 'stripe' AND g.id = o.payload ->> 'organizationId' AND g.clerk_id IS NOT NULL
    """,
    """
    UPDATE outbox o SET state = 'delivered', finished_at = now(), taken_by = NULL, last_error = NULL, payload = '{}'
    FROM users u
    WHERE u.deleted_at IS NOT NULL AND o.state <> 'delivered' AND o.payload ->> 'userId' = u.id
      AND NOT o.payload ? 'erased'
    """,
)


def upgrade() -> None:
    """Add the indexes, and erase."""
    for statement in STATEMENTS:
        op.execute(statement)
