"""`gateway users`: the command line alone; what it does stands in `users.py`."""

from typing import Annotated, Literal

import cyclopts
from cyclopts import Parameter, validators

from gateway.commands.command_line import ConfigFile, Json, run_and_show

users_app = cyclopts.App(name="users", help="People: who they are, their role, and whether they may call.")

Word = Annotated[str, Parameter(help="usr_…, Clerk's user_…, an e-mail address, or the id of one of their API tokens.")]


@users_app.command(name="show")
def users_show(user: Word, *, config: ConfigFile = None, json: Json = False) -> int:
    """Show a user and the organizations they belong to."""
    from gateway.commands import users as commands

    return run_and_show("users show", config, lambda settings: commands.show(settings, user, as_json=json))


@users_app.command(name="list")
def users_list(
    *,
    search: Annotated[str | None, Parameter(help="An id, or how an e-mail address begins.")] = None,
    limit: Annotated[int, Parameter(help="Most users listed.", validator=validators.Number(gte=1, lte=10_000))] = 100,
    config: ConfigFile = None,
    json: Json = False,
) -> int:
    """List users, those who came last first."""
    from gateway.commands import users as commands

    return run_and_show("users list", config, lambda settings: commands.list_of(settings, search, limit, as_json=json))


@users_app.command(name="set-role")
def users_set_role(user: Word, role: Literal["ADMIN", "USER"], *, config: ConfigFile = None, json: Json = False) -> int:
    """Give a user a role in every organization; bootstrap.admin_emails leaves it alone from then on."""
    from gateway.commands import users as commands
    from provisioning.records import Role

    return run_and_show(
        "users set-role", config, lambda settings: commands.set_role(settings, user, Role(role), as_json=json)
    )


@users_app.command(name="disable")
def users_disable(user: Word, *, config: ConfigFile = None, json: Json = False) -> int:
    """Refuse a user everything; running gateways that share redis.url see it at once."""
    from gateway.commands import users as commands

    return run_and_show("users disable", config, lambda settings: commands.disable(settings, user, as_json=json))


@users_app.command(name="sign-out")
def users_sign_out(
    user: Word,
    *,
    api_tokens: Annotated[bool, Parameter(help="Revoke their API tokens too.", negative=())] = False,
    config: ConfigFile = None,
    json: Json = False,
) -> int:
    """End all sessions of a user; running gateways that share redis.url see it at once; one tells Clerk."""
    from gateway.commands import users as commands

    return run_and_show(
        "users sign-out",
        config,
        lambda settings: commands.sign_out(settings, user, api_tokens=api_tokens, as_json=json),
    )


@users_app.command(name="enable")
def users_enable(user: Word, *, config: ConfigFile = None, json: Json = False) -> int:
    """Let a disabled user call again."""
    from gateway.commands import users as commands

    return run_and_show("users enable", config, lambda settings: commands.enable(settings, user, as_json=json))
