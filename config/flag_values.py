"""What flags can be declared, and which values they can have. Pure."""

import json
import re
from collections.abc import Iterator
from typing import Any

import orjson

from config.model import Settings
from config.problems import Finding

_KEY = re.compile(r"[a-z*][a-z0-9_.*-]*", re.ASCII)


def key_fits(name: str) -> bool:
    """Whether a flag's name is a key of a dictionary (RFC 9651 §3.1.2); any other cannot be told in a header."""
    return _KEY.fullmatch(name) is not None


def fits(kind: str, value: Any) -> bool:
    """Whether a value is of a declared type, and can be told at all: as JSON, and in 64 bits.

    Args:
        kind: `boolean`, `string`, `integer`, `number` or `json`.
        value: As a provider gave it, or a settings file.
    """
    if kind == "boolean":
        return isinstance(value, bool)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    right = {
        "string": isinstance(value, str),
        "integer": is_number and isinstance(value, int),
        "number": is_number,
        "json": value is not None,
    }[kind]
    return right and _is_json(value)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)  # the one refuses what is no number,
        orjson.dumps(value)  # the other whole numbers beyond 64 bits and halves of characters
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def find_flag_problems(settings: Settings) -> Iterator[Finding]:
    """Find what makes declared flags unusable, and a provider that lacks what it needs."""
    posthog, flags = settings.posthog, settings.flags
    if flags is None:
        return
    if flags.provider == "posthog" and (posthog is None or posthog.secret_key is None):
        yield Finding(("flags", "provider"), "needs posthog.project_key and posthog.secret_key")
    if flags.provider == "openfeature" and flags.openfeature is None:
        yield Finding(("flags", "provider"), "needs flags.openfeature, such as package.module:Provider")
    for name, flag in flags.declare.items():
        if not fits(flag.type, flag.default):
            yield Finding(("flags", "declare", name, "default"), f"is not of type {flag.type}")


def find_flag_oddities(settings: Settings) -> Iterator[Finding]:
    """Find what is valid of flags and yet does nothing."""
    flags = settings.flags
    if flags is None:
        return
    if flags.provider == "file" and flags.file is None and flags.declare:
        yield Finding(("flags", "file"), "is not set; everybody has the declared defaults")
    if flags.provider == "file" and flags.file is not None and flags.declare and not flags.file.is_file():
        yield Finding(("flags", "file"), f"{flags.file} is not there; serve does not start without it")
    for name, flag in flags.declare.items():
        loc = ("flags", "declare", name)
        if "headers" in flag.expose and not key_fits(name):
            yield Finding(loc, "has a name no header can tell: lower case letters, digits and _ - . * can")
        if not flag.expose:
            yield Finding((*loc, "expose"), "is empty; nobody is told")
        if flag.when_role == "SYSTEM":
            yield Finding((*loc, "when_role"), "is that of callers without a user, who are told no flags")
