"""Read the settings: the YAML file, then what the environment and secret files put over it, checked in one go.

All problems come together, each with the place where it was written. The rules themselves are in `model.py` (one
key) and `checks.py` (several keys).
"""

import copy
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from config.checks import complete, find_problems
from config.document import Document, read_document
from config.environment import Override, find_overrides
from config.explain import explain, plain_loc
from config.lint import lint
from config.model import Settings
from config.problems import Finding, Loc, SettingsInvalid, SettingsProblem, key_text


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings in force, and what one may want to think about.

    Attributes:
        settings: Complete: what the publishable key and `listen` imply is filled in.
        warnings: From `lint`, with their places.
    """

    settings: Settings
    warnings: tuple[SettingsProblem, ...]


def load_settings(path: Path, environ: Mapping[str, str] = os.environ, *, for_serve: bool = False) -> Settings:
    """Read the settings of one gateway.

    Args:
        path: The YAML file.
        environ: `GW_*` variables are read from it; others are left alone.
        for_serve: Also demand what only serving needs: a master key and a database.

    Raises:
        SettingsInvalid: Any number of problems, each with its place.
    """
    return load(path, environ, for_serve=for_serve).settings


def load(path: Path, environ: Mapping[str, str] = os.environ, *, for_serve: bool = False) -> Loaded:
    """Read the settings and what `lint` says of them; arguments and errors are those of `load_settings`."""
    overrides, problems = find_overrides(environ)
    try:
        document = read_document(path)
    except SettingsInvalid as invalid:
        raise SettingsInvalid([*invalid.problems, *problems]) from None
    data, sources = _merged(document, overrides)
    problems += document.problems
    settings, findings = _judged(data, sources, for_serve=for_serve)
    problems += _placed(document, sources, findings)
    if problems or settings is None:
        raise SettingsInvalid(sorted(problems, key=_order))
    warnings = tuple(_placed(document, sources, lint(settings)))
    return Loaded(complete(settings, default_data_dir(environ)), warnings)


def default_data_dir(environ: Mapping[str, str], platform: str = sys.platform) -> Path:
    """Name the platform's folder for data of the user.

    Args:
        environ: `XDG_DATA_HOME` is read from it, except on macOS; the XDG specification ignores a relative one.
        platform: As `sys.platform`.
    """
    if platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "actorgate"
    xdg = Path(environ.get("XDG_DATA_HOME", ""))
    return (xdg if xdg.is_absolute() else Path.home() / ".local" / "share") / "actorgate"


def _judged(
    data: dict[str, Any], sources: Mapping[Loc, str], *, for_serve: bool
) -> tuple[Settings | None, list[Finding]]:
    """Apply every rule; the settings are None when something is wrong with them."""
    findings: list[Finding] = []
    broken: set[Loc] = set()
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        details = _causes(error)
        findings = [
            explain(detail, from_environment=_source_of(sources, detail["loc"]) is not None) for detail in details
        ]
        unknown = [plain_loc(detail["loc"]) for detail in details if detail["type"] == "extra_forbidden"]
        broken = {_part_of(plain_loc(detail["loc"])) for detail in details if detail["type"] != "extra_forbidden"}
        sound = _sound(data, broken, unknown)
        if sound is None:
            return None, findings
        settings = sound
    findings += [found for found in find_problems(settings, for_serve=for_serve) if _part_of(found.loc) not in broken]
    return (None if findings else settings), findings


def _causes(error: ValidationError) -> list[ErrorDetails]:
    """Leave out what only follows: pydantic calls a list too short when it could not read the items it has."""
    details = error.errors(include_url=False)
    locs = [detail["loc"] for detail in details]
    return [
        detail
        for detail in details
        if detail["type"] != "too_short"
        or not any(loc != detail["loc"] and loc[: len(detail["loc"])] == detail["loc"] for loc in locs)
    ]


# The rules over several keys still run when one key is wrong. What is broken is replaced by something harmless, and
# what the rules then say of it is dropped; these settings are never given out.
_HARMLESS: dict[str, Any] = {
    "clerk": {"issuer": "https://clerk.invalid", "jwks_url": "https://clerk.invalid/jwks"},
    "upstreams": {"broken": {"url": "http://broken.invalid:80"}},
    "routes": [{"path": "/", "auth": "required", "upstream": "broken"}],
}


def _part_of(loc: Loc) -> Loc:
    """Give the part that counts as broken with `loc`: one route, one upstream, or a whole section."""
    return loc[:2] if loc[:1] in {("routes",), ("upstreams",)} else loc[:1]


def _sound(data: dict[str, Any], broken: Iterable[Loc], unknown: Iterable[Loc]) -> Settings | None:
    """Build settings of the sound parts; None when they cannot be told apart."""
    rest = copy.deepcopy(data)
    for loc in unknown:
        _remove(rest, loc)
    for loc in sorted(broken, key=len, reverse=True):
        if len(loc) == 2 and loc[0] == "routes" and isinstance(rest.get("routes"), list):
            rest["routes"][loc[1]] = _HARMLESS["routes"][0]
        elif len(loc) == 2 and isinstance(rest.get(str(loc[0])), dict):
            rest["upstreams"].pop(loc[1], None)
            rest["upstreams"] |= {str(loc[1]): {"url": "http://broken.invalid:80"}}
        elif str(loc[0]) in _HARMLESS:
            rest[str(loc[0])] = _HARMLESS[str(loc[0])]
        else:
            rest.pop(str(loc[0]), None)
    try:
        return Settings.model_validate(rest)
    except ValidationError:
        return None


def _remove(data: Any, loc: Loc) -> None:
    for part in loc[:-1]:
        data = data[part]
    data.pop(loc[-1], None)


def _merged(document: Document, overrides: Iterable[Override]) -> tuple[dict[str, Any], dict[Loc, str]]:
    """Put the overrides over the file's data.

    Returns:
        The data, and the source of each part that does not come from the file.
    """
    data, sources = copy.deepcopy(document.data), dict[Loc, str]()
    for override in overrides:
        node, loc = data, list[str | int]()
        for part in override.loc[:-1]:
            key = _spelled(node, part)
            # Copied on the way down: a YAML alias may stand for the same mapping elsewhere.
            node[key] = dict(node[key]) if isinstance(node.get(key), dict) else {}
            node = node[key]
            loc.append(key)
        last = _spelled(node, override.loc[-1])
        old = node.get(last)
        if isinstance(old, dict) and isinstance(override.value, dict):
            node[last] = {**old, **override.value}
        else:
            node[last] = override.value
        sources[(*loc, last)] = override.source
    return data, sources


def _spelled(node: Mapping[Any, Any], part: str) -> str:
    """Find an operator's name as the file writes it: variables know neither capitals nor dashes."""
    if part in node:
        return part
    return next((key for key in node if isinstance(key, str) and key.lower().replace("-", "_") == part), part)


def _source_of(sources: Mapping[Loc, str], loc: Loc) -> tuple[str, Loc] | None:
    """Find the source that set `loc`, or the part of the settings above it."""
    for length in range(len(loc), 0, -1):
        if loc[:length] in sources:
            return sources[loc[:length]], loc[:length]
    return None


def _source_below(sources: Mapping[Loc, str], loc: Loc) -> str | None:
    """Find a source that set a part of a section the file does not have."""
    return next((source for place, source in sources.items() if place[: len(loc)] == loc), None)


def _placed(document: Document, sources: Mapping[Loc, str], findings: Iterable[Finding]) -> Iterable[SettingsProblem]:
    for found in findings:
        source = _source_of(sources, found.loc)
        if source is not None:
            # The variable's name says the key; a place inside its JSON has to be told.
            key = key_text(found.loc) if source[1] != found.loc else ""
            yield SettingsProblem(source[0], None, None, key, found.message)
        elif not document.has(found.loc) and (below := _source_below(sources, found.loc)) is not None:
            yield SettingsProblem(below, None, None, key_text(found.loc), found.message)
        else:
            yield SettingsProblem(document.file, *document.place_of(found.loc), key_text(found.loc), found.message)


def _order(problem: SettingsProblem) -> tuple[bool, int, int]:
    return problem.line is None, problem.line or 0, problem.column or 0
