"""One YAML 1.2 file: its data, and where each key was written.

ruamel.yaml rather than PyYAML: YAML 1.2 (`on` and `no` stay text, `012` is twelve), and nodes that know their line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from config.problems import Loc, SettingsInvalid, SettingsProblem, key_text

# Scanner errors quote what they choked on, which may be half a secret: only single characters are kept.
_QUOTED = re.compile(r"'[^']{2,}'|\"[^\"]{2,}\"")


@dataclass(frozen=True, slots=True)
class Document:
    """A settings file that is YAML.

    Attributes:
        file: As it was named.
        data: The mapping at its root; holds secrets.
        root: The same as nodes, for `place_of`; None for an empty file.
        problems: Keys written twice.
    """

    file: str
    data: dict[str, Any] = field(repr=False)
    root: Node | None = field(repr=False)
    problems: tuple[SettingsProblem, ...] = ()

    def place_of(self, loc: Loc) -> tuple[int, int]:
        """Find line and column (from 1) of a key or list item; of the nearest part above when it is not there."""
        node, place = self.root, (1, 1)
        for part in loc:
            step = _step(node, part) if node is not None else None
            if step is None:
                break
            mark, node = step
            place = (mark.start_mark.line + 1, mark.start_mark.column + 1)
        return place

    def has(self, loc: Loc) -> bool:
        """Whether the file says something at `loc`."""
        node = self.root
        for part in loc:
            step = _step(node, part) if node is not None else None
            if step is None:
                return False
            node = step[1]
        return True


def read_document(path: Path) -> Document:
    """Read a settings file.

    Raises:
        SettingsInvalid: It cannot be read, is not YAML, or is not a mapping.
    """
    file = str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise _refused(file, "there is no such file; name yours with -c FILE") from None
    except OSError as error:
        raise _refused(file, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _refused(file, "is not UTF-8 text") from None
    return parse_document(file, text)


def parse_document(file: str, text: str) -> Document:
    """Read the text of a settings file.

    Raises:
        SettingsInvalid: Not YAML, or not a mapping.
    """
    try:
        root = _yaml().compose(text)
        data = _yaml().load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = _QUOTED.sub("something", str(error.problem or error.context or "it does not parse"))
        line, column = (None, None) if mark is None else (mark.line + 1, mark.column + 1)
        raise SettingsInvalid([SettingsProblem(file, line, column, "", f"is not YAML here: {message}")]) from None
    except YAMLError:
        raise _refused(file, "holds a character that YAML does not allow") from None
    except (ValueError, OverflowError, RecursionError):
        raise _refused(file, "holds a number, a date or a nesting YAML cannot take; put quotes around texts") from None
    if data is None or not isinstance(data, dict):
        raise _refused(file, "holds no settings; write keys such as `listen: 127.0.0.1:8080`", 1)
    return Document(file, data, root, tuple(_duplicates(file, root, (), set())))


def _yaml() -> Any:
    yaml = YAML(typ="safe", pure=True)
    yaml.allow_duplicate_keys = True  # found by `_duplicates`: all of them, and without quoting their values
    return yaml


def _refused(file: str, message: str, line: int | None = None) -> SettingsInvalid:
    return SettingsInvalid([SettingsProblem(file, line, line, "", message)])


def _step(node: Node, part: str | int) -> tuple[Node, Node] | None:
    """Give the node to point at, and the value below it."""
    if isinstance(node, MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(part)), None)
    if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def _duplicates(file: str, node: Node | None, loc: Loc, seen: set[int]) -> Iterator[SettingsProblem]:
    """Find keys written twice; the later would silently win. `seen` ends the walk on aliases, circular ones too."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield from _duplicates(file, item, (*loc, index), seen)
    if not isinstance(node, MappingNode):
        return
    first: dict[str, int] = {}
    for key, value in node.value:
        name = key.value if isinstance(key, ScalarNode) else "?"
        if name in first:
            line, column = key.start_mark.line + 1, key.start_mark.column + 1
            text = f"is written twice, first in line {first[name]}; keep one"
            yield SettingsProblem(file, line, column, key_text((*loc, name)), text)
        first.setdefault(name, key.start_mark.line + 1)
        yield from _duplicates(file, value, (*loc, name), seen)
