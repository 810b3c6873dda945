"""Beliefs dropped by what nobody can look them up by: all that are meant, and no turn of the loop for all of them."""

import asyncio
from typing import Any

from cachebox import LRUCache
from hypothesis import given
from hypothesis import strategies as st

from gateway.actors.actor import Actor
from gateway.actors.beliefs import Caller, KnownCaller, Memory, Proof
from gateway.actors.sweep import AT_ONCE, Sweep
from gateway.actors.system_tokens import NOBODY
from gateway.credentials.kinds import Carrier, CredentialKind
from gateway.verify.principal import Impersonator, Principal
from provisioning.records import Role, Subject

UNTIL = 1000.0
NAME = st.sampled_from(["one", "two", "three", "four"])


def known(
    organization: str = "org_1",
    subject: str = "user_1",
    session: str | None = "sess_1",
    impersonator: Impersonator | None = None,
) -> KnownCaller:
    kind, carrier = CredentialKind.SESSION, Carrier.HEADER
    principal = Principal(kind, carrier, "https://issuer", subject, 4e9, session_id=session, impersonator=impersonator)
    caller = Caller(Actor("usr_1", Role.USER, organization, "admin", (), principal), NOBODY, b"")
    return KnownCaller(Proof(principal, 0, UNTIL, 4e9), caller, Subject(subject, None), UNTIL)


def memory(*callers: KnownCaller) -> Memory[bytes, KnownCaller]:
    kept: Any = LRUCache(len(callers))
    for number, one in enumerate(callers):
        kept.insert(b"%d" % number, one)
    return kept  # type: ignore[no-any-return]


@given(
    facts=st.lists(st.tuples(NAME, NAME, st.none() | NAME, st.none() | NAME), max_size=8),
    names=st.sets(NAME),
)
def test_whoever_has_to_do_with_a_name_is_believed_no_more_and_nobody_else(
    facts: list[tuple[str, str, str | None, str | None]], names: set[str]
) -> None:
    callers = [
        known(organization, subject, session, Impersonator("user_2", other) if other is not None else None)
        for organization, subject, session, other in facts
    ]

    Sweep(memory(*callers)).drop(*names)

    assert [one.believed_until == 0.0 for one in callers] == [bool(names.intersection(fact)) for fact in facts]


async def test_many_are_dropped_with_turns_for_others_between() -> None:
    callers = [known(f"org_{number % 3}") for number in range(3 * AT_ONCE)]
    sweep, believed = Sweep(memory(*callers)), []

    def left() -> int:
        return sum(one.believed_until == UNTIL for one in callers)

    sweep.drop("org_1")
    for _ in range(2):
        await asyncio.sleep(0)
        believed.append(left())
    sweep.drop("org_2")  # for the next walk
    sweep.drop("org_0")
    while left():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0)
    await sweep.close()

    assert 2 * AT_ONCE < believed[1] < believed[0] < 3 * AT_ONCE


async def test_walk_under_way_ends_with_the_cache() -> None:
    sweep = Sweep(memory(*[known() for _ in range(2 * AT_ONCE)]))
    sweep.drop("org_1")
    await sweep.close()

    assert len(asyncio.all_tasks()) == 1
