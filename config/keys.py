"""The keys there are: what an environment variable may name, and what a mistyped key was meant to be."""

import difflib
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

from pydantic.fields import FieldInfo

from config.model import Section, Settings
from config.problems import Loc

PREFIX = "GW_"


def child_of(annotation: Any, part: str | int) -> Any:
    """Give the annotation below `part`, or None where there is no such key."""
    plain = plain_annotation(annotation)
    if isinstance(plain, type) and issubclass(plain, Section):
        field = plain.model_fields.get(str(part))
        return None if field is None else field.annotation
    arguments = get_args(plain)
    if get_origin(plain) is dict and isinstance(part, str) and part:
        return arguments[1]
    if get_origin(plain) is tuple and isinstance(part, int):
        return arguments[0]
    return None


def annotation_at(loc: Loc) -> Any:
    """Give the annotation of the setting at `loc`, or None where there is none."""
    annotation: Any = Settings
    for part in loc:
        annotation = child_of(annotation, part)
        if annotation is None:
            return None
    return annotation


def names_at(loc: Loc) -> tuple[str, ...]:
    """Give the keys a section takes; none when `loc` is no section."""
    plain = plain_annotation(annotation_at(loc))
    return tuple(plain.model_fields) if isinstance(plain, type) and issubclass(plain, Section) else ()


def meant(word: str, known: tuple[str, ...]) -> str:
    """Say what a mistyped word was probably meant to be, as the end of a sentence; empty when nothing is near."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def variable_of(loc: Loc) -> str:
    """Name the environment variable of a key."""
    return PREFIX + "__".join(str(part) for part in loc).upper()


def every_key() -> Iterator[tuple[Loc, FieldInfo]]:
    """Walk all keys in the order of the model; `<name>` stands for a name of the operator's, `[]` for a list item."""
    return _walk(Settings, ())


def _walk(section: type[Section], loc: Loc) -> Iterator[tuple[Loc, FieldInfo]]:
    for name, field in section.model_fields.items():
        here = (*loc, name)
        yield here, field
        plain = plain_annotation(field.annotation)
        if get_origin(plain) is dict:
            here, plain = (*here, "<name>"), plain_annotation(child_of(plain, "<name>"))
        elif get_origin(plain) is tuple:
            here, plain = (*here, "[]"), plain_annotation(child_of(plain, 0))
        if isinstance(plain, type) and issubclass(plain, Section):
            yield from _walk(plain, here)


def plain_annotation(annotation: Any) -> Any:
    """Take `Annotated` and `None` off."""
    if get_origin(annotation) is Annotated:
        return plain_annotation(get_args(annotation)[0])
    if get_origin(annotation) in {typing.Union, types.UnionType}:
        rest = [argument for argument in get_args(annotation) if argument is not type(None)]
        return plain_annotation(rest[0]) if len(rest) == 1 else annotation
    return annotation
