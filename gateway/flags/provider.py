"""What a source of feature flags is asked, and what it answers. Values alone; the sources are beside."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

Json = bool | str | int | float | None | list["Json"] | dict[str, "Json"]
"""A value of a flag."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What flags may depend on. Equal facts have equal flags, so an evaluation is remembered by them.

    Attributes:
        user_id: `usr_…`; what percentages are of, unless a definition says otherwise.
        role: `USER`, `ADMIN`; always `USER` for an agent token.
        organization_id: `org_…`.
        organization_role: Without `org:`.
        email: As our records know it. It reaches no service: definitions are evaluated in this process.
        plan: Of the organization, as `X-Subscription-Plan` has it; empty: none counts.
        subscription_status: As `X-Subscription-Status` has it.
    """

    user_id: str
    role: str
    organization_id: str
    organization_role: str
    email: str | None = None
    plan: str = ""
    subscription_status: str = ""


class FlagProvider(Protocol):
    """A source of flags. It never waits and asks nobody while it evaluates.

    Attributes:
        generation: Counts up with each change of the definitions: what was evaluated under another is out of date.
        loads: How looking for definitions ended, by result: `ok`, `not_modified`, `shared` (another process had
            fetched them), `failed` (the last good ones stay).
    """

    generation: int
    loads: Counter[str]

    @property
    def loaded_at(self) -> float | None:
        """When what is in force was last known to be current, monotonic seconds; None: nothing is."""

    def evaluate(self, facts: Facts) -> Mapping[str, Json]:
        """Give the value of each flag that has one for these facts; raises nothing for any facts."""

    async def start(self) -> None:
        """Load, within a bounded time, and keep up to date from then on.

        Raises:
            DefinitionsInvalid: They are wrong, and the operator can mend them.
        """

    async def close(self) -> None:
        """Stop keeping up to date."""


class DefinitionsInvalid(Exception):
    """Definitions that do not fit; the text says where, for operators."""
