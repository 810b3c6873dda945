"""Why a delivery to Clerk failed, by how its Backend API ended a question (`clerk_api.OUTCOMES`). Pure."""

from provisioning.outbox.effects import Reason

CLERK_REASONS: dict[str, Reason] = {
    "timeout": "timeout",
    "unreachable": "unreachable",
    "failed": "failed",
    "rate_limited": "rate_limited",
    "cooling_down": "rate_limited",
    "refused": "refused",
    "malformed": "malformed",
}
