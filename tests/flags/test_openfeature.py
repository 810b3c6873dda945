"""Flags of any OpenFeature provider."""

import asyncio
from typing import NoReturn

import pytest
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

from config.model import DeclaredFlag
from gateway.flags.openfeature import OpenFeatureFlags
from gateway.flags.provider import DefinitionsInvalid, Facts

ALICE = Facts("usr_1", "ADMIN", "org_1", "admin", None)
DECLARED = {
    "on": DeclaredFlag(type="boolean", default=False),
    "options": DeclaredFlag(type="json", default={}),
    "gone": DeclaredFlag(type="string", default="x"),
}


def provider() -> InMemoryProvider:
    return InMemoryProvider({"on": InMemoryFlag("a", {"a": True}), "options": InMemoryFlag("a", {"a": {"rows": 5}})})


async def test_a_provider_named_by_its_path_says_what_flags_are() -> None:
    flags = OpenFeatureFlags(f"{__name__}:provider", DECLARED)
    await flags.start()

    assert flags.evaluate(ALICE) == {"on": True, "options": {"rows": 5}}

    await flags.close()


@pytest.mark.parametrize("path", ["no_such_module:Provider", f"{__name__}:missing"])
async def test_a_provider_that_cannot_be_made_is_refused(path: str) -> None:
    flags = OpenFeatureFlags(path, DECLARED)

    with pytest.raises(DefinitionsInvalid):
        await flags.start()


class Failing(InMemoryProvider):
    """Has a bug."""

    def resolve_boolean_details(self, *_: object, **__: object) -> NoReturn:
        raise KeyError


def failing() -> InMemoryProvider:
    return Failing({"options": InMemoryFlag("a", {"a": {"rows": 5}})})


async def test_o03_a_provider_that_fails_for_a_flag_has_the_others_and_is_marked() -> None:
    now = 1.0
    flags = OpenFeatureFlags(f"{__name__}:failing", DECLARED, refresh_s=0.01, monotonic=lambda: now)
    await flags.start()
    assert flags.loaded_at == now

    now = 2.0
    async with asyncio.timeout(20):
        while not flags.loads["failed"]:
            assert flags.evaluate(ALICE) == {"options": {"rows": 5}}
            await asyncio.sleep(0.001)

    await flags.close()


async def test_callers_are_evaluated_anew_now_and_then_for_nobody_tells_of_changes() -> None:
    flags = OpenFeatureFlags(f"{__name__}:provider", DECLARED, refresh_s=0.01)
    await flags.start()
    before = flags.generation

    async with asyncio.timeout(20):
        while flags.generation < before + 3:  # noqa: ASYNC110 - another task counts
            await asyncio.sleep(0.001)

    await flags.close()
