"""People, organizations, and who belongs where."""

from alembic import op

revision = "0001"
down_revision: str | None = None

STATEMENTS = (
    # E-mail addresses are not unique: Clerk lets one address belong to several people over time, and claim addresses
    # are unproven, so a stranger could otherwise lock somebody out. The size limit is `users.SETTINGS_BYTES`.
    """
    CREATE TABLE users (
        id text PRIMARY KEY,
        clerk_id text NOT NULL UNIQUE,
        email text,
        name text,
        role text NOT NULL DEFAULT 'USER',
        settings jsonb NOT NULL DEFAULT '{}',
        disabled_at timestamptz,
        deleted_at timestamptz,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT users_role CHECK (role IN ('USER', 'ADMIN')),
        CONSTRAINT users_settings_object CHECK (jsonb_typeof(settings) = 'object'),
        CONSTRAINT users_settings_size CHECK (octet_length(settings::text) <= 65536)
    )
    """,
    "CREATE INDEX users_email ON users (lower(email))",
    # An organization is Clerk's or personal, never both and never neither.
    """
    CREATE TABLE organizations (
        id text PRIMARY KEY,
        clerk_id text UNIQUE,
        name text NOT NULL,
        personal_owner_id text UNIQUE REFERENCES users (id),
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT organizations_kind CHECK ((clerk_id IS NULL) <> (personal_owner_id IS NULL))
    )
    """,
    """
    CREATE TABLE memberships (
        user_id text NOT NULL REFERENCES users (id),
        organization_id text NOT NULL REFERENCES organizations (id),
        role text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (user_id, organization_id)
    )
    """,
    "CREATE INDEX memberships_organization ON memberships (organization_id, user_id)",
)


def upgrade() -> None:
    """Make the tables."""
    for statement in STATEMENTS:
        op.execute(statement)
