"""People in the records, and administrators, for tests over the wire."""

from typing import Any

from provisioning.administration import Administration
from provisioning.audit import GATEWAY, GATEWAY_CHAIN
from provisioning.database.pool import Database
from provisioning.first_sight import FirstSight
from provisioning.profile import Profile
from provisioning.records import Role, Subject, User
from tests.support.api_tokens import call
from tests.support.gateway import GatewayUnderTest, mint_token
from tests.support.tokens import events
from tests.support.wire import Answering

ACT = {"iss": "https://clerk.example.com", "sid": "sess_2support", "sub": "user_2support"}
"""The claim of somebody who acts as the subject."""


def database_of(gateway: GatewayUnderTest) -> Database:
    """The gateway's database, to be opened."""
    assert gateway.settings.database.url is not None
    return Database(gateway.settings.database.url.get_secret_value(), acquire_timeout=60, statement_timeout=60)


async def administrator(gateway: GatewayUnderTest, sub: str) -> User:
    """Make somebody an administrator whom the gateway has not seen yet, so that it remembers nothing else of them."""
    async with database_of(gateway) as database:
        made = await FirstSight(database).provision(Subject(sub), Profile("Boss", f"{sub}@example.com"))
        return await Administration(database).set_role(made.standing.user.id, Role.ADMIN, GATEWAY, by=None)


async def met(gateway: Answering, sub: str, **claims: Any) -> str:
    """Let the gateway see somebody by a session; gives their id."""
    reply = await call(gateway, mint_token(sub=sub, **claims), "GET", "/users/current")
    assert reply.status == 200, reply.body
    user_id: str = reply.json()["id"]
    return user_id


async def recorded(gateway: GatewayUnderTest, user_id: str) -> list[dict[str, Any]]:
    """What the gateway's own chain tells of a person, in its order; the chain is whole."""
    async with database_of(gateway) as database:
        return [event for event in await events(database, GATEWAY_CHAIN) if user_id in event["targets"]]
