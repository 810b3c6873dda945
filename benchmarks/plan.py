"""The command line: which systems, which scenarios, how long."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.scenarios import SCENARIOS
from benchmarks.systems import SYSTEMS

API_TOKENS = "get-64-api-token"
OTHERS = (API_TOKENS, "routes", "flags", "principals", "workers", "lookups", "websockets", "first-sight")
SOCKETS = (2_000, 8_000)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        systems: Of the comparison and of websockets, by name.
        scenarios: Names, those of `OTHERS` among them.
        principals: Real tokens to sign for the check over the wire.
        sockets: Numbers of idle websockets.
        whole: Nothing was left out, and no figure is too short to be kept.
    """

    seconds: float
    rounds: int
    systems: frozenset[str]
    scenarios: frozenset[str]
    principals: int
    sockets: tuple[int, ...]
    whole: bool


def plan(description: str | None, arguments: Sequence[str] | None = None) -> Plan:
    """Read the command line, that of this process unless given."""
    names, words = [system.name for system in SYSTEMS], [*(scenario.name for scenario in SCENARIOS), *OTHERS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, help="of each round, at least 1; 4 unless quick")
    parser.add_argument("--rounds", type=int, help="5 unless quick")
    parser.add_argument("--only", nargs="+", choices=names, metavar="SYSTEM", help=", ".join(names))
    parser.add_argument("--scenario", nargs="+", choices=words, metavar="NAME", help=", ".join(words))
    parser.add_argument("--principals", type=int, help="real tokens of the check over the wire; 100000 unless quick")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 s, few tokens and websockets")
    given = parser.parse_args(arguments)
    quick = bool(given.quick)
    return Plan(
        seconds=given.seconds or (1 if quick else 4),
        rounds=given.rounds or (2 if quick else 5),
        systems=frozenset(given.only or names),
        scenarios=frozenset(given.scenario or words),
        principals=given.principals or (2_000 if quick else 100_000),
        sockets=tuple(count // 10 for count in SOCKETS) if quick else SOCKETS,
        whole=not (quick or given.only or given.scenario),
    )
