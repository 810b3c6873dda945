"""What is wrong with the settings, said so that a person can put it right: where, which key, what to write instead."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Loc = tuple[str | int, ...]
"""Where a value sits: keys of mappings and indices of lists, from the root."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a rule found, before anybody looked up where it was written."""

    loc: Loc
    message: str


@dataclass(frozen=True, slots=True)
class SettingsProblem:
    """One thing to put right, or (from `lint`) to think about.

    Attributes:
        file: The file as it was named, or the environment variable.
        line: From 1; None when there is no line to show.
        column: From 1, in characters; None when there is no line.
        key: Dotted, such as `routes[0].path`; empty when no key is meant.
        message: What is wrong and what to write. Never holds a value of a secret.
    """

    file: str
    line: int | None
    column: int | None
    key: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}:{self.column}"
        return f"{place} {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class SettingsInvalid(Exception):
    """The settings cannot be used.

    Attributes:
        problems: All that was found, in the order of the file; at least one.
    """

    def __init__(self, problems: Iterable[SettingsProblem]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(map(str, self.problems)))


def key_text(loc: Sequence[str | int]) -> str:
    """Write a place as people do: `upstreams.app.url`, `routes[0].path`."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
