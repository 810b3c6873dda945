"""Audit events, append-only, in one hash chain per organization."""

from alembic import op

revision = "0003"
down_revision: str | None = "0002"

STATEMENTS = (
    # No foreign keys: an event outlives what it tells of. `metadata` is json, not jsonb, since its bytes are hashed.
    """
    CREATE TABLE audit_events (
        chain text NOT NULL,
        sequence bigint NOT NULL,
        id text NOT NULL UNIQUE,
        action text NOT NULL,
        actor_kind text NOT NULL,
        actor_id text,
        impersonator_id text,
        targets text[] NOT NULL,
        address text,
        user_agent text,
        request_id text,
        metadata json NOT NULL,
        occurred_at timestamptz NOT NULL,
        hash bytea NOT NULL,
        PRIMARY KEY (chain, sequence),
        CONSTRAINT audit_events_hash CHECK (octet_length(hash) = 32)
    )
    """,
    # The end of each chain: its row is the lock that puts writers in line.
    """
    CREATE TABLE audit_chains (
        chain text PRIMARY KEY,
        sequence bigint NOT NULL,
        hash bytea NOT NULL
    ) WITH (fillfactor = 50)
    """,
    """
    CREATE FUNCTION refuse_to_rewrite_audit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'insufficient_privilege';
    END
    $$
    """,
    # For each statement, so that one that meets no row is refused as well; ALWAYS, so that no session can set it aside
    # by calling itself a replica.
    """
    CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_rewrite_audit()
    """,
    "ALTER TABLE audit_events ENABLE ALWAYS TRIGGER audit_events_append_only",
    """
    CREATE TRIGGER audit_chains_only_grow BEFORE DELETE OR TRUNCATE ON audit_chains
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_rewrite_audit()
    """,
    "ALTER TABLE audit_chains ENABLE ALWAYS TRIGGER audit_chains_only_grow",
)


def upgrade() -> None:
    """Make the tables and their guards."""
    for statement in STATEMENTS:
        op.execute(statement)
