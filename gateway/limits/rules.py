"""A limit of the settings, ready to count with; and what a count says. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import Literal, NamedTuple, Self

from config.model import RateLimit

SEGMENTS = 32
"""Most moments that a count remembers. Up to so many requests each has its own; of more, those of the same 32nd of the
window leave it together, with the last of them."""
By = Literal["token", "user", "organization", "address"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit.

    Attributes:
        name: Label of metrics, and the policy's name in answers.
        limit: Requests that pass within any time as long as the window.
        window_s: Its length.
        by: Who shares one count.
        when_unavailable: What happens while Redis cannot be asked: all pass, nobody does, or this process counts alone.
        counts_failures: It counts bad credentials, not requests.
        mark: Tells its counts from those of any other limit, also of what it was before a change.
        segment_s: Requests of one such stretch are remembered together; 0: each by itself.
    """

    name: str
    limit: int
    window_s: float
    by: By
    when_unavailable: Literal["open", "closed", "local"]
    counts_failures: bool
    mark: bytes
    segment_s: float

    @classmethod
    def of(cls, name: str, settings: RateLimit) -> Self:
        """Take one from the settings."""
        limit, window_s = settings.limit
        return cls(
            name,
            limit,
            window_s,
            settings.by,
            settings.when_unavailable,
            settings.counts == "failed_credentials",
            f"{name} {limit} {window_s}".encode(),
            0.0 if limit <= SEGMENTS else window_s / SEGMENTS,
        )

    @property
    def policy(self) -> str:
        """Its member of `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10)."""
        return f'"{self.name}";q={self.limit};w={ceil(self.window_s)}'


class Verdict(NamedTuple):
    """What one count says of one request.

    Attributes:
        allowed: It passes, and was counted. What is refused is not counted.
        remaining: More that would pass now.
        wait_s: Until more may pass: until what is counted longest leaves the window.
    """

    allowed: bool
    remaining: int
    wait_s: float


class Quota:
    """What limits said of a request: for its answer.

    Attributes:
        counted: Also those limits were asked which need to know who calls.
    """

    __slots__ = ("_members", "counted")

    def __init__(self) -> None:
        self._members: list[tuple[Rule, Verdict]] = []
        self.counted = False

    def add(self, rule: Rule, verdict: Verdict) -> None:
        """Note one."""
        self._members.append((rule, verdict))

    def fields(self) -> tuple[tuple[bytes, bytes], ...]:
        """Write `RateLimit-Policy` and `RateLimit`; none where nothing could be counted."""
        if not self._members:
            return ()
        policies = ", ".join(rule.policy for rule, _ in self._members)
        left = ", ".join(f'"{rule.name}";r={said.remaining};t={ceil(said.wait_s)}' for rule, said in self._members)
        return ((b"RateLimit-Policy", policies.encode("ascii")), (b"RateLimit", left.encode("ascii")))

    def lines(self) -> bytes:
        """The same as field lines, each with its CRLF."""
        return b"".join(b"%b: %b\r\n" % field for field in self.fields())


def compile_rules(settings: dict[str, RateLimit]) -> dict[str, Rule]:
    """Take all of them from the settings, by their names."""
    return {name: Rule.of(name, one) for name, one in settings.items()}


def of_failures(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Choose those that count bad credentials."""
    return tuple(rule for rule in rules if rule.counts_failures)
