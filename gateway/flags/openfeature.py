"""Flags from any provider of OpenFeature's SDK, named by its dotted path. Needs the extra `openfeature`.

A provider that asks its service for each evaluation would make callers wait: take one that evaluates in this process.
It is asked once per caller and `refresh_s`, for OpenFeature has no count of definitions to go by.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from config.model import DeclaredFlag
from gateway.flags.provider import DefinitionsInvalid, Facts, Json
from provisioning.background import end_tasks

if TYPE_CHECKING:
    from openfeature.provider import AbstractProvider

REFRESH_S = 30.0


class OpenFeatureFlags:
    """A `FlagProvider`."""

    def __init__(
        self,
        path: str,
        declared: Mapping[str, DeclaredFlag],
        *,
        refresh_s: float = REFRESH_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is imported yet.

        Args:
            path: `package.module:Name` of a class or function that makes a provider, called without arguments.
            declared: The flags to ask for.
            refresh_s: Seconds for which an evaluation is good.
            monotonic: Seconds.
        """
        self._path = path
        self._declared = declared
        self._refresh_s = refresh_s
        self._monotonic = monotonic
        self._provider: AbstractProvider | None = None
        self._counting: asyncio.Task[None] | None = None
        self._failed = False  # for any flag since the last count
        self.generation = 0
        self.loads: Counter[str] = Counter()
        self.loaded_at: float | None = None

    def evaluate(self, facts: Facts) -> Mapping[str, Json]:
        """See `FlagProvider`; a flag the provider has an error for has no value."""
        from openfeature.evaluation_context import EvaluationContext

        provider = self._provider
        if provider is None:
            return {}
        attributes = cast(dict[str, Any], {key: value for key, value in asdict(facts).items() if value is not None})
        context = EvaluationContext(facts.user_id, attributes)
        values: dict[str, Json] = {}
        for name, flag in self._declared.items():
            resolves: Mapping[str, Any] = {
                "boolean": provider.resolve_boolean_details,
                "string": provider.resolve_string_details,
                "integer": provider.resolve_integer_details,
                "number": provider.resolve_float_details,
                "json": provider.resolve_object_details,
            }
            try:
                details = resolves[flag.type](name, flag.default, context)
            except Exception:  # noqa: BLE001 - someone else's code; one flag's trouble is not another's
                self._failed = True
                continue
            if details.error_code is None:
                values[name] = cast(Json, details.value)
        return values

    async def start(self) -> None:
        """See `FlagProvider`."""
        self._provider = await asyncio.to_thread(self._made)
        self._count()
        self._counting = asyncio.create_task(self._keep_counting())

    async def close(self) -> None:
        """See `FlagProvider`."""
        await end_tasks(self._counting)
        if self._provider is not None:
            await asyncio.to_thread(self._provider.shutdown)

    def _count(self) -> None:
        self.generation += 1
        self.loads["failed" if self._failed else "ok"] += 1
        if not self._failed:
            self.loaded_at = self._monotonic()
        self._failed = False

    async def _keep_counting(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_s)
            self._count()

    def _made(self) -> "AbstractProvider":
        module, _, name = self._path.partition(":")
        try:
            from openfeature.evaluation_context import EvaluationContext

            provider = cast("AbstractProvider", getattr(import_module(module), name)())
            provider.initialize(EvaluationContext())
        except Exception as error:  # someone else's code: whatever it raises, it cannot be used
            raise DefinitionsInvalid(f"flags.openfeature: {self._path}: {type(error).__name__}: {error}") from error
        return provider
