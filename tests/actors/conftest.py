"""Callers over real records, with a clock that is moved by hand."""

from tests.actors.test_renewal import stage

__all__ = ["stage"]
