"""Clerk's conformance vectors: tokens and requests with what Clerk's own library makes of them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).resolve().parents[2].parent / "shared" / "clerk" / "vectors.json"


@cache
def all_vectors() -> tuple[dict[str, Any], ...]:
    """Every vector, in the order of the file."""
    return tuple(json.loads(_FILE.read_text()))


def vectors(kind: str) -> list[dict[str, Any]]:
    """The vectors of one kind."""
    return [vector for vector in all_vectors() if vector["kind"] == kind]


def name_of(vector: dict[str, Any]) -> str:
    """The id of a parametrised test."""
    return str(vector["name"])
