"""What a dependency says breaks off, or is no answer at all: whoever cannot be judged is asked to come back."""

import asyncio
from typing import Any

import pytest

from tests.support.api_tokens import PATH, call, made_token
from tests.support.clerk_machines import USER
from tests.support.fault_proxy import Fault
from tests.support.gateway import mint_token
from tests.support.minted import websocket_token
from tests.support.outage_stage import ASKING, Stage, asks_to_come_back, outage_stage
from tests.support.websockets import handshake
from tests.support.wire import Reply

SINGLE_USE: dict[str, Any] = ASKING | {"websocket": {"single_use": True}}
NEEDS = {
    "redis": {"websocket token"},
    "postgresql": {"new person", "optional", "unknown token", "machine token", "list of tokens", "making a token"},
    "jwks": {"unknown key"},
    "clerk": {"machine token"},
}
"""What nobody can tell without it."""
GARBAGE = b"\x00\xff no protocol at all\r\n\r\n"
INSTEAD = {
    "redis": [GARBAGE, b":abc\r\n", b"-ERR no\r\n", b"-ASK 1 nowhere\r\n", b"*1\r\n" * 5000],
    "postgresql": [b"SSH-2.0-OpenSSH_9.6\r\n"],
    "jwks": [GARBAGE, b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"[" * 5000],
    "clerk": [GARBAGE, b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"[" * 5000],
}
READY_AT_ONCE = pytest.param(  # before it said who it is: asyncpg gives up a connection that is half made
    *("postgresql", Fault.INSTEAD, b"Z\0\0\0\5I"),
    marks=pytest.mark.filterwarnings("ignore:Exception ignored in. <function Connection.__del__"),
)
CASES = [(dependency, fault, b"") for dependency in NEEDS for fault in (Fault.MIDWAY, Fault.CUT)] + [
    (dependency, Fault.INSTEAD, words) for dependency, all_words in INSTEAD.items() for words in all_words
]


async def asked_of_every_kind(stage: Stage, tokens: list[str], machine: str, for_websocket: str) -> dict[str, Reply]:
    """One request of each kind, all at once."""
    own, known, unknown = mint_token(jti="own"), *tokens
    asks = {
        "session": stage.ask(mint_token(jti="new")),
        "new person": stage.ask(mint_token(sub="user_2new")),
        "optional": stage.ask(mint_token(sub="user_2other"), "/optional/x"),
        "known token": stage.ask(known),
        "unknown token": stage.ask(unknown),
        "machine token": stage.ask(machine, "/machines/x"),
        "websocket token": stage.gateway.ask(handshake(f"/ws/x?token={for_websocket}")),
        "current user": stage.ask(own, "/users/current"),
        "list of tokens": stage.ask(own, PATH),
        "making a token": call(stage.gateway, own, "POST", PATH, {"name": "Robot", "scopes": []}),
        "public keys": stage.ask("", "/.well-known/jwks.json"),
    }
    return dict(zip(asks, await asyncio.gather(*asks.values()), strict=True))


@pytest.mark.parametrize(("dependency", "fault", "words"), [*CASES, READY_AT_ONCE])
async def test_broken_answers_are_an_outage_for_who_needs_them_and_nothing_for_others(
    database_url: str, redis_url: str, dependency: str, fault: Fault, words: bytes
) -> None:
    async with outage_stage(database_url, redis_url, **SINGLE_USE) as stage:
        tokens = [(await made_token(stage.gateway))["token"] for _ in range(2)]
        assert (await stage.ask(tokens[0])).status == 200
        for_websocket = await websocket_token(stage.gateway)
        proxy = getattr(stage, dependency)
        await proxy.set(Fault.RESET)  # what is said on open connections would be believed to answer the question
        await proxy.set(fault, instead=words)
        replies = await asked_of_every_kind(stage, tokens, stage.backend.machines.api_key(USER), for_websocket)
        replies["unknown key"] = await stage.ask(mint_token(key="rotated", kid="ins_2new"))
        passed = {name for name, reply in replies.items() if reply.status in (200, 201)}
        refused = {name for name, reply in replies.items() if asks_to_come_back(reply)}

        # Elsewhere the key is unknown for good, and this upstream lets no websocket open.
        others = {"unknown key": 401, "websocket token": 502}
        assert refused == NEEDS[dependency]
        assert {name: replies[name].status for name in replies.keys() - passed - refused} == {
            name: status for name, status in others.items() if name not in refused
        }
