"""Roles that somebody set by hand, and what lists of people are read by."""

from alembic import op

revision = "0009"
down_revision: str | None = "0008"

STATEMENTS = (
    # A role that an operator or administrator set is theirs: `bootstrap.admin_emails` does not touch it any more.
    "ALTER TABLE users ADD COLUMN role_set_at timestamptz",
    "CREATE INDEX users_created ON users (created_at, id)",
    # Finds an address by its beginning too, whatever the collation of the database.
    "CREATE INDEX users_email_beginning ON users (lower(email) text_pattern_ops)",
    "DROP INDEX users_email",
    "CREATE INDEX memberships_since ON memberships (organization_id, created_at, user_id)",
    "DROP INDEX memberships_organization",
)


def upgrade() -> None:
    """Add the column and the indexes."""
    for statement in STATEMENTS:
        op.execute(statement)
