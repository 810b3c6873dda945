"""The commands `gateway outbox` and `gateway worker`; like all of them thin, with what is heavy imported inside."""

from typing import Annotated, Literal

import cyclopts
from cyclopts import Parameter, validators

from gateway.commands.command_line import ConfigFile, Json, failed, loaded_settings, reason, run_and_show

outbox_app = cyclopts.App(name="outbox", help="What has to happen elsewhere (Slack, PostHog, Stripe) and has not yet.")


@outbox_app.command(name="list")
def outbox_list(
    *,
    topic: Annotated[
        Literal["slack", "posthog", "stripe", "profile", "sessions"] | None, Parameter(help="Only of this receiver.")
    ] = None,
    dead: Annotated[bool, Parameter(help="Only what was given up.", negative="")] = False,
    config: ConfigFile = None,
    json: Json = False,
) -> int:
    """List what is not delivered yet, and what was given up."""
    from gateway.commands import outbox as commands

    return run_and_show(
        "outbox list", config, lambda settings: commands.list_of(settings, topic, dead=dead, as_json=json)
    )


@outbox_app.command(name="retry")
def outbox_retry(
    row_id: Annotated[
        int | None, Parameter(help="As list shows it.", validator=validators.Number(gte=1, lt=2**63))
    ] = None,
    *,
    dead: Annotated[bool, Parameter(help="All that was given up.", negative="")] = False,
    config: ConfigFile = None,
    json: Json = False,
) -> int:
    """Try again now what was given up, or waits for its next attempt."""
    from gateway.commands import outbox as commands

    if (row_id is None) is not dead:
        return failed("gateway outbox retry: name one row by its id, or write --dead for all that was given up")
    return run_and_show("outbox retry", config, lambda settings: commands.retry(settings, row_id, as_json=json))


def worker(*, config: ConfigFile = None) -> int:
    """Deliver the outbox, and nothing else, until SIGTERM; beside `serve` with outbox.deliver: false."""
    settings = loaded_settings(config)
    if settings is None:
        return 2
    if settings.database.url is None:
        return failed("gateway worker: database.url is not set; serve delivers what the embedded database holds")
    import uvloop

    from gateway.commands.outbox_worker import work
    from gateway.telemetry.logs import configure_logs
    from provisioning.errors import ProvisioningError

    configure_logs()
    try:
        uvloop.run(work(settings))
    except (OSError, ProvisioningError) as error:
        return failed(f"gateway worker: {reason(error)}")
    return 0
