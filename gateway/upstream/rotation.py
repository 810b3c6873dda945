"""Which address of an upstream is next: round robin over those that are well, with rests for those that fail. Pure.

Health is passive: it is learnt from the requests themselves, nobody is probed beside them (docs/decisions/010). The
pool tells what became of each dial and each new connection, and asks whose turn it is; the clock is handed in.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

FIRST_PAUSE_S = 1.0
"""Rest after the first failure; each further one in a row doubles it."""
LONGEST_PAUSE_S = 30.0
"""A dead address is asked at least this often, so that its return is noticed."""
SUSPECT_S = 0.25
"""How long dials avoid an address after a reused connection to it broke: longer than a process takes to end."""
DEATHS = 3
"""New connections in a row that died before any answer until their address rests: one may be an accident."""


@dataclass(slots=True)
class Health:
    """What is known of one address.

    Attributes:
        index: Its place in the settings.
        failures: Failed dials and early deaths, ever.
        deaths: New connections in a row that died before any answer.
        pauses: Rests in a row.
        rests_until: 0.0 while it is well; else when its rest is, or was, over.
        failed_at: When it failed last.
        probing: Its rest is over and one request tries it.
        suspect_until: While dials prefer others, though it is well.
    """

    index: int
    failures: int = 0
    deaths: int = 0
    pauses: int = 0
    rests_until: float = 0.0
    failed_at: float = float("-inf")
    probing: bool = False
    suspect_until: float = float("-inf")


class Rotation:
    """Takes turns. An address rests only while there are others: one alone is always tried."""

    def __init__(self, count: int, clock: Callable[[], float], *, probe_s: float) -> None:
        """Start with everybody well.

        Args:
            count: Number of addresses, above 0.
            clock: Monotonic seconds.
            probe_s: How long one request may try an address whose rest is over before another one may.
        """
        self.addresses = tuple(Health(index) for index in range(count))
        self._clock = clock
        self._probe_s = probe_s
        self._next = 0

    @property
    def resting(self) -> int:
        """How many addresses are not well, those on trial included."""
        return sum(health.rests_until > 0 for health in self.addresses)

    def is_well(self, index: int) -> bool:
        """Tell whether an address neither rests nor is on trial."""
        return self.addresses[index].rests_until == 0

    def is_fit(self, index: int) -> bool:
        """Tell whether an address may be dialled: it is well, or its rest is over."""
        return self.addresses[index].rests_until <= self._clock()

    def turn(self) -> int | None:
        """The address whose turn it is, without taking the turn; None when a dial has to tell who is alive."""
        health = self.addresses[self._next]
        if health.rests_until == 0:
            return self._next
        now = self._clock()
        for health in self._in_order():
            if health.rests_until <= now:
                return health.index if health.rests_until == 0 else None
        return None

    def taken(self, index: int) -> None:
        """The turn of an address was taken."""
        self._next = (index + 1) % len(self.addresses)

    def choose(self, tried: Collection[int] = (), *, avoid: int | None = None) -> int | None:
        """Take a turn for a dial.

        Args:
            tried: Addresses this request tried already.
            avoid: An address to come back to only when no other is fit.

        Returns:
            An address that is well or whose rest is over; while all others rest, the one that failed longest ago, so
            that nothing is refused untried. None when all were tried.
        """
        now = self._clock()
        untried = [health for health in self._in_order() if health.index not in tried]
        fit = [health for health in untried if health.rests_until <= now]
        if fit:
            others = [health for health in fit if health.index != avoid] or fit
            chosen = next((health for health in others if health.suspect_until <= now), others[0])
        elif untried:
            chosen = min(untried, key=lambda health: health.failed_at)
        else:
            return None
        if 0 < chosen.rests_until <= now:
            chosen.probing = True
            chosen.rests_until = now + self._probe_s  # meanwhile nobody else tries it
        self.taken(chosen.index)
        return chosen.index

    def dial_failed(self, index: int) -> bool:
        """Nobody answered the dial. True when a rest begins with it."""
        return self._failed(self.addresses[index], enough=True)

    def died(self, index: int) -> bool:
        """A new connection ended before any answer. True when a rest begins with it."""
        health = self.addresses[index]
        health.deaths += 1
        return self._failed(health, enough=health.deaths >= DEATHS)

    def suspect(self, index: int) -> None:
        """A reused connection ended under a request: an old one closed in passing, or the first sign of a death.

        A dying process can still take a dial that nobody will answer, so for a moment dials go elsewhere.
        """
        self.addresses[index].suspect_until = self._clock() + SUSPECT_S

    def dialled(self, index: int) -> bool:
        """A dial was answered; that heals, unless accepting and dying is what this address does. True when it did."""
        health = self.addresses[index]
        return health.deaths < DEATHS and self._heal(health)

    def proved(self, index: int) -> bool:
        """A new connection gave its first answer. True when that ended a rest.

        Answers on older connections prove nothing: a server that shuts down finishes those and takes no new ones.
        """
        health = self.addresses[index]
        dying, health.deaths = health.deaths >= DEATHS, 0
        return dying and self._heal(health)

    def _failed(self, health: Health, *, enough: bool) -> bool:
        now = self._clock()
        health.failures += 1
        health.failed_at = now
        # Of many requests that fail together one begins the rest, and the others do not lengthen it.
        if not enough or len(self.addresses) == 1 or (health.rests_until > now and not health.probing):
            return False
        health.pauses += 1
        health.probing = False
        health.rests_until = now + pause_s(health.pauses)
        return True

    def _heal(self, health: Health) -> bool:
        rested = health.rests_until > 0
        health.pauses, health.rests_until, health.probing = 0, 0.0, False
        return rested

    def _in_order(self) -> tuple[Health, ...]:
        return self.addresses[self._next :] + self.addresses[: self._next]


def pause_s(pauses: int) -> float:
    """Seconds of the n-th rest in a row, from FIRST_PAUSE_S to LONGEST_PAUSE_S."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(pauses - 1, 10))
