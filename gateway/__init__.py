"""Actorgate: authentication sidecar and reverse proxy."""

__version__ = "0.1.0"
