"""The `gateway` command: thin, and quick to say `--help`, so everything heavy is imported inside the commands.

Exit codes: 0 it worked; 1 it did not, or `check` found problems; 2 the settings cannot be used, or the command line.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter, validators

from gateway import __version__
from gateway.commands.audit_cli import audit_app
from gateway.commands.command_line import ConfigFile, Json
from gateway.commands.command_line import config_path as _config_path
from gateway.commands.command_line import errors as _errors
from gateway.commands.command_line import failed as _failed
from gateway.commands.command_line import loaded as _loaded
from gateway.commands.command_line import loaded_settings as _settings
from gateway.commands.command_line import out as _out
from gateway.commands.command_line import painted as _painted
from gateway.commands.command_line import reason as _reason
from gateway.commands.command_line import run_and_show as _run_and_show
from gateway.commands.outbox_cli import outbox_app, worker

_PORT = validators.Number(gte=0, lte=65535)
_HEALTH_DEADLINE_S = 3.0

app = cyclopts.App(
    name="gateway",
    help="Authentication sidecar and reverse proxy: proves who calls and tells the upstream in headers it can trust.",
    version=__version__,
    result_action="return_value",  # the exit code is ours to set, in `main`
)

tokens_app = cyclopts.App(name="tokens", help="API tokens of users, and system tokens, for operators.")
app.command(tokens_app)
keys_app = cyclopts.App(name="keys", help="The key ring: what signs minted tokens and assertions.")
app.command(keys_app)
app.command(audit_app)
app.command(outbox_app)
app.command(worker)
app.command("gateway.commands.flags_cli:flags_app", name="flags", help="Feature flags, as one caller has them.")
app.command(
    "gateway.commands.user_cli:users_app",
    name="users",
    help="People: who they are, their role, and whether they may call.",
)

DataDir = Annotated[
    Path | None,
    Parameter(help="Folder of the database and the keys of `gateway dev`. Default: the user's data folder."),
]


def main() -> None:
    """Run the command line of this process and end it with the command's exit code."""
    try:
        result = app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `gateway schema | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(result if isinstance(result, int) else 0)


@app.command
def serve(*, config: ConfigFile = None) -> int:
    """Serve requests until SIGTERM; take changed settings into force, at once or on SIGHUP."""
    from config.watch import Source

    source = Source(_config_path(config), os.environ)
    settings = _loaded(source.load)
    if settings is None:
        return 2
    # It would end the process. Until there is something to reload, a change is noticed without it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    import uvloop

    from gateway.app import serve as serve_settings
    from gateway.errors import GatewayError
    from gateway.parts import ComposeFailed
    from gateway.telemetry.logs import configure_logs
    from gateway.workers.supervisor import WorkerFailed, supervise
    from provisioning.errors import ProvisioningError

    configure_logs()
    try:
        if settings.workers > 1:
            uvloop.run(supervise(settings, source))
        else:
            uvloop.run(serve_settings(settings, source))
    except (OSError, GatewayError, ProvisioningError, WorkerFailed, ComposeFailed) as error:
        return _failed(f"gateway serve: {_reason(error)}")
    return 0


@app.command
def check(*, config: ConfigFile = None, json: Json = False) -> int:
    """Validate the settings, print the route table and what looks unintended."""
    from config.load import load
    from config.problems import SettingsInvalid
    from gateway.report import json_report, route_table

    try:
        loaded = load(_config_path(config), os.environ)
    except SettingsInvalid as invalid:
        if json:
            _out(json_report(invalid.problems, (), ()))
        _errors(invalid.problems)
        return 1
    if json:
        _out(json_report((), loaded.warnings, loaded.settings.routes))
        return 0
    _out(*route_table(loaded.settings.routes))
    _painted("yellow", "warning: ", loaded.warnings)
    return 0


@app.command
def schema(*, markdown: Annotated[bool, Parameter(help="Print the reference for people instead.")] = False) -> None:
    """Print the JSON Schema of the settings file."""
    from config import reference

    if markdown:
        sys.stdout.write(reference.markdown())
        return
    import json

    _out(json.dumps(reference.schema(), indent=2, ensure_ascii=False))


@app.command
def migrate(
    *,
    config: ConfigFile = None,
    check: Annotated[bool, Parameter(help="Only list what is pending; exit code 1 when something is.")] = False,
) -> int:
    """Bring the database schema up to date."""
    settings = _settings(config)
    if settings is None:
        return 2
    secret = settings.database.direct_url or settings.database.url
    if secret is None:
        return _failed("gateway migrate: database.url is not set; the embedded database is migrated by serve")
    import asyncio

    from provisioning.database.migrate import pending, upgrade
    from provisioning.errors import ProvisioningError

    try:
        revisions = asyncio.run((pending if check else upgrade)(secret.get_secret_value()))
    except (OSError, ProvisioningError) as error:
        return _failed(f"gateway migrate: {_reason(error)}")
    _out(*(f"{'pending' if check else 'applied'} {revision}" for revision in revisions))
    if not revisions:
        _out("the schema is up to date")
    return 1 if check and revisions else 0


@app.command
def health(
    *,
    config: ConfigFile = None,
    url: Annotated[
        str | None, Parameter(help="Admin port, such as http://127.0.0.1:9464; not from the settings.")
    ] = None,
) -> int:
    """Ask a running gateway whether it is ready: a probe for containers."""
    from gateway.probe import probe

    if url is None:
        settings = _settings(config)
        if settings is None:
            return 1
        url = f"http://{settings.admin.listen}"
    ready, line = probe(url, _HEALTH_DEADLINE_S)
    _out(line) if ready else _failed(line)
    return 0 if ready else 1


@app.command
def dev(
    *,
    upstream: Annotated[
        str | None, Parameter(help="Your own application, such as http://127.0.0.1:3000, instead of the demo upstream.")
    ] = None,
    port: Annotated[int, Parameter(help="Port of the gateway; 0 lets the system choose.", validator=_PORT)] = 8080,
    admin_port: Annotated[int, Parameter(help="Port of metrics and health.", validator=_PORT)] = 9464,
    data_dir: DataDir = None,
) -> int:
    """Run everything on this machine: gateway, PostgreSQL, a local issuer, a demo upstream."""
    import uvloop

    from gateway.dev.command import run_dev

    return uvloop.run(run_dev(upstream=upstream, port=port, data_dir=data_dir, admin_port=admin_port))


@app.command(name="dev-token")
def dev_token(
    persona: Annotated[str, Parameter(help="Name, such as alice.")],
    *,
    organization: Annotated[
        str | None, Parameter(help="Slug or id of one of the persona's organizations. Default: the first one.")
    ] = None,
    data_dir: DataDir = None,
) -> int:
    """Print a session token of a persona of `gateway dev`."""
    from gateway.dev.command import mint_token
    from gateway.dev.folder import DevFailed

    try:
        _out(mint_token(persona, organization, data_dir))
    except (DevFailed, OSError) as error:
        return _failed(f"gateway dev-token: {_reason(error)}")
    return 0


@tokens_app.command(name="create")
def tokens_create(
    *,
    name: Annotated[str, Parameter(help="What it is for; of a system token, how logs call it.")],
    user: Annotated[str | None, Parameter(help="Whose: usr_… or Clerk's user_….")] = None,
    organization: Annotated[
        str | None, Parameter(help="Where it acts, if the user belongs to several organizations.")
    ] = None,
    scope: Annotated[tuple[str, ...], Parameter(help="Once for each scope. Default: none.")] = (),
    life: Annotated[str | None, Parameter(help="Such as 30d, or never. Default: tokens.default_life.")] = None,
    system: Annotated[
        bool, Parameter(help="Make a system token instead: printed with its digest, stored nowhere.")
    ] = False,
    config: ConfigFile = None,
    json: Json = False,
) -> int:
    """Make a token and print it once."""
    from gateway.commands import tokens as commands

    if system:
        if user or organization or scope or life:
            return _failed("gateway tokens create: a system token has no user, organization, scope or life")
        commands.show(commands.system_token(name, as_json=json))
        return 0
    if user is None:
        return _failed("gateway tokens create: name the owner with --user, or write --system")
    wanted = commands.Wanted(name, user, organization, scope, life)
    return _run_and_show("tokens create", config, lambda settings: commands.create(settings, wanted, as_json=json))


@tokens_app.command(name="list")
def tokens_list(
    *,
    user: Annotated[str, Parameter(help="Whose: usr_… or Clerk's user_….")],
    config: ConfigFile = None,
    json: Json = False,
) -> int:
    """List a user's API tokens, with those that ended up to 30 days ago."""
    from gateway.commands import tokens as commands

    return _run_and_show("tokens list", config, lambda settings: commands.list_of(settings, user, as_json=json))


@tokens_app.command(name="revoke")
def tokens_revoke(
    token_id: Annotated[str, Parameter(help="atk_…, as list shows it.")],
    *,
    config: ConfigFile = None,
    json: Json = False,
) -> int:
    """End an API token for ever."""
    from gateway.commands import tokens as commands

    return _run_and_show("tokens revoke", config, lambda settings: commands.revoke(settings, token_id, as_json=json))


@keys_app.command(name="list")
def keys_list(*, config: ConfigFile = None, json: Json = False) -> int:
    """List the signing keys, and whether they open under this master key."""
    from gateway.commands import keys as commands

    return _run_and_show("keys list", config, lambda settings: commands.list_of(settings, as_json=json))


@keys_app.command(name="rotate")
def keys_rotate(
    *,
    now: Annotated[bool, Parameter(help="It signs at once, before everybody has seen it.", negative="")] = False,
    discard: Annotated[
        bool, Parameter(help="Delete all others, with the worth of what they signed: one leaked.", negative="")
    ] = False,
    config: ConfigFile = None,
    json: Json = False,
) -> int:
    """Make the next signing key out of turn; it signs after keys.publish_ahead."""
    from gateway.commands import keys as commands

    return _run_and_show(
        "keys rotate", config, lambda settings: commands.rotate(settings, now=now, discard=discard, as_json=json)
    )
