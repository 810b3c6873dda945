"""Settings of the gateway that `gateway dev` runs: built in code, checked by the same model as `gateway.yaml`."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from config.model import Settings
from gateway.dev.folder import DevFailed
from gateway.dev.place import Place

UPSTREAM = "app"

ROUTES: tuple[dict[str, Any], ...] = (
    {"path": "/public/**", "auth": "none", "upstream": UPSTREAM},
    {"path": "/optional/**", "auth": "optional", "upstream": UPSTREAM},
    {"path": "/admin/**", "auth": "required", "roles": ["ADMIN"], "upstream": UPSTREAM},
    {"path": "/reports/**", "auth": "required", "permissions": ["org:reports:read"], "upstream": UPSTREAM},
    {"path": "/**", "auth": "required", "upstream": UPSTREAM},
)
"""One route of every sort, so that each kind of decision can be seen."""


def check_upstream(url: str) -> str:
    """Take the `--upstream` option: `http://host:port`, a slash at the end forgiven.

    Raises:
        DevFailed: Anything else.
    """
    try:
        parts = urlsplit(url)
        well = parts.scheme == "http" and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        well = False
    if not well or parts.username is not None or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise DevFailed("write --upstream as http://host:port, such as http://127.0.0.1:3000")
    return f"http://{parts.netloc}"


def dev_settings(
    place: Place, *, data_dir: Path, database_url: str, master_key: str, secret_key: str, instance_id: str
) -> Settings:
    """Build the settings.

    Args:
        place: Where everything is.
        data_dir: Of this run.
        database_url: DSN of the embedded PostgreSQL.
        master_key: 32 characters or more.
        secret_key: What the local Backend API asks for.
        instance_id: Of the local issuer, which is the `kid` of its key.

    Raises:
        DevFailed: The model refuses them: an upstream no gateway could have.
    """
    clerk = {
        "publishable_key": place.publishable_key,
        "issuer": (place.issuer_url,),
        "jwks_url": f"{place.issuer_url}/.well-known/jwks.json",
        "instance_id": instance_id,
        "api_url": f"{place.issuer_url}/v1",
        "secret_key": secret_key,
        "authorized_parties": place.ports.gateway_origins,
        "sign_in_url": place.sign_in_url,
        "allow_insecure_http": True,
    }
    keys = {
        "listen": urlsplit(place.gateway_url).netloc,
        "admin": {"listen": urlsplit(place.admin_url).netloc},
        "public_url": place.gateway_url,
        # Ctrl-C must end everything within two seconds, open streams and all.
        "drain_grace": "500ms",
        "data_dir": data_dir,
        "clerk": clerk,
        "database": {"url": database_url, "embedded": True},
        "upstreams": {UPSTREAM: {"url": place.upstream_url}},
        "routes": ROUTES,
        "secrets": {"master_key": master_key},
        "bootstrap": {"admin_emails": ["alice@acme.example"]},
    }
    try:
        return Settings.model_validate(keys)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise DevFailed(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
