"""The table of own endpoints. They come before routes and are matched on the validated path, byte for byte."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.actors.beliefs import Caller
from gateway.answer import Answer
from gateway.edge import slots
from gateway.edge.arrival import Arrived
from gateway.errors import ContentInvalid, ContentTypeUnsupported, CredentialMissing, MethodRefused
from gateway.policy.routes import CompiledRoute

BODY_CAP = 64 * 1024
"""Bytes of a request body an own endpoint reads."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request for an own endpoint, after policy.

    Attributes:
        caller: None on endpoints open to all.
        read_body: Reads the whole body up to a number of bytes; raises ContentTooLarge beyond.
    """

    arrived: Arrived
    caller: Caller | None
    read_body: Callable[[int], Awaitable[bytes]]

    @property
    def who(self) -> Caller:
        """The caller of an endpoint that demands one."""
        if self.caller is None:
            raise CredentialMissing
        return self.caller

    async def read_json(self) -> Any:
        """Read a JSON body.

        Raises:
            ContentTypeUnsupported: Not `application/json` (a cross-site form cannot send that without a preflight).
            ContentTooLarge: Over BODY_CAP.
            ContentInvalid: Not JSON.
        """
        media_type = (self.arrived.fields.lifted[slots.CONTENT_TYPE] or b"").partition(b";")[0].strip().lower()
        if media_type not in (b"application/json", b"application/merge-patch+json"):
            raise ContentTypeUnsupported
        try:
            return orjson.loads(await self.read_body(BODY_CAP))
        except orjson.JSONDecodeError:
            raise ContentInvalid("json_invalid") from None


Handler = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method on one path.

    Attributes:
        rule: Who may call; judged exactly as a route of the settings is.
    """

    method: str
    path: str
    rule: CompiledRoute
    handler: Handler


class Endpoints:
    """Own endpoints by path."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._by_path: dict[str, dict[str, Endpoint]] = {}
        for endpoint in endpoints:
            self._by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint

    def rule_of(self, path: str) -> CompiledRoute | None:
        """The rule of a path of ours, whatever the method; None when it is not ours."""
        methods = self._by_path.get(path)
        return next(iter(methods.values())).rule if methods else None

    def __contains__(self, path: str) -> bool:
        """Tell whether this path is ours, whatever the method."""
        return path in self._by_path

    def find(self, method: str, path: str) -> Endpoint | None:
        """Find the endpoint; HEAD asks for what GET answers.

        Raises:
            MethodRefused: The path is ours, the method is not.
        """
        methods = self._by_path.get(path)
        if methods is None:
            return None
        endpoint = methods.get("GET" if method == "HEAD" else method)
        if endpoint is None:
            allowed = (*methods, "HEAD") if "GET" in methods else tuple(methods)
            raise MethodRefused(tuple(sorted(allowed)))
        return endpoint
