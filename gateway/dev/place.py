"""Where everything of one `gateway dev` is, and the commands that show it. Pure."""

import base64
import shlex
from dataclasses import dataclass

from config.publishable_key import parse_publishable_key
from gateway.dev.folder import Ports


@dataclass(frozen=True, slots=True)
class Place:
    """The addresses of one run.

    Attributes:
        admin_url: `http://host:port` of metrics and health.
        upstream_url: Of the upstream the gateway forwards to.
        demo: The upstream is our own one, which shows what reached it.
        token_command: The words that mint a token on a terminal, up to the persona's name.
    """

    ports: Ports
    admin_url: str
    upstream_url: str
    demo: bool = True
    token_command: tuple[str, ...] = ("gateway", "dev-token")

    @property
    def issuer_url(self) -> str:
        """The local issuer, exactly as `iss` has it."""
        return self.ports.issuer_url

    @property
    def gateway_url(self) -> str:
        """The gateway's origin as we print it."""
        return self.ports.gateway_origins[0]

    @property
    def publishable_key(self) -> str:
        """Key of a test instance whose Frontend API is the local issuer."""
        return f"pk_test_{base64.b64encode(f'127.0.0.1:{self.ports.issuer}$'.encode()).decode()}"

    @property
    def cookie_suffix(self) -> str:
        """What the names of this instance's cookies end with."""
        return parse_publishable_key(self.publishable_key).cookie_suffix

    @property
    def sign_in_url(self) -> str:
        """The page that lists the personas."""
        return f"{self.issuer_url}/sign-in"


@dataclass(frozen=True, slots=True)
class Example:
    """One command that can be pasted.

    Attributes:
        title: What it shows.
        command: One line for a POSIX shell; it needs no other line.
    """

    title: str
    command: str


def examples(place: Place, persona: str, token: str) -> tuple[Example, ...]:
    """Build the commands that show the gateway at work, with a token of the persona's."""
    bearer = f"Authorization: Bearer {token}"
    hello = f"{place.gateway_url}/hello?from=curl"
    told = "200: what the upstream is told of" if place.demo else "What your upstream answers, told of"
    public = "200: a public route" if place.demo else "A public route"
    reports = "200 with" if place.demo else "403 without"
    minting = f'{{"persona": "{persona}"}}'
    return (
        Example(f"{told} {persona} in X-Actor-* and X-Organization-*", _curl("-H", bearer, hello)),
        Example("401: no credential, so a problem document and a challenge", _curl("-i", hello)),
        Example(
            f"200: {persona}, as the gateway knows them", _curl("-H", bearer, f"{place.gateway_url}/users/current")
        ),
        Example(f"{public}; identity headers from outside are dropped", _curl_public(place)),
        Example(
            f"{reports} the permission org:reports:read, which this route asks for",
            _curl("-i", "-H", bearer, _reports(place)),
        ),
        Example("200: metrics", _curl(f"{place.admin_url}/metrics")),
        Example(
            "201: another token, which lives an hour",
            _curl("-H", "Content-Type: application/json", "-d", minting, f"{place.issuer_url}/v1/dev/tokens"),
        ),
        Example("The same with a command of the gateway", shlex.join((*place.token_command, persona))),
    )


def _curl(*words: str) -> str:
    return shlex.join(("curl", "-sS", *words))


def _curl_public(place: Place) -> str:
    return _curl("-H", "X-Actor-Id: usr_i_made_this_up", f"{place.gateway_url}/public/hello")


def _reports(place: Place) -> str:
    return f"{place.gateway_url}/reports/today"
