"""Ways into the audit trail, and which sessions were seen."""

from alembic import op

revision = "0008"
down_revision: str | None = "0007"

STATEMENTS = (
    # A page of an organization's trail is read from one of the first three, newest first, without sorting. Prefixes of
    # actions (`user.*`) are ranges, which need an order by bytes.
    "CREATE INDEX audit_events_time ON audit_events (chain, occurred_at, sequence)",
    "CREATE INDEX audit_events_actor ON audit_events (chain, actor_id, occurred_at, sequence)",
    'CREATE INDEX audit_events_action ON audit_events (chain, action COLLATE "C", occurred_at, sequence)',
    # Targets are several. Their ids are random, so a look into all chains finds hardly more than one into a single one.
    # Without a list of what is not entered yet: nobody's insertion shall have to enter what others left there.
    "CREATE INDEX audit_events_targets ON audit_events USING gin (targets) WITH (fastupdate = off)",
    # A session is here once, by Clerk's id: whoever inserts it has seen the login, and nobody else has. The free space
    # is for `seen_at`, which is written once a day and tells which sessions are over.
    """
    CREATE TABLE logins (
        session_id text PRIMARY KEY,
        user_id text NOT NULL,
        organization_id text NOT NULL,
        impersonator_id text,
        address text,
        user_agent text,
        at timestamptz NOT NULL,
        seen_at timestamptz NOT NULL
    ) WITH (fillfactor = 80)
    """,
    "CREATE INDEX logins_seen ON logins (seen_at)",
)


def upgrade() -> None:
    """Make the indices and the table."""
    for statement in STATEMENTS:
        op.execute(statement)
