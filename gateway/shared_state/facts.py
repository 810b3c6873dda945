"""The facts that replicas tell each other through Redis, and how they are written. Pure.

Facts, never verdicts: what our records say, with the moment when they were read. No secret is among them, and nothing
that could be used as one: the digest of a token stays behind, and so does the address it was last used from.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Generic, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from provisioning.records import FoundToken, Standing

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Reading(Generic[F]):
    """A fact as it was read.

    Attributes:
        version: Of the last change that the reader had heard of before it asked the records.
        read_at: Unix seconds, when it asked.
    """

    fact: F
    version: int
    read_at: float


class FactKind(Generic[F]):
    """One kind of fact.

    Attributes:
        name: A word, also in metrics.
        form: Digest of how it is written: one with other fields is never read as this.
    """

    def __init__(
        self, name: str, fact: type[F], ids: Callable[[F], tuple[str, ...]], bare: Callable[[F], F] = lambda fact: fact
    ) -> None:
        """Settle how it is written.

        Args:
            name: A word.
            fact: A frozen dataclass.
            ids: Gives ids of ours that it is about: after a change of one of them it counts no more.
            bare: Leaves out what is not for Redis.
        """
        self.name = name
        self.ids = ids
        self._bare = bare
        self._adapter: TypeAdapter[Reading[F]] = TypeAdapter(Reading[fact])  # type: ignore[valid-type]
        self.form = sha256(orjson.dumps(self._adapter.json_schema(), option=orjson.OPT_SORT_KEYS)).digest()

    def to_bytes(self, reading: Reading[F]) -> bytes | None:
        """Write it, as JSON; None: somebody's own settings hold what this cannot write, such as a number too large."""
        try:
            return orjson.dumps(replace(reading, fact=self._bare(reading.fact)), default=_text)
        except orjson.JSONEncodeError:
            return None

    def from_bytes(self, data: bytes) -> Reading[F] | None:
        """Read what `to_bytes` wrote; None: it is something else."""
        try:
            return self._adapter.validate_json(data, strict=True)
        except ValidationError:
            return None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("ascii")
    raise TypeError


def _bare_token(found: FoundToken) -> FoundToken:
    return replace(found, digest=b"", token=replace(found.token, last_used_address=None))


STANDINGS: FactKind[Standing] = FactKind(
    "standing", Standing, lambda standing: (standing.user.id, standing.organization.id)
)
API_TOKENS: FactKind[FoundToken] = FactKind(
    "api_token",
    FoundToken,
    lambda found: (found.user.id, found.organization.id, found.token.id),
    _bare_token,
)
FORMS = STANDINGS.form + API_TOKENS.form
