"""Subscriptions of organizations: trials of ours, and what Stripe says."""

from alembic import op

revision = "0006"
down_revision: str | None = "0005"

STATEMENTS = (
    # Facts alone: what follows from them at a moment is computed (`subscription_status.py`). Of a subscription at
    # Stripe the newest snapshot is kept with the event it came from, and when a payment was last made and last failed,
    # so that events may come in any order. `precedence` tells which row counts for an organization: the lowest, then
    # the latest.
    """
    CREATE TABLE subscriptions (
        id text PRIMARY KEY,
        organization_id text NOT NULL REFERENCES organizations (id),
        source text NOT NULL,
        plan text NOT NULL,
        status text,
        precedence smallint NOT NULL,
        started_at timestamptz NOT NULL DEFAULT now(),
        trial_ends_at timestamptz,
        current_period_end timestamptz,
        cancel_at_period_end boolean NOT NULL DEFAULT false,
        cancel_at timestamptz,
        canceled_at timestamptz,
        stripe_customer_id text,
        stripe_subscription_id text UNIQUE,
        livemode boolean,
        snapshot_status text,
        snapshot_at timestamptz,
        snapshot_event text,
        paid_at timestamptz,
        failed_at timestamptz,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT subscriptions_source CHECK (source IN ('trial', 'stripe')),
        CONSTRAINT subscriptions_trial CHECK (source <> 'trial' OR trial_ends_at IS NOT NULL),
        CONSTRAINT subscriptions_stripe CHECK (source <> 'stripe' OR stripe_subscription_id IS NOT NULL),
        CONSTRAINT subscriptions_snapshot CHECK (
            (snapshot_status IS NULL) = (snapshot_at IS NULL) AND (snapshot_at IS NULL) = (snapshot_event IS NULL)
        )
    )
    """,
    # Once per organization for ever: whoever comes second, from whatever process, is refused by this.
    "CREATE UNIQUE INDEX subscriptions_one_trial ON subscriptions (organization_id) WHERE source = 'trial'",
    "CREATE INDEX subscriptions_organization ON subscriptions (organization_id, precedence, started_at DESC, id)",
    """
    CREATE INDEX subscriptions_customer ON subscriptions (stripe_customer_id) WHERE stripe_customer_id IS NOT NULL
    """,
    # A trial that is taken out of the table could be had again.
    """
    CREATE FUNCTION refuse_to_forget_trial() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'trials are once per organization for ever: % is refused', TG_OP
            USING ERRCODE = 'insufficient_privilege';
    END
    $$
    """,
    """
    CREATE TRIGGER subscriptions_keep_trials BEFORE DELETE ON subscriptions
    FOR EACH ROW WHEN (OLD.source = 'trial') EXECUTE FUNCTION refuse_to_forget_trial()
    """,
)


def upgrade() -> None:
    """Make the table and its guards."""
    for statement in STATEMENTS:
        op.execute(statement)
