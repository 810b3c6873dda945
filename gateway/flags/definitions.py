"""Definitions of flags in flagd's format: read, checked as a whole, and evaluated. Pure.

What does not fit is refused with its line; nothing is in force by halves.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import cast

from gateway.flags.logic import Rule, compile_rule
from gateway.flags.provider import DefinitionsInvalid, Facts, Json

_KEYS = frozenset({"state", "variants", "defaultVariant", "targeting", "metadata"})
_TOP = frozenset({"flags", "$evaluators", "$schema", "metadata"})
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:\n]')
_VALUES = (bool, str, int, float, dict, list)


@dataclass(frozen=True, slots=True)
class Definition:
    """One flag.

    Attributes:
        variants: Its values by name.
        default: The variant where targeting names none; None: then it has no value.
        rule: Names a variant; None: there is no targeting.
    """

    enabled: bool
    variants: Mapping[str, Json]
    default: str | None
    rule: Rule | None


def parse(text: str, name: str) -> Mapping[str, Definition]:
    """Read definitions.

    Args:
        text: JSON.
        name: Of the file, for messages.

    Raises:
        DefinitionsInvalid: All problems, each with its line.
    """
    try:
        document = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise DefinitionsInvalid(f"{name}:{error.lineno}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # ours, of a key that is there twice; or numbers without an end
        raise DefinitionsInvalid(f"{name}:1: {error}") from None
    lines = dict(_places(text))
    definitions, problems = {}, []
    for place, found in _checked(document):
        if isinstance(found, Definition):
            definitions[place[-1]] = found
        else:
            line = next((lines[place[:end]] for end in range(len(place), 0, -1) if place[:end] in lines), 1)
            problems.append(f"{name}:{line}: {'.'.join(place) or 'the document'}: {found}")
    if problems:
        raise DefinitionsInvalid("; ".join(problems))
    return definitions


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    """Two readers of a key that is there twice see different flags."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in names if names.count(key) > 1)!r} is there twice")
    return found


def _no_number(text: str) -> Json:
    raise ValueError(f"{text} is not JSON")


_Place = tuple[str, ...]


def _places(text: str) -> Iterator[tuple[_Place, int]]:
    """Tell the line of every key of valid JSON, outside of lists."""
    path: list[str] = []
    opened: list[bool] = []  # whether each bracket that is open is an object's, with its key in `path`
    line, last = 1, ""
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token == "\n":
            line += 1
        elif token == "{":
            opened.append(True)
            path.append("")
        elif token == "[":
            opened.append(False)
        elif token in "}]":
            if opened.pop():
                path.pop()
        elif token == ":":
            path[-1] = json.loads(last)
            if all(opened):
                yield tuple(path), line
        elif token.startswith('"'):
            last = token


def _checked(document: Json) -> Iterator[tuple[_Place, Definition | str]]:
    """Give each flag, or what is wrong with it, with its place."""
    if not isinstance(document, dict) or not isinstance(document.get("flags"), dict):
        yield (), "must be an object with the key flags"
        return
    for key in document.keys() - _TOP:
        yield (key,), "is not known"
    evaluators = document.get("$evaluators", {})
    if not isinstance(evaluators, dict):
        yield ("$evaluators",), "must be an object"
        return
    for name, flag in cast(dict[str, Json], document["flags"]).items():
        place = ("flags", name)
        problems = list(_problems(flag))
        if problems:
            yield from (((*place, *where), problem) for where, problem in problems)
            continue
        given = cast(dict[str, Json], flag)
        try:
            targeting = given.get("targeting")
            rule = compile_rule(targeting, evaluators) if targeting else None
        except DefinitionsInvalid as error:
            yield (*place, "targeting"), str(error)
            continue
        variants = cast(dict[str, Json], given["variants"])
        default = cast(str | None, given.get("defaultVariant"))
        yield place, Definition(given["state"] == "ENABLED", variants, default, rule)


def _problems(flag: Json) -> Iterator[tuple[_Place, str]]:
    if not isinstance(flag, dict):
        yield (), "must be an object"
        return
    for key in flag.keys() - _KEYS:
        yield (key,), "is not known"
    if flag.get("state") not in ("ENABLED", "DISABLED"):
        yield ("state",), "must be ENABLED or DISABLED"
    variants = flag.get("variants")
    if not isinstance(variants, dict) or not variants:
        yield ("variants",), "must be an object with at least one variant"
        return
    if any(not isinstance(value, _VALUES) for value in variants.values()):
        yield ("variants",), "null is no value"
    if len({_kind(value) for value in variants.values()}) > 1:
        yield ("variants",), "must all be of one type"
    default = flag.get("defaultVariant")
    if default is not None and (not isinstance(default, str) or default not in variants):
        yield ("defaultVariant",), "names no variant"
    if not isinstance(flag.get("targeting", {}), dict | None):
        yield ("targeting",), "must be an object"


def _kind(value: Json) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "json"


def evaluate(definitions: Mapping[str, Definition], facts: Facts) -> dict[str, Json]:
    """Give the values of all flags that have one for these facts. `targetingKey` is the user's id."""
    context: dict[str, object] = {**asdict(facts), "targetingKey": facts.user_id}
    values = {}
    for name, definition in definitions.items():
        context["$flagd"] = {"flagKey": name}
        variant = _variant(definition, context)
        if definition.enabled and variant is not None and variant in definition.variants:
            values[name] = definition.variants[variant]
    return values


def _variant(definition: Definition, context: Mapping[str, object]) -> str | None:
    """The variant's name; one that does not exist leaves the flag without a value."""
    if definition.rule is None:
        return definition.default
    chosen = definition.rule(context)
    if chosen is None:
        return definition.default
    if isinstance(chosen, bool):
        return "true" if chosen else "false"
    return str(chosen)
