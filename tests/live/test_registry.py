"""Who is ended by what, and who may extend what."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from gateway.actors.actor import Actor
from gateway.credentials.kinds import Carrier, CredentialKind
from gateway.live.registry import Registry
from gateway.verify.principal import Binding, Principal
from provisioning.records import Role


class Open:
    """A connection that remembers how it was closed."""

    def __init__(self) -> None:
        self.expires_at: float | None = None
        self.gone: Callable[[], None] | None = None
        self.closed: list[tuple[int, str]] = []

    def close(self, code: int, cause: str) -> None:
        self.closed.append((code, cause))


def actor(user: str = "usr_1", organization: str = "org_1", **facts: Any) -> Actor:
    given: dict[str, Any] = {
        "kind": CredentialKind.WEBSOCKET_TOKEN,
        "carrier": Carrier.QUERY,
        "issuer": "i",
        "subject": "s",
        "expires_at": time.time() + 600,
        "session_id": "sess_1",
        "binding": Binding("jti_1", user, organization),
    }
    return Actor(user, Role.USER, organization, "member", (), Principal(**(given | facts)))


def opened(registry: Registry, name: str, who: Actor | None = None) -> Open:
    connection = Open()
    registry.enter(who or actor(), name).attach(connection)
    return connection


@pytest.mark.parametrize(
    ("named", "ended"),
    [
        ({"user": "usr_1"}, "ab"),
        ({"session": "sess_1"}, "ac"),
        ({"token": "atk_1"}, "d"),
        ({"organization": "org_2"}, "bc"),
        ({"user": "usr_1", "organization": "org_2"}, "b"),
        ({"user": "usr_9"}, ""),
        ({}, ""),
    ],
)
async def test_everything_that_fits_all_that_is_named_ends_with_4401(named: dict[str, str], ended: str) -> None:
    registry = Registry()
    connections = {
        "a": opened(registry, "a"),
        "b": opened(registry, "b", actor(organization="org_2", session_id="sess_2")),
        "c": opened(registry, "c", actor("usr_2", "org_2")),
        "d": opened(registry, "d", actor("usr_3", session_id=None, token_id="atk_1")),
    }

    count = registry.end(**named)

    closed = {name: connection.closed for name, connection in connections.items() if connection.closed}
    assert closed == {name: [(4401, "revoked")] for name in ended}
    assert count == len(ended)


async def test_handshake_under_way_when_its_user_is_ended_ends_as_soon_as_it_opens() -> None:
    registry, connection = Registry(), Open()
    live = registry.enter(actor(), "a")

    registry.end(user="usr_1")
    live.attach(connection)

    assert connection.closed == [(4401, "revoked")]


async def test_nothing_is_kept_of_what_is_gone() -> None:
    registry = Registry()
    connections = [opened(registry, str(number)) for number in range(10)]
    assert len(registry) == 10

    for connection in connections:
        assert connection.gone is not None
        connection.gone()
        connection.gone()

    assert len(registry) == 0
    assert registry._by == {}
    assert registry.end(user="usr_1") == 0


@pytest.mark.parametrize("name", ["a", "jti_1"])
async def test_whoever_opened_it_extends_it_by_its_name_or_by_its_tokens(name: str) -> None:
    registry = Registry()
    connection = opened(registry, "a")
    before = connection.expires_at
    assert before is not None

    assert registry.renew(name, actor(kind=CredentialKind.SESSION, binding=None), time.time() + 900)

    assert connection.expires_at == pytest.approx(before + 300, abs=5)


@pytest.mark.parametrize(
    "who",
    [
        actor("usr_2"),
        actor(organization="org_2"),
        actor(session_id="sess_2"),
        actor(session_id=None, token_id="atk_1"),
    ],
)
async def test_nobody_else_extends_it(who: Actor) -> None:
    registry = Registry()
    connection = opened(registry, "a")
    before = connection.expires_at

    assert not registry.renew("a", who, time.time() + 9000)
    assert not registry.renew("b", actor(), time.time() + 9000)
    assert connection.expires_at == before


async def test_extending_never_shortens() -> None:
    registry = Registry()
    connection = opened(registry, "a")
    before = connection.expires_at

    assert registry.renew("a", actor(), time.time() + 1)
    assert connection.expires_at == before


@pytest.mark.parametrize("kind", [CredentialKind.SESSION, CredentialKind.SYSTEM_TOKEN])
async def test_a_session_is_not_over_with_its_minutes_token(kind: CredentialKind) -> None:
    registry = Registry()
    connection = opened(registry, "a", actor(kind=kind, expires_at=time.time() + 60, binding=None))

    assert connection.expires_at is None
    assert registry.renew("a", actor(), time.time() + 600)
    assert connection.expires_at is None


@pytest.mark.parametrize("kind", [CredentialKind.API_TOKEN, CredentialKind.WEBSOCKET_TOKEN, CredentialKind.AGENT_TOKEN])
async def test_other_credentials_take_their_websockets_along(kind: CredentialKind) -> None:
    registry = Registry()
    connection = opened(registry, "a", actor(kind=kind, expires_at=time.time() + 60))

    assert connection.expires_at is not None
    assert connection.expires_at - asyncio.get_running_loop().time() == pytest.approx(60, abs=5)


class Looking:
    """A lane that remembers whom it was to look for."""

    def __init__(self) -> None:
        self.asked: list[list[bool]] = []

    def end_exchanges(self, fits: Callable[[Actor], bool], after_s: float) -> None:
        self.asked.append([fits(actor()), fits(actor("usr_2"))])


async def test_lanes_look_once_for_somebody_who_is_refused_again_and_again() -> None:
    registry, lane = Registry(), Looking()
    registry.watch(lane)
    for _ in range(100):
        registry.end(user="usr_1")
    registry.end(user="usr_2", organization="org_1")
    registry.end()

    assert lane.asked == [[True, False], [False, True]]
