"""Middleware for aiohttp applications; needs aiohttp."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from actorgate_upstream.actor import Actor
from actorgate_upstream.asgi import Optional
from actorgate_upstream.errors import AssertionRefused
from actorgate_upstream.problem import problem
from actorgate_upstream.verifier import HEADER, Verifier

ACTOR: web.RequestKey[Actor | None] = web.RequestKey("actor")
"""Where the Actor is in a request: `request[ACTOR]`."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Middleware(Protocol):
    """What aiohttp calls."""

    def __call__(self, request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
        """Answer a request."""


def actor_middleware(verifier: Verifier, *, optional: Optional = False) -> Middleware:
    """Make a middleware that lets a request pass once it is known who it is from: `request[ACTOR]`.

    Args:
        verifier: Verifies.
        optional: Let requests pass that bring no assertion; their Actor is None. A bad one is refused all the same.
    """

    @web.middleware
    async def verified(request: web.Request, handler: Handler) -> web.StreamResponse:
        may_lack = optional if isinstance(optional, bool) else optional(request.path)
        try:
            actor = await verifier.verify_fields(request.headers.getall(HEADER, []), optional=may_lack)
        except AssertionRefused as error:
            status, fields, body = problem(error)
            return web.Response(status=status, headers=fields, body=body)
        request[ACTOR] = actor
        return await handler(request)

    return verified
