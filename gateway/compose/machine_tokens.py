"""Composition of what Clerk's machine tokens need: the rules, and who asks Clerk about the opaque ones."""

import aiohttp
from pydantic import SecretStr

from config.model import Settings
from gateway.credentials.find import Marks
from gateway.credentials.kinds import CredentialKind
from gateway.credentials.machine import prefixes_of
from gateway.verify.machine import MachineRules
from gateway.verify.machine_api import MachineApi
from gateway.verify.machine_tokens import MachineTokens
from provisioning.clerk_api import ClerkApi


def machine_tokens(
    settings: Settings, session: aiohttp.ClientSession, tally: ClerkApi
) -> tuple[MachineRules, MachineTokens]:
    """Make these, whether or not a route takes such tokens: a reload of the routes alone keeps them.

    Args:
        settings: In force.
        session: For questions to Clerk.
        tally: Counts them.
    """
    clerk, rules = settings.clerk, MachineRules.of(settings.clerk)
    api = MachineApi(session, clerk.api_url, _text(clerk.secret_key), _text(clerk.machine_secret_key), tally=tally)
    return rules, MachineTokens(api, rules, settings.cache)


def marks_of(settings: Settings, public_url: str) -> Marks:
    """Say what tokens of ours are known by where no route reads them."""
    taken = {CredentialKind(word) for route in settings.routes if route.auth != "none" for word in route.accept}
    return Marks(frozenset((*settings.clerk.issuer, public_url)), prefixes_of(taken))


def _text(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None
