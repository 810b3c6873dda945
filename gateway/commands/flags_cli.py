"""`gateway flags`: the command line alone; what it does stands in `flags.py`."""

from typing import Annotated

import cyclopts
from cyclopts import Parameter

from gateway.commands.command_line import ConfigFile, Json, run_and_show

flags_app = cyclopts.App(name="flags", help="Feature flags, as one caller has them.")


@flags_app.command(name="evaluate")
def flags_evaluate(
    *,
    user: Annotated[str, Parameter(help="Whose: usr_… or Clerk's user_….")],
    organization: Annotated[
        str | None,
        Parameter(
            name=["--org", "--organization"], help="org_…, ours or Clerk's. Default: the only one the user is in."
        ),
    ] = None,
    config: ConfigFile = None,
    json: Json = False,
) -> int:
    """Evaluate the declared flags for a user in an organization, and tell who is told them."""
    from gateway.commands import flags as commands

    return run_and_show(
        "flags evaluate", config, lambda settings: commands.evaluate(settings, user, organization, as_json=json)
    )
