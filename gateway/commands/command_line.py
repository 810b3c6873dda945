"""What the commands of `gateway` share: options, settings, and how they tell of failures."""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from config.model import Settings
    from gateway.commands.tokens import Printed

ConfigFile = Annotated[
    Path | None,
    Parameter(name=["-c", "--config"], help="Settings file. Default: $GW_CONFIG, else gateway.yaml in this folder."),
]
Json = Annotated[bool, Parameter(help="Print one JSON object instead.")]


def run_and_show(command: str, config: Path | None, run: "Callable[[Settings], Printed]") -> int:
    """Load the settings, run what a command does with them, and print it; gives the exit code."""
    from gateway.commands.tokens import CommandFailed, show

    settings = loaded_settings(config)
    if settings is None:
        return 2
    try:
        printed = run(settings)
        show(printed)
    except CommandFailed as error:
        return failed(f"gateway {command}: {error}")
    return printed.code


def config_path(config: Path | None) -> Path:
    """Settle which file holds the settings."""
    from config.environment import CONFIG_VARIABLE

    return config or Path(os.environ.get(CONFIG_VARIABLE) or "gateway.yaml")


def loaded_settings(config: Path | None) -> "Settings | None":
    """Load the settings; None after telling what is wrong with them."""
    from config.load import load_settings

    return loaded(lambda: load_settings(config_path(config), os.environ))


def loaded(load: "Callable[[], Settings]") -> "Settings | None":
    """Load settings; None after telling what is wrong with them."""
    from config.problems import SettingsInvalid

    try:
        return load()
    except SettingsInvalid as invalid:
        errors(invalid.problems)
        return None


def reason(error: Exception) -> str:
    """Say in one line what failed."""
    from gateway.report import failure_text

    return failure_text(error)


def out(*lines: str) -> None:
    """Write lines to standard output."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def failed(line: str) -> int:
    """Say what went wrong, and give the exit code for it."""
    sys.stderr.write(f"{line}\n")
    return 1


def errors(problems: Iterable[object]) -> None:
    """Write problems to standard error."""
    painted("red", "", problems)


def painted(colour: str, label: str, lines: Iterable[object]) -> None:
    """Write lines to standard error, each whole on one line; in colour on a terminal (NO_COLOR is heeded by rich)."""
    if not sys.stderr.isatty():
        sys.stderr.write("".join(f"{label}{line}\n" for line in lines))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True)
    for line in lines:
        place, found, rest = str(line).partition(": ")
        console.print(Text.assemble((label, colour), (place, f"bold {colour}"), found, rest))
