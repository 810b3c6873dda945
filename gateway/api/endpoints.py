"""The table of own endpoints. They come before routes and are matched on the validated path, byte for byte."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from gateway.actors.beliefs import Caller
from gateway.actors.origin import origin_of
from gateway.answer import Answer
from gateway.edge import slots
from gateway.edge.arrival import Arrived
from gateway.errors import ContentInvalid, ContentTypeUnsupported, CredentialMissing, Fault, MethodRefused
from gateway.policy.routes import CompiledRoute
from provisioning.audit import Origin

B = TypeVar("B", bound=BaseModel)

BODY_CAP = 64 * 1024
"""Bytes of a request body an own endpoint reads."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request for an own endpoint, after policy.

    Attributes:
        caller: None on endpoints open to all.
        read_body: Reads the whole body up to a number of bytes; raises ContentTooLarge beyond.
        parameters: What the path says in the places of its template, escapes as received.
    """

    arrived: Arrived
    caller: Caller | None
    read_body: Callable[[int], Awaitable[bytes]]
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def who(self) -> Caller:
        """The caller of an endpoint that demands one."""
        if self.caller is None:
            raise CredentialMissing
        return self.caller

    @property
    def origin(self) -> Origin:
        """Who acts here and from where, for audit events."""
        return origin_of(self.caller.actor if self.caller is not None else None, self.arrived)

    async def read_json(self) -> Any:
        """Read a JSON body.

        Raises:
            ContentTypeUnsupported: Not `application/json` (a cross-site form cannot send that without a preflight).
            ContentTooLarge: Over BODY_CAP.
            ContentInvalid: Not JSON.
        """
        self.demand_json()
        try:
            return orjson.loads(await self.read_body(BODY_CAP))
        except orjson.JSONDecodeError:
            raise ContentInvalid("json_invalid") from None

    async def read_model(self, model: type[B]) -> B:
        """Read a JSON body of this shape.

        Raises:
            ContentInvalid: Another shape; its faults say where. Otherwise as `read_json`.
        """
        try:
            return model.model_validate(await self.read_json())
        except ValidationError as error:
            raise ContentInvalid("shape_invalid", _faults(error)) from None

    def demand_json(self) -> None:
        """See that the body is sent as JSON.

        Raises:
            ContentTypeUnsupported: It is not.
        """
        media_type = (self.arrived.fields.lifted[slots.CONTENT_TYPE] or b"").partition(b";")[0].strip().lower()
        if media_type not in (b"application/json", b"application/merge-patch+json"):
            raise ContentTypeUnsupported


def _faults(error: ValidationError) -> tuple[Fault, ...]:
    """Say where a body is not of its shape. What was sent is not repeated: a secret may stand in the wrong place."""
    found = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        unknown = fault["type"] == "extra_forbidden"
        place = fault["loc"][:-1] if unknown else fault["loc"]
        pointer = "".join(f"/{part}" for part in place)
        found.append(Fault(pointer, "There is a member that is not known here." if unknown else fault["msg"]))
    return tuple(found)


Handler = Callable[[Call], Awaitable[Answer]]


_PARAMETER = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method on one path.

    Attributes:
        path: Exact, or a template in which `{name}` stands for one whole segment.
        rule: Who may call; judged exactly as a route of the settings is.
    """

    method: str
    path: str
    rule: CompiledRoute
    handler: Handler

    def parameters(self, path: str) -> Mapping[str, str]:
        """Read the parameters out of a path that leads here."""
        match = _compiled(self.path).fullmatch(path) if "{" in self.path else None
        return match.groupdict() if match is not None else {}


class Endpoints:
    """Own endpoints by path.

    Every request asks here first, so a path that is not ours costs one look-up and one comparison of prefixes; a
    template is tried only below its own literal beginning, since applications have paths below `/users/` too.
    """

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._by_path: dict[str, dict[str, Endpoint]] = {}
        for endpoint in endpoints:
            self._by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint
        templates = [path for path in self._by_path if "{" in path]
        self._templates = tuple(
            (path.partition("{")[0], _compiled(path), self._by_path.pop(path)) for path in templates
        )
        self._prefixes = tuple({path.partition("{")[0] for path in templates})

    def rule_of(self, path: str) -> CompiledRoute | None:
        """The rule of a path of ours, whatever the method; None when it is not ours."""
        methods = self._methods(path)
        return next(iter(methods.values())).rule if methods else None

    def __contains__(self, path: str) -> bool:
        """Tell whether this path is ours, whatever the method."""
        return self._methods(path) is not None

    def find(self, method: str, path: str) -> Endpoint | None:
        """Find the endpoint; HEAD asks for what GET answers.

        Raises:
            MethodRefused: The path is ours, the method is not.
        """
        methods: Mapping[str, Endpoint] | None = self._by_path.get(path)
        if methods is None:
            if not path.startswith(self._prefixes):
                return None
            methods = self._below(path)
            if methods is None:
                return None
        endpoint = methods.get("GET" if method == "HEAD" else method)
        if endpoint is None:
            allowed = (*methods, "HEAD") if "GET" in methods else tuple(methods)
            raise MethodRefused(tuple(sorted(allowed)))
        return endpoint

    def _methods(self, path: str) -> Mapping[str, Endpoint] | None:
        methods = self._by_path.get(path)
        return self._below(path) if methods is None else methods

    def _below(self, path: str) -> Mapping[str, Endpoint] | None:
        for beginning, template, methods in self._templates:
            if path.startswith(beginning) and template.fullmatch(path) is not None:
                return methods
        return None


def _compiled(template: str) -> re.Pattern[str]:
    """Compile a template of a path (`re` keeps what it compiled)."""
    parts = _PARAMETER.split(template)  # literal, name, literal, …
    return re.compile(
        "".join(f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part) for index, part in enumerate(parts))
    )
