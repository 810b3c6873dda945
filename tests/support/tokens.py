"""People with API tokens, for tests over a database."""

from typing import Any

import orjson

from provisioning.audit import ENTRY_COLUMNS, FIRST_HASH, Origin, entry_of
from provisioning.database.pool import Database
from provisioning.first_sight import FirstSight
from provisioning.makers import Maker
from provisioning.new_tokens import ONE_TIME_SECRETS, FirstToken
from provisioning.profile import Profile
from provisioning.records import Standing, Subject
from provisioning.sealing import Sealer
from provisioning.token_rules import TokenRules
from provisioning.tokens import Tokens

MASTER_KEY = "a-key-of-these-tests-with-enough-characters"  # not a secret
SEALER = Sealer(MASTER_KEY, ONE_TIME_SECRETS)
RULES = TokenRules(scopes=("reports:read", "reports:write"), per_user=5)


def tokens_over(database: Database, rules: TokenRules = RULES) -> Tokens:
    """The service under the rules of most tests."""
    return Tokens(database, SEALER, rules)


async def person(database: Database, subject: Subject | None = None, *, first_token: bool = False) -> Standing:
    """Make a person and their organization; Alice and her own one unless the subject says otherwise."""
    sight = FirstSight(database, first_token=FirstToken(SEALER, RULES) if first_token else None)
    return (await sight.provision(subject or Subject("user_alice"), Profile("Alice"))).standing


def session_of(standing: Standing) -> Maker:
    """A person who manages tokens by a session."""
    origin = Origin("user", standing.user.id, None, "203.0.113.9", "tests/1", "request-1")
    return Maker(standing.user.id, standing.organization.id, None, origin)


async def token_of(database: Database, standing: Standing, *scopes: str) -> Maker:
    """A person who manages tokens by an API token with these scopes."""
    made = await tokens_over(database).create(session_of(standing), "Maker", scopes)
    origin = Origin("api_token", made.token.id, None, "203.0.113.9", "tests/1", "request-1")
    return Maker(standing.user.id, standing.organization.id, frozenset(scopes), origin)


async def execute(database: Database, statement: str, *arguments: object) -> str:
    """Do what no service does."""
    async with database.connection() as connection:
        return await connection.execute(statement, *arguments)


async def count(database: Database, rest: str, *arguments: object) -> int:
    """Count what `FROM rest` gives."""
    async with database.connection() as connection:
        return int(await connection.fetchval(f"SELECT count(*) FROM {rest}", *arguments))


async def events(database: Database, chain: str) -> list[dict[str, Any]]:
    """Read a chain in its order, after seeing that it is whole: sequence, every hash, and its end."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"SELECT {ENTRY_COLUMNS}, sequence, hash FROM audit_events WHERE chain = $1 ORDER BY sequence", chain
        )
        end = await connection.fetchrow("SELECT sequence, hash FROM audit_chains WHERE chain = $1", chain)
    previous = FIRST_HASH
    for number, row in enumerate(rows, 1):
        previous = entry_of(row).hash_after(previous)
        assert (row["sequence"], row["hash"]) == (number, previous)
    assert (len(rows), previous) == ((end["sequence"], end["hash"]) if end else (0, FIRST_HASH))
    return [dict(row) | {"metadata": orjson.loads(row["metadata"])} for row in rows]


async def actions(database: Database, chain: str) -> list[str]:
    """Name what happened in a chain, in its order."""
    return [event["action"] for event in await events(database, chain)]
