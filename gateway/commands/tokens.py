"""What `gateway tokens` does for operators: it asks PostgreSQL itself, whether or not a gateway is running.

Secrets go to standard output alone, so that they can be piped to where they belong; everything else that is said about
a new API token goes to standard error.
"""

import asyncio
import getpass
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import asyncpg

from config.model import Settings
from config.values import parse_life
from gateway.commands.telling import told
from gateway.report import aligned, failure_text
from gateway.revocation.changes import TokensChanged
from provisioning.audit import Origin
from provisioning.database.pool import Database
from provisioning.errors import (
    ProvisioningError,
    ScopesExceeded,
    ScopesUnknown,
    TokenMissing,
    UserEnded,
    UserMissing,
)
from provisioning.makers import Maker
from provisioning.memberships import Memberships
from provisioning.new_tokens import MadeToken
from provisioning.records import ApiToken, Standing, User
from provisioning.token_rules import Expiry, TokenRules
from provisioning.token_text import new_system_token
from provisioning.tokens import Tokens
from provisioning.users import Users

T = TypeVar("T")
STATEMENT_TIMEOUT_S = 10.0  # nobody's request waits for this
_HEADINGS = ("ID", "NAME", "SCOPES", "ORGANIZATION", "STATE", "EXPIRES", "LAST USED")
_SAID = {
    UserMissing: "there is no such user; see `gateway users list`",
    UserEnded: "the user was deleted",
    TokenMissing: "there is no such token; see `gateway tokens list --user …`",
    "token_limit_reached": "the user has as many tokens as tokens.per_user allows; revoke one first",
    "token_name_invalid": "write a name of 1 to 100 characters",
    "expiry_too_late": "tokens.max_life does not allow so long a life",
    "expiry_never": "tokens.max_life does not allow a token without end",
    "user_disabled": "the user is disabled",
    "user_deleted": "the user was deleted",
    "organization_left": "the user left the organization",
}


class CommandFailed(Exception):
    """A command cannot do what it was asked; the text says why, in one line."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a new token is to be, in an operator's words.

    Attributes:
        user: `usr_…` or Clerk's `user_…`.
        organization: `org_…`, ours or Clerk's; None: the only one the user belongs to.
        life: Such as `30d`, or `never`; None: as the settings say.
    """

    name: str
    user: str
    organization: str | None = None
    scopes: tuple[str, ...] = ()
    life: str | None = None


@dataclass(frozen=True, slots=True)
class Printed:
    """What a command says.

    Attributes:
        out: Lines for standard output.
        err: Lines for standard error.
        rows: A table for standard output instead, its headings first.
        code: The command's exit code.
    """

    out: tuple[str, ...] = ()
    err: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    code: int = 0


def system_token(name: str, *, as_json: bool) -> Printed:
    """Make a system token: nothing is stored anywhere, the settings are to hold its digest."""
    token = new_system_token()
    digest = token.digest().hex()
    if as_json:
        return Printed((json_text({"name": name, "token": token.text, "sha256": digest}),))
    entry = json.dumps({"name": name, "sha256": [digest], "networks": ["127.0.0.1/32"]}, ensure_ascii=False)
    beside = ("For the settings, with the networks it may call from:", f"system_tokens: [{entry}]")
    return Printed((f"token: {token.text}", f"sha256: {digest}"), beside)


def create(settings: Settings, wanted: Wanted, *, as_json: bool) -> Printed:
    """Make an API token for a user.

    Raises:
        CommandFailed: It could not be made.
    """
    ends, origin = _ends(wanted.life), operator()

    async def ask(database: Database) -> MadeToken:
        user = await user_named(database, wanted.user)
        standing = chosen(await Memberships(database).of_user(user.id), wanted.organization)
        maker = Maker(user.id, standing.organization.id, None, origin)
        return await _tokens(database, settings).create(maker, wanted.name, wanted.scopes, ends)

    made = ask_records(settings, ask)
    if as_json:
        return Printed((json_text({**facts(made.token), "token": made.text}),))
    expires = shown(made.token.expires_at) or "never"
    return Printed((made.text,), (f"{made.token.id} expires {expires}; its text is shown this once",))


def list_of(settings: Settings, user: str, *, as_json: bool) -> Printed:
    """List a user's API tokens.

    Raises:
        CommandFailed: They could not be read.
    """

    async def ask(database: Database) -> tuple[ApiToken, ...]:
        return await _tokens(database, settings).list_of((await user_named(database, user)).id)

    found = ask_records(settings, ask)
    if as_json:
        return Printed((json_text({"items": [facts(token) for token in found]}),))
    return Printed(rows=(_HEADINGS, *(_cells(token) for token in found))) if found else Printed(err=("no API tokens",))


def revoke(settings: Settings, token_id: str, *, as_json: bool) -> Printed:
    """End an API token.

    Raises:
        CommandFailed: It could not be ended.
    """
    origin = operator()

    async def ask(database: Database) -> tuple[ApiToken, tuple[str, ...]]:
        token = await _tokens(database, settings).revoke_any(token_id, origin)
        return token, await told(settings, TokensChanged(token.user_id, token.id))

    token, hindrances = ask_records(settings, ask)
    if as_json:
        return Printed((json_text(facts(token)),), hindrances)
    return Printed((f"{token.id} {_state(token)}",), hindrances)


def show(printed: Printed) -> None:
    """Print; on a terminal a table has lines and keeps to its width (NO_COLOR is heeded by rich)."""
    sys.stderr.write("".join(f"{line}\n" for line in printed.err))
    lines = printed.out
    if printed.rows and sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*printed.rows[0])
        for row in printed.rows[1:]:
            table.add_row(*map(Text, row))  # a name is text, whatever it looks like
        Console().print(table)
    elif printed.rows:
        lines = (*lines, *aligned(printed.rows))
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def facts(token: ApiToken) -> dict[str, object]:
    """Everything about a token but its secret, for JSON."""
    return {
        "id": token.id,
        "name": token.name,
        "publicId": token.public_id,
        "userId": token.user_id,
        "organizationId": token.organization_id,
        "scopes": list(token.scopes),
        "createdAt": shown(token.created_at),
        "expiresAt": shown(token.expires_at),
        "lastUsedAt": shown(token.last_used_at),
        "revokedAt": shown(token.revoked_at),
    }


def _tokens(database: Database, settings: Settings) -> Tokens:
    return Tokens(database, None, TokenRules.of(settings.tokens))


async def user_named(database: Database, word: str) -> User:
    """Find whom an operator means: `usr_…`, Clerk's `user_…` and whatever else `Users.named` knows."""
    user = await Users(database).named(word)
    if user is None:
        raise UserMissing
    return user


def chosen(standings: Sequence[Standing], word: str | None) -> Standing:
    """Pick the organization an operator means; without a word the only one there is.

    Raises:
        CommandFailed: It is not clear which, or they do not belong to it.
    """
    fitting = [one for one in standings if word is None or word in {one.organization.id, one.organization.clerk_id}]
    if len(fitting) == 1:
        return fitting[0]
    if not standings:
        raise CommandFailed("the user belongs to no organization; their first request makes one")
    ids = " ".join(one.organization.id for one in standings)
    if word is None:
        raise CommandFailed(f"the user belongs to several organizations; name one with --organization: {ids}")
    raise CommandFailed(f"the user does not belong to {word}; name with --organization one of: {ids}")


def _ends(life: str | None) -> datetime | Expiry | None:
    if life is None:
        return Expiry.DEFAULT
    try:
        seconds = parse_life(life)
    except ValueError as error:
        raise CommandFailed(f"--life: {error}") from error
    return None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)


def ask_records(settings: Settings, ask: Callable[[Database], Awaitable[T]]) -> T:
    """Ask PostgreSQL for a command.

    Args:
        settings: Say where it is.
        ask: What to ask; gets one connection at most at a time.

    Raises:
        CommandFailed: It could not be asked, or refused; the text says why.
    """
    secret = settings.database.direct_url or settings.database.url
    if secret is None:
        raise CommandFailed("database.url is not set")

    async def run() -> T:
        async with Database(secret.get_secret_value(), pool_size=1, statement_timeout=STATEMENT_TIMEOUT_S) as database:
            return await ask(database)

    try:
        return asyncio.run(run())
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
        raise CommandFailed("the schema is behind; run `gateway migrate`") from None
    except (ScopesUnknown, ScopesExceeded) as error:
        said = "no such scope" if isinstance(error, ScopesUnknown) else "the user's role does not allow"
        hint = "; declare it in tokens.scopes" if isinstance(error, ScopesUnknown) else ""
        raise CommandFailed(f"{said}: {', '.join(error.scopes)}{hint}") from error
    except (OSError, ProvisioningError) as error:
        reason = getattr(error, "reason", None)
        raise CommandFailed(_SAID.get(type(error)) or _SAID.get(reason) or failure_text(error)) from error


def operator() -> Origin:
    """Who runs this command, for the audit."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container may know no name for its user
        name = None
    return Origin("operator", name)


def _state(token: ApiToken) -> str:
    if token.revoked_at is not None:
        return "revoked"
    if token.expires_at is not None and token.expires_at <= datetime.now(UTC):
        return "expired"
    return "replaced" if token.replaced_by is not None else "active"


def _cells(token: ApiToken) -> tuple[str, ...]:
    return (
        token.id,
        token.name,
        " ".join(token.scopes) or "-",
        token.organization_id,
        _state(token),
        shown(token.expires_at) or "never",
        shown(token.last_used_at) or "never",
    )


def shown(moment: datetime | None) -> str | None:
    """A moment in ISO 8601, UTC; None stays."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def json_text(document: Mapping[str, object]) -> str:
    """Write one JSON object for people and programs."""
    return json.dumps(document, ensure_ascii=False, indent=2)
