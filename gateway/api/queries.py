"""The query of an own endpoint, read strictly; and cursors, which nobody but us can make."""

import base64
import binascii
import re
from typing import TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from gateway.api.endpoints import Call
from gateway.errors import Fault, QueryInvalid
from provisioning.errors import SealBroken
from provisioning.sealing import Sealer

AUDIT_CURSORS = "audit cursors"
_MOST_PARAMETERS = 32
_LETTERS = re.compile(r"[A-Za-z0-9_-]*")  # the decoder itself takes more


class Query(BaseModel):
    """Base of the parameters an endpoint takes, in camelCase: nothing unknown, none twice."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)


Q = TypeVar("Q", bound=Query)


def read_query(call: Call, model: type[Q]) -> Q:
    """Read the parameters of a request.

    Raises:
        QueryInvalid: They cannot be read, one is unknown or comes twice, or one is not what it should be.
    """
    try:
        pairs = parse_qsl(
            call.arrived.target.query[1:].decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MOST_PARAMETERS,
        )
    except ValueError:
        raise QueryInvalid("query_malformed") from None
    given = dict(pairs)
    if len(given) < len(pairs):
        raise QueryInvalid("parameter_doubled")
    if any("\0" in value for value in given.values()):
        raise QueryInvalid("query_malformed")  # PostgreSQL has no such text
    try:
        return model.model_validate(given, by_alias=True, by_name=False)
    except ValidationError as error:
        raise QueryInvalid("parameter_invalid", _faults(error)) from None


def _faults(error: ValidationError) -> tuple[Fault, ...]:
    """Say which parameters are wrong; the name of an unknown one is the client's, and stays with them."""
    found = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        if fault["type"] == "extra_forbidden":
            found.append(Fault("", "There is a parameter that is not known here."))
        else:
            found.append(Fault(f"/{fault['loc'][0]}", fault["msg"]))
    return tuple(found)


class Cursors:
    """Writes down where a page ended so that only we can read it, and only for the same question.

    A cursor is sealed (AES-256-GCM): it cannot be made up, changed, or moved to another organization or other filters.
    """

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def write(self, place: bytes, question: str) -> str:
        """Write a cursor.

        Args:
            place: Where the page ended.
            question: Whose list it is and how it is filtered.
        """
        return base64.urlsafe_b64encode(self._sealer.seal(place, question)).rstrip(b"=").decode()

    def read(self, cursor: str, question: str) -> bytes:
        """Read a cursor that was written for this question.

        Raises:
            QueryInvalid: It was not.
        """
        try:
            return self._sealer.unseal(_decoded(cursor), question)
        except (binascii.Error, SealBroken):
            fault = Fault("/cursor", "This cursor is not of this list with these filters.")
            raise QueryInvalid("cursor_invalid", (fault,)) from None


def _decoded(cursor: str) -> bytes:
    if _LETTERS.fullmatch(cursor) is None:
        raise binascii.Error
    return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
