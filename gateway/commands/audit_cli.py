"""The commands `gateway audit`: the command line alone; what they do stands in `audit.py`."""

from typing import Annotated

import cyclopts
from cyclopts import Parameter

from gateway.commands.command_line import ConfigFile, Json, run_and_show

audit_app = cyclopts.App(name="audit", help="The audit trail: whether it is whole, and all of it.")

Chain = Annotated[str | None, Parameter(help="org_…, or gateway for what belongs to none. Default: all.")]


@audit_app.command(name="verify")
def audit_verify(*, organization: Chain = None, config: ConfigFile = None, json: Json = False) -> int:
    """Look whether every audit event follows from the one before it; exit code 1 when one does not."""
    from gateway.commands import audit as commands

    return run_and_show(
        "audit verify", config, lambda settings: commands.verify_chains(settings, organization, as_json=json)
    )


@audit_app.command(name="export")
def audit_export(
    *,
    organization: Chain = None,
    since: Annotated[str | None, Parameter(help="From this moment on, ISO 8601; UTC unless it says.")] = None,
    until: Annotated[str | None, Parameter(help="Up to this moment, without it.")] = None,
    config: ConfigFile = None,
) -> int:
    """Print audit events, one JSON object a line, with what it takes to verify them elsewhere."""
    from gateway.commands import audit as commands

    wanted = commands.Range(since, until)
    return run_and_show("audit export", config, lambda settings: commands.export_events(settings, organization, wanted))
