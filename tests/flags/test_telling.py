"""Who is told which flags."""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from config.model import DeclaredFlag
from gateway.flags.file import FileFlags
from gateway.flags.provider import DefinitionsInvalid, Facts, Json
from gateway.flags.telling import FlagTeller, NoProvider

ADMIN = Facts("usr_1", "ADMIN", "org_1", "admin", "alice@ours.test")
USER = Facts("usr_2", "USER", "org_2", "member", "bob@else.test")


class Says(NoProvider):
    """Says the same of everybody, and counts how often it was asked."""

    def __init__(self, values: Mapping[str, Json]) -> None:
        super().__init__()
        self.values = values
        self.asked = 0

    def evaluate(self, facts: Facts) -> Mapping[str, Json]:
        self.asked += 1
        return self.values


class Fails(NoProvider):
    """Someone else's provider with a bug."""

    def evaluate(self, facts: Facts) -> Mapping[str, Json]:
        raise KeyError(facts)


def declared(**flags: object) -> dict[str, DeclaredFlag]:
    return {name: DeclaredFlag.model_validate(flag) for name, flag in flags.items()}


LIMIT = declared(limit={"type": "integer", "default": 10})


def test_only_declared_flags_are_told_and_each_to_whom_it_is_meant_for() -> None:
    flags = declared(
        up={"type": "boolean", "default": False},
        page={"type": "string", "default": "", "expose": ["client"]},
    )
    told = FlagTeller(flags, Says({"up": True, "page": "dark", "secret": True}), 9).tell(USER)

    assert (told.header, dict(told.upstream), dict(told.client)) == (b"up", {"up": True}, {"page": "dark"})


@pytest.mark.parametrize("value", [True, "10", 1.5, None, 2**64, [10]])
def test_a_value_of_another_type_is_the_default_and_counted(value: Json) -> None:
    teller = FlagTeller(LIMIT, Says({"limit": value}), 9)

    assert teller.tell(USER).header == b"limit=10"
    assert teller.tally.wrong_type == {"limit": 1}


@pytest.mark.parametrize("value", [float("inf"), [float("nan")], "\ud800", {"a": 2**64}])
def test_values_that_no_json_can_hold_are_the_default(value: Json) -> None:
    flags = declared(any={"type": "json", "default": {}})

    assert FlagTeller(flags, Says({"any": value}), 9).tell(USER).upstream == {"any": {}}


def test_a_flag_for_administrators_is_told_of_nobody_else() -> None:
    flags = declared(panel={"type": "boolean", "default": True, "when_role": "ADMIN"})
    teller = FlagTeller(flags, Says({}), 9)

    assert [teller.tell(who).header for who in (ADMIN, USER)] == [b"panel", b""]


def test_a_flag_for_administrators_is_never_asked_of_a_source() -> None:
    flags = declared(panel={"type": "boolean", "default": True, "when_role": "ADMIN"})
    teller = FlagTeller(flags, Says({"panel": False}), 9)

    assert [teller.tell(who).upstream for who in (ADMIN, USER)] == [{"panel": True}, {}]


def test_nobody_without_a_user_is_told_any_or_asked_for() -> None:
    provider = Says({"limit": 5})
    machine = Facts("", "SYSTEM", "", "")

    assert FlagTeller(LIMIT, provider, 9).tell(machine).header == b""
    assert provider.asked == 0


def test_callers_with_the_same_flags_share_them() -> None:
    teller = FlagTeller(LIMIT, Says({"limit": 5}), 1000)

    assert len({id(teller.tell(Facts(f"usr_{number}", "USER", "org_1", "member"))) for number in range(100)}) == 1


def test_a_provider_that_fails_leaves_defaults() -> None:
    assert FlagTeller(LIMIT, Fails(), 9).tell(USER).header == b"limit=10"


def test_flags_are_evaluated_once_for_the_same_facts_and_generation() -> None:
    provider = Says({"limit": 5})
    teller = FlagTeller(LIMIT, provider, 9)
    for _ in range(100):
        teller.tell(USER)
    assert provider.asked == 1

    provider.generation += 1
    teller.tell(USER)
    assert provider.asked == 2


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what a watch of files brings about."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - another task counts
            await asyncio.sleep(0.01)


def definitions(limit: int) -> str:
    flag = {"state": "ENABLED", "variants": {"x": limit}, "defaultVariant": "x"}
    return json.dumps({"flags": {"limit": flag}})


async def test_o03_a_changed_file_is_taken_and_one_that_does_not_fit_leaves_the_old_and_is_marked(
    tmp_path: Path,
) -> None:
    path = tmp_path / "flags.json"
    path.write_text(definitions(1))
    now = 5.0
    provider = FileFlags(path, lambda: now)
    teller = FlagTeller(LIMIT, provider, 9)
    await provider.start()
    now = 7.0
    assert provider.loaded_at == now
    path.write_text("{")
    await until(lambda: provider.loads["failed"] > 0)
    assert (teller.tell(USER).header, provider.generation) == (b"limit=1", 1)
    assert provider.loaded_at == 7.0
    now = 9.0
    assert provider.loaded_at == 7.0

    path.write_text(definitions(2))
    await until(lambda: provider.loads["ok"] == 2)

    assert (teller.tell(USER).header, provider.generation) == (b"limit=2", 2)
    assert provider.loaded_at == now
    await provider.close()


async def test_a_start_with_a_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    with pytest.raises(DefinitionsInvalid, match=r"^flags\.file: .*flags\.json: No such file"):
        await FileFlags(path).start()
    path.write_text("{")
    with pytest.raises(DefinitionsInvalid, match=r"flags\.json:1"):
        await FileFlags(path).start()
