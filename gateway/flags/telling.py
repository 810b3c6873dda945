"""Who is told which flags: of what a provider says only what is declared, with declared types and defaults.

An evaluation happens once per facts and generation of the definitions; requests carry what was made of it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

import orjson
import structlog
from cachebox import LRUCache

from config.flag_values import fits
from config.model import DeclaredFlag
from gateway.actors.actor import Actor
from gateway.flags.dictionary import write
from gateway.flags.provider import Facts, FlagProvider, Json
from provisioning.records import Standing

_ALIKE = 1024
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Told:
    """Flags of one caller.

    Attributes:
        generation: Of the definitions they were evaluated with.
        header: The value of `X-Feature-Flags`.
        upstream: The same as values, for the assertion: also those that found no room in the header.
        client: For `/users/current`.
        digest: Of `upstream`: who is told the same has the same.
    """

    generation: int
    header: bytes
    upstream: Mapping[str, Json]
    client: Mapping[str, Json]
    digest: bytes = b""


NOTHING_TOLD = Told(0, b"", {}, {})


@dataclass(slots=True)
class Tally:
    """What became of flags, for metrics.

    Attributes:
        evaluations: Of all flags for one caller's facts.
        wrong_type: Values that are not of the declared type, by flag; the default was told.
        left_out: Flags that a header had no form or no room for, by flag.
    """

    evaluations: int = 0
    wrong_type: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


class NoProvider:
    """A `FlagProvider` that knows nothing: everybody has the declared defaults."""

    def __init__(self) -> None:
        self.generation = 0
        self.loads: Counter[str] = Counter()
        self.loaded_at: float | None = None

    def evaluate(self, facts: Facts) -> Mapping[str, Json]:
        """See `FlagProvider`."""
        del facts
        return {}

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to end."""


class FlagTeller:
    """Tells flags, and remembers what it told.

    Attributes:
        provider: Knows them.
        tally: Counts.
    """

    def __init__(self, declared: Mapping[str, DeclaredFlag], provider: FlagProvider, entries: int) -> None:
        """Nothing is told yet.

        Args:
            declared: All others are told to nobody.
            provider: Evaluates.
            entries: For how many callers to remember.
        """
        self._declared = declared
        self.provider: FlagProvider = provider if declared else NoProvider()
        self.tally = Tally()
        self._told: LRUCache[Facts, Told] = LRUCache(entries)
        self._complained_of = -1
        self._alike: LRUCache[bytes, Told] = LRUCache(_ALIKE)

    def tell(self, facts: Facts) -> Told:
        """Tell the flags of a caller, from memory where nothing changed. Never waits, raises nothing."""
        generation = self.provider.generation
        told: Told | None = self._told.get(facts)
        if told is None or told.generation != generation:
            told = self._evaluated(facts, generation)
            self._told.insert(facts, told)
        return told

    def _evaluated(self, facts: Facts, generation: int) -> Told:
        if not facts.user_id:  # a machine: what percentages would be of is not there
            return Told(generation, b"", {}, {})
        self.tally.evaluations += 1
        try:
            values = self.provider.evaluate(facts)
        except Exception as error:  # noqa: BLE001 - a provider of someone else's must not refuse anybody
            if self._complained_of != generation:  # not once for every caller
                self._complained_of = generation
                _log.error("flags cannot be evaluated, defaults are told", cause=type(error).__name__)
            values = {}
        chosen = {
            name: (self._value(name, flag, values), flag.expose)
            for name, flag in self._declared.items()
            if flag.when_role is None or flag.when_role == facts.role
        }
        upstream = {name: value for name, (value, expose) in chosen.items() if "headers" in expose}
        header, left_out = write(upstream)
        self.tally.left_out.update(left_out)
        client = {name: value for name, (value, expose) in chosen.items() if "client" in expose}
        digest = sha256(orjson.dumps(upstream, option=orjson.OPT_SORT_KEYS)).digest()
        return self._shared(Told(generation, header, upstream, client, digest))

    def _shared(self, told: Told) -> Told:
        """Give the one that others like it have: a million callers know few different sets of flags."""
        key = told.digest + orjson.dumps(told.client, option=orjson.OPT_SORT_KEYS)
        alike: Told | None = self._alike.get(key)
        if alike is not None and alike.generation == told.generation:
            return alike
        self._alike.insert(key, told)
        return told

    def _value(self, name: str, flag: DeclaredFlag, values: Mapping[str, Json]) -> Json:
        if flag.when_role is not None or name not in values:  # rights come from our records, never from a source
            return default_of(flag)
        value = values[name]
        if fits(flag.type, value):
            return value
        self.tally.wrong_type[name] += 1
        return default_of(flag)


def default_of(flag: DeclaredFlag) -> Json:
    """The declared default."""
    default: Json = flag.default
    return default


def facts_of(actor: Actor, standing: Standing) -> Facts:
    """What flags of an Actor may depend on."""
    return Facts(
        user_id=actor.user_id,
        role=actor.role.value,
        organization_id=actor.organization_id,
        organization_role=actor.organization_role,
        email=standing.user.email,
        plan=actor.plan,
        subscription_status=actor.subscription_status,
    )
