"""API tokens."""

from alembic import op

revision = "0002"
down_revision: str | None = "0001"

STATEMENTS = (
    # Only the SHA-256 of a token is kept. The one exception is the token made at sign-up, whose text waits here,
    # sealed, until it is revealed or its time is over. The free space is for `last_used_at`, which no index holds: such
    # an update stays in its page. `replaced_by` is no foreign key: deleting old rows would lock others for it.
    """
    CREATE TABLE api_tokens (
        id text PRIMARY KEY,
        public_id text NOT NULL UNIQUE,
        digest bytea NOT NULL,
        user_id text NOT NULL REFERENCES users (id),
        organization_id text NOT NULL REFERENCES organizations (id),
        name text NOT NULL,
        scopes text[] NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz,
        last_used_at timestamptz,
        last_used_address text,
        revoked_at timestamptz,
        expiry_noted_at timestamptz,
        replaced_by text,
        sealed_secret bytea,
        sealed_until timestamptz,
        CONSTRAINT api_tokens_digest CHECK (octet_length(digest) = 32),
        CONSTRAINT api_tokens_public_id CHECK (public_id ~ '^[0-9A-Za-z]{12}$'),
        CONSTRAINT api_tokens_name CHECK (char_length(name) BETWEEN 1 AND 100),
        CONSTRAINT api_tokens_sealed CHECK ((sealed_secret IS NULL) = (sealed_until IS NULL))
    ) WITH (fillfactor = 90)
    """,
    "CREATE INDEX api_tokens_user ON api_tokens (user_id, created_at)",
    # What the reaper looks for: ended and not noted, noted or revoked long ago, sealed and unread. All small.
    """
    CREATE INDEX api_tokens_expiring ON api_tokens (expires_at)
    WHERE expires_at IS NOT NULL AND expiry_noted_at IS NULL AND revoked_at IS NULL
    """,
    """
    CREATE INDEX api_tokens_ended ON api_tokens (coalesce(revoked_at, expiry_noted_at))
    WHERE revoked_at IS NOT NULL OR expiry_noted_at IS NOT NULL
    """,
    "CREATE INDEX api_tokens_sealed ON api_tokens (sealed_until) WHERE sealed_until IS NOT NULL",
    "CREATE INDEX api_tokens_replaced_by ON api_tokens (replaced_by) WHERE replaced_by IS NOT NULL",
)


def upgrade() -> None:
    """Make the table."""
    for statement in STATEMENTS:
        op.execute(statement)
