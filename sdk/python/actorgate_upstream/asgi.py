"""Middleware for ASGI applications: FastAPI, Starlette, Litestar, Quart, Django's ASGI."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from actorgate_upstream.errors import AssertionRefused
from actorgate_upstream.problem import problem
from actorgate_upstream.verifier import HEADER, Verifier

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Optional = bool | Callable[[str], bool]
"""Whether requests without an assertion pass: all of them, none, or those whose path the function likes."""

_NAME = HEADER.lower().encode("ascii")
_RESPONSE = "websocket.http.response"
_POLICY_VIOLATION, _TRY_AGAIN_LATER = 1008, 1013


class ActorMiddleware:
    """Lets a request pass once it is known who it is from: `request.state.actor`, `scope["actor"]`."""

    def __init__(
        self,
        app: Application,
        *,
        issuer: str = "",
        audience: str = "",
        jwks_url: str | None = None,
        optional: Optional = False,
        verifier: Verifier | None = None,
    ) -> None:
        """Wrap an application.

        Args:
            app: The application.
            issuer: `public_url` of the gateway, to the letter.
            audience: Name of this upstream in the gateway's settings.
            jwks_url: Where the gateway's keys are, if not below the issuer.
            optional: Let requests pass that bring no assertion; their Actor is None. A bad one is refused all the same.
            verifier: Instead of one made of the arguments above.
        """
        self._app = app
        self._optional = optional
        self._verifier = verifier or Verifier(issuer=issuer, audience=audience, jwks_url=jwks_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Verify, then call the application (ASGI 3)."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        values = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == _NAME]
        optional = self._optional if isinstance(self._optional, bool) else self._optional(scope["path"])
        try:
            actor = await self._verifier.verify_fields(values, optional=optional)
        except AssertionRefused as error:
            await _refuse(scope, receive, send, error)
            return
        scope["actor"] = actor
        scope["state"] = {**scope.get("state", {}), "actor": actor}
        await self._app(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send, error: AssertionRefused) -> None:
    prefix = "http.response"
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        if _RESPONSE not in scope.get("extensions", {}):
            code = _POLICY_VIOLATION if error.status == 401 else _TRY_AGAIN_LATER
            await send({"type": "websocket.close", "code": code})
            return
        prefix = _RESPONSE
    status, fields, body = problem(error)
    headers = [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in fields.items()]
    headers.append((b"content-length", str(len(body)).encode("ascii")))
    await send({"type": f"{prefix}.start", "status": status, "headers": headers})
    await send({"type": f"{prefix}.body", "body": body})
