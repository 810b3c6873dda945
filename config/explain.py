"""What pydantic found, said in our words: what to write instead, never what was written."""

from pydantic_core import ErrorDetails

from config.keys import annotation_at, meant, names_at
from config.problems import Finding, Loc

_MESSAGES = {
    "missing": "is missing; add it",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "int_type": "write a whole number",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "greater_than_equal": "write at least {ge}",
    "less_than_equal": "write at most {le}",
    "literal_error": "write {expected}",
    "string_type": "write text; put quotes around what looks like a number",
    "path_type": "write a path",
    "tuple_type": "write a list, such as [a, b]",
    "model_type": "write keys below it, or leave it out",
    "dict_type": "write keys below it, or leave it out",
    "too_short": "write at least one",
    "invalid_key": "write names as text; put quotes around what looks like a number",
    "value_error": "{error}",
}


def plain_loc(loc: Loc) -> Loc:
    """Take pydantic's own mark for "the key itself" off a place."""
    return tuple(part for part in loc if part != "[key]")


def explain(detail: ErrorDetails, *, from_environment: bool) -> Finding:
    """Turn one error of pydantic's into one of ours. The input stays out of it: it may be a secret.

    Args:
        detail: As `ValidationError.errors()` gives it.
        from_environment: The value came from a variable or a secret file, where lists and sections are JSON.
    """
    loc, kind = plain_loc(detail["loc"]), detail["type"]
    if kind == "extra_forbidden":
        known = names_at(loc[:-1])
        return Finding(loc, f"unknown key{meant(str(loc[-1]), known)}")
    if from_environment and kind in {"tuple_type", "model_type", "dict_type"}:
        return Finding(loc, 'write JSON, such as ["a", "b"] for a list')
    if detail["input"] is None and kind not in {"missing", "invalid_key"} and annotation_at(loc) is not None:
        return Finding(loc, "is empty; give it a value, or leave it out")
    facts = {"msg": detail["msg"], **detail.get("ctx", {})}
    return Finding(loc, _MESSAGES.get(kind, "{msg}").format(**facts))
