"""`POST /tokens/leaked`: tokens that a secret scanning service found in public end here, in GitHub's way of telling."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import orjson
import structlog
from pydantic import BaseModel, ConfigDict, StrictStr, TypeAdapter, ValidationError

from gateway.answer import Answer, json_answer
from gateway.api.endpoints import Call
from gateway.errors import ContentInvalid, SignatureInvalid, StoreUnavailable
from gateway.revocation.changes import TokensChanged
from gateway.revocation.revocations import Revocations
from gateway.verify.reporter_keys import ReporterKeys, check_signature
from provisioning.audit import Origin
from provisioning.errors import DatabaseUnavailable
from provisioning.token_text import parse_system_token, parse_token
from provisioning.tokens import Tokens

REPORT_CAP = 1024 * 1024
"""Bytes of one report: some thousands of finds."""
_log = structlog.get_logger()


class Find(BaseModel):
    """One text that looks like a token; further members, such as where it was found, are left unread."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    token: StrictStr
    type: StrictStr = ""


_FINDS = TypeAdapter(list[Find])


@dataclass(frozen=True, slots=True)
class LeakedTokens:
    """Answers the scanning service.

    Attributes:
        revocations: Told of every token that ends.
        system_tokens: Names of system tokens by the SHA-256 of their text, hex in lower case.
    """

    tokens: Tokens
    keys: ReporterKeys
    revocations: Revocations
    system_tokens: Mapping[str, str]

    async def report(self, call: Call) -> Answer:
        """Revoke every API token of a signed report, and tell of each find whether it was one of ours.

        Raises:
            SignatureInvalid: Not signed by the service.
            VerifierUnavailable: Its keys cannot be had now, or the records.
            ContentInvalid: Signed, but no report.
        """
        identifier = _once(call, b"github-public-key-identifier")
        signature = _once(call, b"github-public-key-signature")
        call.demand_json()
        key = await self.keys.find(identifier)
        body = await call.read_body(REPORT_CAP)
        check_signature(key, body, signature)
        try:
            finds = _FINDS.validate_python(orjson.loads(body))
        except (orjson.JSONDecodeError, ValidationError):
            raise ContentInvalid("report_invalid") from None
        return json_answer(200, [await self._answer(find, call.origin) for find in finds])

    async def _answer(self, find: Find, origin: Origin) -> dict[str, str]:
        ours = await self._end(find.token, origin)
        return {
            "token_hash": hashlib.sha256(find.token.encode()).hexdigest(),
            "token_type": find.type,
            "label": "true_positive" if ours else "false_positive",
        }

    async def _end(self, text: str, origin: Origin) -> bool:
        """End what the text opens; True when it is or was one of our tokens."""
        system = parse_system_token(text)
        if system is not None:
            name = self.system_tokens.get(system.digest().hex())
            if name is not None:  # settings hold it, so an operator must take it out of them
                _log.error("system token leaked", name=name)
            return name is not None
        token = parse_token(text)
        if token is None:
            return False
        try:
            ended = await self.tokens.revoke_leaked(token.public_id, token.digest(), origin)
        except DatabaseUnavailable as error:
            raise StoreUnavailable("database_unavailable") from error
        if ended is None:
            return False
        self.revocations.tell(TokensChanged(ended.user_id, ended.id))
        _log.warning("API token leaked", token_id=ended.id, user_id=ended.user_id)
        return True


def _once(call: Call, name: bytes) -> str:
    """Read a field that must come once.

    Raises:
        SignatureInvalid: It is missing, or doubled.
    """
    values = [value for spelling, value in call.arrived.incoming.fields if spelling.lower() == name]
    if len(values) != 1 or not values[0]:
        raise SignatureInvalid("signature_missing")
    return values[0].decode("latin-1")
