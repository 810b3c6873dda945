"""Actorgate: authentication sidecar and reverse proxy."""

from gateway.compiled import choose

__version__ = "0.1.0"
IS_COMPILED = choose()
"""Whether the request's way runs in machine code."""
