"""Signing keys of the key ring, sealed."""

from alembic import op

revision = "0004"
down_revision: str | None = "0003"

STATEMENTS = (
    # What a key is at a moment (published, active, retiring) follows from `signs_from` of it and of its successor, so
    # there is no state to keep in step. `sealed` opens under the master key and this `kid` alone.
    """
    CREATE TABLE signing_keys (
        kid text PRIMARY KEY,
        sealed bytea NOT NULL,
        signs_from timestamptz NOT NULL,
        created_at timestamptz NOT NULL
    )
    """,
)


def upgrade() -> None:
    """Make the table."""
    for statement in STATEMENTS:
        op.execute(statement)
