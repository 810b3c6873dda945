"""Path patterns of the route table: exact, `*` for one segment, `**` at the end for this path and all below."""

import re
from dataclasses import dataclass, field
from functools import lru_cache

from config.grammar import parse_route_path


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern.

    Attributes:
        text: As the settings spell it.
        segments: What stands between the slashes, None for `*`; the last is empty when the pattern ends in `/`.
        open_end: The pattern ends in `**`, which is not among the segments.
    """

    text: str
    segments: tuple[str | None, ...]
    open_end: bool
    _expression: re.Pattern[str] = field(repr=False, compare=False)

    @property
    def is_exact(self) -> bool:
        """It matches one path alone: its text."""
        return not self.open_end and None not in self.segments

    @property
    def first_segment(self) -> str | None:
        """The first segment every match shares; None when they may differ in it."""
        return self.segments[0] if self.segments else None

    def matches(self, path: str) -> bool:
        """Whether the path of a validated target falls under this pattern; case counts, and so does a last slash."""
        return self._expression.fullmatch(path) is not None

    def covers(self, other: "Pattern") -> bool:
        """Whether every path that `other` matches falls under this pattern as well."""
        length = len(self.segments)
        if not self.open_end and (other.open_end or len(other.segments) != length):
            return False
        if len(other.segments) < length:
            return False
        # `*` stands for a segment that is not empty, so it does not cover the end of `/a/`.
        pairs = zip(self.segments, other.segments, strict=False)
        return all(theirs != "" if ours is None else ours == theirs for ours, theirs in pairs)


@lru_cache(maxsize=1024)
def compile_pattern(text: str) -> Pattern:
    """Read a pattern such as `/users/current`, `/users/*/posts` or `/public/**`.

    `/public/**` matches `/public`, `/public/` and all below, but not `/publicity`.

    Raises:
        ValueError: Not a pattern; says what to write instead.
    """
    parts = parse_route_path(text)[1:].split("/")
    open_end = parts[-1] == "**"
    segments = tuple(None if part == "*" else part for part in (parts[:-1] if open_end else parts))
    expression = "".join("/[^/]+" if part is None else "/" + re.escape(part) for part in segments)
    if open_end:
        expression += "(?:/.*)?" if segments else "/.*"
    return Pattern(text, segments, open_end, re.compile(expression, re.DOTALL))
