"""What became of deliveries, and what waits, for metrics."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from provisioning.outbox.queue import Depth

Result = Literal["delivered", "failed", "dead"]


@dataclass(slots=True)
class Tally:
    """Counts of this process, and the state of the whole table.

    Attributes:
        deliveries: By topic and result: `delivered`; `failed`, to be tried again; `dead`, given up.
        depth: By topic, as it was when it was last looked at.
        looked_at: Monotonic seconds of that look.
    """

    deliveries: Counter[tuple[str, Result]] = field(default_factory=Counter)
    depth: Mapping[str, Depth] = field(default_factory=dict)
    looked_at: float = 0.0

    def looked(self, depth: Mapping[str, Depth]) -> None:
        """Take in what was seen now."""
        self.depth, self.looked_at = depth, time.monotonic()

    def age_s(self) -> float:
        """Tell how old that look is."""
        return time.monotonic() - self.looked_at
