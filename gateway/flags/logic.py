"""Targeting rules: the part of JsonLogic that flagd's definitions use, with flagd's own operators. Pure.

A rule is compiled once, so that what cannot be evaluated is refused with the definitions, not found out by a request;
its evaluation ends, for rules have neither loops nor recursion.
"""

import math
import operator as comparisons
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, pairwise
from typing import Any, TypeAlias

from gateway.flags.murmur import murmur3
from gateway.flags.provider import DefinitionsInvalid, Json

Context: TypeAlias = Mapping[str, object]
"""What `var` looks in."""
Rule: TypeAlias = Callable[[Context], object]
_DEEPEST = 64
_LARGEST = 10_000
"""Parts of one flag's rule, with those of its evaluators as often as it names them."""
_CLOCK = "$flagd.timestamp"
_WEIGHT_MAX = 2**31 - 1


def compile_rule(node: Json, evaluators: Mapping[str, Json]) -> Rule:
    """Compile a rule.

    Args:
        node: As parsed.
        evaluators: Named parts of rules: what `{"$ref": name}` stands for.

    Raises:
        DefinitionsInvalid: An operator nobody knows, a wrong number of arguments, the clock, or rules that contain
            themselves or grow beyond all bounds by naming each other.
    """
    return _compiled(node, evaluators, 0, count(1))


def _compiled(node: Json, evaluators: Mapping[str, Json], depth: int, parts: Iterator[int]) -> Rule:
    if depth > _DEEPEST:
        raise DefinitionsInvalid("rules are nested too deeply, or contain themselves")
    if next(parts) > _LARGEST:
        raise DefinitionsInvalid(f"the rule has more than {_LARGEST} parts, with those of the evaluators it names")
    if isinstance(node, list):
        return _all([_compiled(part, evaluators, depth + 1, parts) for part in node])
    if not isinstance(node, dict) or not node:
        return lambda _: node
    if len(node) != 1:
        raise DefinitionsInvalid("a rule is an object with one key, its operator")
    ((operator, given),) = node.items()
    if operator == "$ref":
        if not isinstance(given, str) or given not in evaluators:
            raise DefinitionsInvalid(f"$ref names no evaluator: {given!r}")
        return _compiled(evaluators[given], evaluators, depth + 1, parts)
    if operator == "var" and (given == _CLOCK or (isinstance(given, list) and given[:1] == [_CLOCK])):
        raise DefinitionsInvalid(f"{_CLOCK} is not there: what is evaluated is remembered")
    given_all = given if isinstance(given, list) else [given]
    arguments = [_compiled(part, evaluators, depth + 1, parts) for part in given_all]
    if operator in _LAZY:
        return _LAZY[operator](arguments)
    if operator not in _EAGER:
        raise DefinitionsInvalid(f"operator {operator!r} is not known")
    fewest, most, function = _EAGER[operator]
    if len(arguments) < fewest or (most is not None and len(arguments) > most):
        raise DefinitionsInvalid(f"operator {operator!r} cannot take {len(arguments)} arguments")
    return _applied(function, arguments)


def _all(rules: Sequence[Rule]) -> Rule:
    return lambda context: [rule(context) for rule in rules]


def _applied(function: Callable[[Context, list[object]], object], arguments: Sequence[Rule]) -> Rule:
    return lambda context: function(context, [argument(context) for argument in arguments])


def truthy(value: object) -> bool:
    """As JsonLogic has it: empty lists are false, `"0"` is true."""
    return bool(value)


def _if(arguments: Sequence[Rule]) -> Rule:
    def chosen(context: Context) -> object:
        for index in range(0, len(arguments) - 1, 2):
            if truthy(arguments[index](context)):
                return arguments[index + 1](context)
        return arguments[-1](context) if len(arguments) % 2 else None

    return chosen


def _first(wanted: bool) -> Callable[[Sequence[Rule]], Rule]:
    """`or` gives the first that is true, `and` the first that is false; both else the last."""

    def operator(arguments: Sequence[Rule]) -> Rule:
        def found(context: Context) -> object:
            value: object = None
            for argument in arguments:
                value = argument(context)
                if truthy(value) is wanted:
                    break
            return value

        return found

    return operator


_LAZY: Mapping[str, Callable[[Sequence[Rule]], Rule]] = {"if": _if, "?:": _if, "and": _first(False), "or": _first(True)}


def _var(context: Context, values: list[object]) -> object:
    path = values[0] if values else ""
    default = values[1] if len(values) > 1 else None
    if path in ("", None):
        return dict(context)
    here: object = context
    for step in str(path).split("."):
        if isinstance(here, Mapping) and step in here:
            here = here[step]
        elif isinstance(here, list) and step.isdecimal() and int(step) < len(here):
            here = here[int(step)]
        else:
            return default
    return default if here is None else here


def _number(value: object) -> float | None:
    if not isinstance(value, bool | int | float | str):
        return None
    try:
        return float(value) if not isinstance(value, str) or value.strip() else 0.0
    except (ValueError, OverflowError):
        return None


def _equal(_: Context, values: list[object]) -> bool:
    """JavaScript's `==`: a number equals the text that spells it; null equals only itself."""
    left, right = values
    if isinstance(left, str) and isinstance(right, str):
        return left == right
    simple = (bool, int, float, str)
    if isinstance(left, simple) and isinstance(right, simple):
        first, second = _number(left), _number(right)
        return first is not None and first == second
    return left is right or left == right


def _same(_: Context, values: list[object]) -> bool:
    left, right = values
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def _ordered(holds: Callable[[Any, Any], bool]) -> Callable[[Context, list[object]], bool]:
    def compare(_: Context, values: list[object]) -> bool:
        return all(_compare(holds, left, right) for left, right in pairwise(values))

    return compare


def _compare(holds: Callable[[Any, Any], bool], left: object, right: object) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        return holds(left, right)
    first, second = _number(left), _number(right)
    return first is not None and second is not None and holds(first, second)


def _in(_: Context, values: list[object]) -> bool:
    needle, hay = values
    if isinstance(hay, str):
        return isinstance(needle, str) and needle in hay
    return isinstance(hay, list) and any(_same({}, [needle, item]) for item in hay)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def _affix(test: Callable[[str, str], bool]) -> Callable[[Context, list[object]], object]:
    def operator(_: Context, values: list[object]) -> object:
        text, part = values
        return test(text, part) if isinstance(text, str) and isinstance(part, str) else None

    return operator


_VERSION = re.compile(
    r"v?(0|[1-9]\d{0,17})(?:\.(0|[1-9]\d{0,17}))?(?:\.(0|[1-9]\d{0,17}))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?",
    re.ASCII,
)


def _version(value: object) -> tuple[tuple[int, int, int], tuple[tuple[int, int, str], ...] | None] | None:
    found = _VERSION.fullmatch(_text(value))
    if found is None:
        return None
    major, minor, patch, before = found.groups()
    parts = None
    if before is not None:
        split = before.split(".")
        parts = tuple((0, int(part), "") if part.isdecimal() and len(part) < 19 else (1, 0, part) for part in split)
    return (int(major), int(minor or 0), int(patch or 0)), parts


def _sem_ver(_: Context, values: list[object]) -> object:
    left, relation, right = _version(values[0]), values[1], _version(values[2])
    if left is None or right is None:
        return None
    # What is before a release is smaller than it (Semantic Versioning §11.3).
    first, second = (((v[0], v[1] is None, v[1] or ())) for v in (left, right))
    return {
        "=": first == second,
        "!=": first != second,
        "<": first < second,
        "<=": first <= second,
        ">": first > second,
        ">=": first >= second,
        "^": left[0][0] == right[0][0],
        "~": left[0][:2] == right[0][:2],
    }.get(str(relation))


def _fractional(context: Context, values: list[object]) -> object:
    """The variant whose share the hash falls into, as the flagd daemon does it: no share is lost to rounding.

    Without a text to hash first, it is of the flag's name and the targeting key.
    """
    shares = values
    if isinstance(values[0], str):
        bucket_by, shares = values[0], values[1:]
    else:
        shares = values[1:] if values[0] is None else values
        flagd = context.get("$flagd")
        flag = flagd.get("flagKey", "") if isinstance(flagd, Mapping) else ""
        target = context.get("targetingKey")
        if not isinstance(target, str):
            return None
        bucket_by = f"{flag}{target}"
    weighed = [_share(share) for share in shares]
    total = sum(weight for _, weight in weighed if weight is not None)
    if any(weight is None for _, weight in weighed) or not 0 < total <= _WEIGHT_MAX:
        return None
    bucket = (murmur3(bucket_by.encode("utf-8", "surrogatepass")) * total) >> 32
    end = 0
    for variant, weight in weighed:
        end += weight or 0
        if bucket < end:
            return variant
    return None


def _share(share: object) -> tuple[object, int | None]:
    if not isinstance(share, list) or not share:
        return None, None
    weight = share[1] if len(share) > 1 and share[1] is not None else 1
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        return None, None
    if weight != int(weight) or weight > _WEIGHT_MAX:
        return None, None
    return share[0], max(0, int(weight))  # a weight that is reckoned may fall below nothing


_EAGER: Mapping[str, tuple[int, int | None, Callable[[Context, list[object]], object]]] = {
    "var": (0, 2, _var),
    "==": (2, 2, _equal),
    "!=": (2, 2, lambda context, values: not _equal(context, values)),
    "===": (2, 2, _same),
    "!==": (2, 2, lambda context, values: not _same(context, values)),
    "!": (1, 1, lambda _, values: not truthy(values[0])),
    "!!": (1, 1, lambda _, values: truthy(values[0])),
    ">": (2, 3, _ordered(comparisons.gt)),
    ">=": (2, 3, _ordered(comparisons.ge)),
    "<": (2, 3, _ordered(comparisons.lt)),
    "<=": (2, 3, _ordered(comparisons.le)),
    "in": (2, 2, _in),
    "cat": (0, None, lambda _, values: "".join(map(_text, values))),
    "starts_with": (2, 2, _affix(str.startswith)),
    "ends_with": (2, 2, _affix(str.endswith)),
    "sem_ver": (3, 3, _sem_ver),
    "fractional": (1, None, _fractional),
}
