"""What Clerk's webhooks tell: which of two tellings is newer, who left, and which deliveries are known."""

from alembic import op

revision = "0007"
down_revision: str | None = "0006"

STATEMENTS = (
    # `clerk_updated_at` orders events among themselves. `banned_at` is Clerk's and `disabled_at` an operator's: neither
    # undoes the other. `verified_email` is the primary address as Clerk verified it; `email` may be a mere claim.
    # `unseen`: webhooks told of the person, and nobody came with a credential of theirs yet.
    """
    ALTER TABLE users
        ADD COLUMN clerk_updated_at timestamptz,
        ADD COLUMN banned_at timestamptz,
        ADD COLUMN verified_email text,
        ADD COLUMN unseen boolean NOT NULL DEFAULT false
    """,
    "CREATE INDEX users_verified_email ON users (lower(verified_email)) WHERE verified_email IS NOT NULL",
    "ALTER TABLE organizations ADD COLUMN clerk_updated_at timestamptz, ADD COLUMN deleted_at timestamptz",
    # When Clerk said what the row says: `updated_at` of an event, or `iat` of a token.
    "ALTER TABLE memberships ADD COLUMN told_at timestamptz",
    # By Clerk's ids, since one may leave what we have not heard of yet. Kept for ever: events can be sent again at any
    # time, and none from before may bring a membership back.
    """
    CREATE TABLE departures (
        clerk_user_id text NOT NULL,
        clerk_organization_id text NOT NULL,
        left_at timestamptz NOT NULL,
        PRIMARY KEY (clerk_user_id, clerk_organization_id)
    )
    """,
    """
    CREATE TABLE webhook_deliveries (
        source text NOT NULL,
        delivery_id text NOT NULL,
        received_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (source, delivery_id)
    )
    """,
    "CREATE INDEX webhook_deliveries_received ON webhook_deliveries (received_at)",
)


def upgrade() -> None:
    """Make tables and columns."""
    for statement in STATEMENTS:
        op.execute(statement)
