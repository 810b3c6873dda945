"""The outbox: what has to happen elsewhere, written with its cause."""

from alembic import op

revision = "0005"
down_revision: str | None = "0004"

STATEMENTS = (
    # While a row is being delivered (`taken_by` names by whom), `next_attempt_at` is the end of its lease. `payload` is
    # erased by the delivery; the row stays for a while, so that its key does not come again. `id` is the order within
    # a stream. No foreign keys: what was promised is done whatever became of its cause.
    """
    CREATE TABLE outbox (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        topic text NOT NULL,
        kind text NOT NULL,
        key text NOT NULL,
        stream text,
        payload jsonb NOT NULL,
        state text NOT NULL DEFAULT 'pending',
        created_at timestamptz NOT NULL DEFAULT now(),
        next_attempt_at timestamptz NOT NULL DEFAULT now(),
        taken_by text,
        attempts integer NOT NULL DEFAULT 0,
        rejections integer NOT NULL DEFAULT 0,
        first_attempt_at timestamptz,
        last_error text,
        finished_at timestamptz,
        CONSTRAINT outbox_key UNIQUE (topic, key),
        CONSTRAINT outbox_state CHECK (state IN ('pending', 'delivered', 'dead')),
        CONSTRAINT outbox_finished CHECK ((state = 'pending') = (finished_at IS NULL)),
        CONSTRAINT outbox_payload CHECK (jsonb_typeof(payload) = 'object'),
        CONSTRAINT outbox_last_error CHECK (char_length(last_error) <= 40)
    )
    """,
    "CREATE INDEX outbox_due ON outbox (topic, next_attempt_at, id) WHERE state = 'pending'",
    "CREATE INDEX outbox_streams ON outbox (topic, stream, id) WHERE state = 'pending' AND stream IS NOT NULL",
    "CREATE INDEX outbox_delivered ON outbox (finished_at) WHERE state = 'delivered'",
    "CREATE INDEX outbox_dead ON outbox (topic, finished_at) WHERE state = 'dead'",
)


def upgrade() -> None:
    """Make the table."""
    for statement in STATEMENTS:
        op.execute(statement)
