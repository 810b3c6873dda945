"""What a run found, as plain values: kept as JSON, and read by the report."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.first_sight import FirstRequests
from benchmarks.lookups import Lookups
from benchmarks.rounds import Round
from benchmarks.websockets import Sockets


@dataclass(slots=True)
class Results:
    """Everything measured so far; a run fills it.

    Attributes:
        loads: By scenario, then by system: its rounds. The comparisons of `scale.py` are scenarios as well.
        notes: What could not be measured, and why.
        programs: Versions by name.
    """

    seconds: float
    rounds: int
    loads: dict[str, dict[str, list[Round]]] = field(default_factory=dict)
    sockets: dict[str, Sockets] = field(default_factory=dict)
    lookups: tuple[Lookups, Lookups] | None = None
    first_requests: list[FirstRequests] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    programs: dict[str, str] = field(default_factory=dict)

    def rounds_of(self, scenario: str, system: str) -> list[Round]:
        """The rounds of a system; empty when it was not measured."""
        return self.loads.get(scenario, {}).get(system, [])


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with what it lies between."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Take it of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


def ratio(ours: Sequence[Round], theirs: Sequence[Round], value: Callable[[Round], float]) -> Spread | None:
    """How many times more of something ours have: the ratio of medians, between the ratios of single rounds.

    Returns:
        None when one side was not measured, or shows nothing to divide by.
    """
    pairs = [(value(our), value(their)) for our, their in zip(ours, theirs, strict=False)]
    if not pairs or any(their == 0 for _, their in pairs):
        return None
    single = [our / their for our, their in pairs]
    medians = statistics.median(our for our, _ in pairs) / statistics.median(their for _, their in pairs)
    return Spread(medians, min(single), max(single))
