"""What `gateway users` does for operators: it asks PostgreSQL itself, whether or not a gateway is running.

Gateways that share `redis.url` see it at once, others within `cache.near_ttl`. Nothing is kept from an operator: the
last administrator can be demoted, since whoever has the database can make another one.
"""

from collections.abc import Awaitable, Callable, Sequence

from config.model import Settings
from gateway.api.sign_outs import changes_of
from gateway.commands.telling import told
from gateway.commands.tokens import CommandFailed, Printed, ask_records, json_text, operator, shown
from gateway.compose.sessions import sign_outs
from gateway.revocation.changes import PersonChanged
from provisioning.administration import Administration
from provisioning.database.pool import Database
from provisioning.memberships import Memberships
from provisioning.records import Role, Standing, User
from provisioning.sign_outs import SignedOut
from provisioning.users import Users

_HEADINGS = ("ID", "CLERK ID", "NAME", "E-MAIL", "ROLE", "STATE", "SINCE")


Change = Callable[[Administration, User], Awaitable[User]]


def show(settings: Settings, word: str, *, as_json: bool) -> Printed:
    """Show a person, with the organizations they belong to.

    Args:
        settings: Say where the records are.
        word: `usr_…`, Clerk's `user_…`, an e-mail address, or an API token's id or public id.
        as_json: As one JSON object.

    Raises:
        CommandFailed: There is nobody, or more than one.
    """

    async def ask(database: Database) -> tuple[User, tuple[Standing, ...]]:
        user = await _one(database, word)
        return user, await Memberships(database).of_user(user.id)

    user, standings = ask_records(settings, ask)
    if as_json:
        return Printed((json_text({**facts(user), "organizations": [_organization(one) for one in standings]}),))
    lines = [f"{name}: {value}" for name, value in _facts_in_words(user)]
    lines += [
        f"organization: {one.organization.id} {one.organization_role} {one.organization.name}" for one in standings
    ]
    return Printed(tuple(lines))


def list_of(settings: Settings, search: str | None, limit: int, *, as_json: bool) -> Printed:
    """List people, those who came last first.

    Args:
        settings: Say where the records are.
        search: An id, or how an e-mail address begins; None: everybody.
        limit: Most people listed.
        as_json: As one JSON object.

    Raises:
        CommandFailed: They could not be read.
    """
    page = ask_records(settings, lambda database: Administration(database).list_of(search, None, limit))
    more = ("there are more; name some with --search, or raise --limit",) if page.last is not None else ()
    if as_json:
        return Printed((json_text({"items": [facts(user) for user in page.items]}),), more)
    if not page.items:
        return Printed(err=("no users",))
    return Printed(err=more, rows=(_HEADINGS, *(_cells(user) for user in page.items)))


def set_role(settings: Settings, word: str, role: Role, *, as_json: bool) -> Printed:
    """Give a person a role; from then on `bootstrap.admin_emails` leaves it alone.

    Raises:
        CommandFailed: It could not be done.
    """
    origin = operator()

    def change(administration: Administration, user: User) -> Awaitable[User]:
        return administration.set_role(user.id, role, origin, by=None)

    return _changed(settings, word, change, as_json=as_json)


def disable(settings: Settings, word: str, *, as_json: bool) -> Printed:
    """Refuse a person everything.

    Raises:
        CommandFailed: It could not be done.
    """
    origin = operator()
    return _changed(settings, word, lambda rows, user: rows.disable(user.id, origin, by=None), as_json=as_json)


def enable(settings: Settings, word: str, *, as_json: bool) -> Printed:
    """Let a disabled person call again.

    Raises:
        CommandFailed: It could not be done.
    """
    origin = operator()
    return _changed(settings, word, lambda rows, user: rows.enable(user.id, origin, by=None), as_json=as_json)


def sign_out(settings: Settings, word: str, *, api_tokens: bool, as_json: bool) -> Printed:
    """End all sessions of a person.

    Raises:
        CommandFailed: It could not be done.
    """
    origin = operator()

    async def ask(database: Database) -> tuple[SignedOut, tuple[str, ...]]:
        user = await _one(database, word)
        done = await sign_outs(settings, database, None).sign_out(user.id, origin, by=None, api_tokens=api_tokens)
        return done, await told(settings, *changes_of(done))

    done, hindrances = ask_records(settings, ask)
    at_clerk = "pending" if done.key is not None else "unmanaged"
    facts_of = {
        "id": done.user.id,
        "signedOutBefore": shown(done.before),
        "atClerk": at_clerk,
        "sessions": len(done.sessions),
        "apiTokens": len(done.tokens),
    }
    if as_json:
        return Printed((json_text(facts_of),), hindrances)
    told_of = f"{len(done.sessions)} sessions, {len(done.tokens)} API tokens; at Clerk: {at_clerk}"
    return Printed((f"{done.user.id} signed out: {told_of}",), hindrances)


def facts(user: User) -> dict[str, object]:
    """Everything an operator needs to know of a person, for JSON."""
    return {
        "id": user.id,
        "clerkId": user.clerk_id,
        "name": user.name,
        "email": user.email,
        "role": user.role.value,
        "disabledAt": shown(user.disabled_at),
        "bannedAt": shown(user.banned_at),
        "deletedAt": shown(user.deleted_at),
        "createdAt": shown(user.created_at),
        "updatedAt": shown(user.updated_at),
    }


def _changed(settings: Settings, word: str, change: Change, *, as_json: bool) -> Printed:
    async def ask(database: Database) -> tuple[User, tuple[str, ...]]:
        user = await change(Administration(database), await _one(database, word))
        return user, await told(settings, PersonChanged(user.id, user.clerk_id, closes=True))

    user, hindrances = ask_records(settings, ask)
    if as_json:
        return Printed((json_text(facts(user)),), hindrances)
    return Printed((f"{user.id} {user.role} {_state(user)}",), hindrances)


async def _one(database: Database, word: str) -> User:
    found = await Users(database).matching(word)
    if not found:
        raise CommandFailed("there is no such user; see `gateway users list`")
    if len(found) > 1:
        raise CommandFailed(f"several users have this address; name one of: {' '.join(user.id for user in found)}")
    return found[0]


def _state(user: User) -> str:
    if user.deleted_at is not None:
        return "deleted"
    if user.disabled_at is not None:
        return "disabled"
    return "banned" if user.banned_at is not None else "active"


def _cells(user: User) -> tuple[str, ...]:
    return (
        user.id,
        user.clerk_id,
        user.name or "-",
        user.email or "-",
        user.role,
        _state(user),
        shown(user.created_at) or "-",
    )


def _facts_in_words(user: User) -> Sequence[tuple[str, str]]:
    return tuple(zip((heading.lower() for heading in _HEADINGS), _cells(user), strict=True))


def _organization(standing: Standing) -> dict[str, object]:
    organization = standing.organization
    return {
        "id": organization.id,
        "clerkId": organization.clerk_id,
        "name": organization.name,
        "role": standing.organization_role,
    }
