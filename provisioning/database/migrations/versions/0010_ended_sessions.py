"""Sessions of Clerk's that are over before their tokens are, and people who were signed out everywhere."""

from alembic import op

revision = "0010"
down_revision: str | None = "0009"

STATEMENTS = (
    # `noted_at` is when a row was written, not when its transaction began: whoever looks for what is new goes by it.
    # `until`: the last token of the session has died, and nothing that was minted for it lives.
    """
    CREATE TABLE ended_sessions (
        session_id text PRIMARY KEY,
        clerk_user_id text,
        noted_at timestamptz NOT NULL,
        until timestamptz NOT NULL
    )
    """,
    "CREATE INDEX ended_sessions_noted ON ended_sessions (noted_at)",
    "CREATE INDEX ended_sessions_until ON ended_sessions (until)",
    # By Clerk's id: webhooks tell of people we have not met. `before`: what was issued up to then counts no more;
    # `acting`: only what was issued to them as somebody else.
    """
    CREATE TABLE signed_out (
        clerk_user_id text NOT NULL,
        acting boolean NOT NULL,
        before timestamptz NOT NULL,
        noted_at timestamptz NOT NULL,
        until timestamptz NOT NULL,
        PRIMARY KEY (clerk_user_id, acting)
    )
    """,
    "CREATE INDEX signed_out_noted ON signed_out (noted_at)",
    "CREATE INDEX signed_out_until ON signed_out (until)",
    "CREATE INDEX logins_user ON logins (user_id)",
)


def upgrade() -> None:
    """Make the tables and their indexes."""
    for statement in STATEMENTS:
        op.execute(statement)
