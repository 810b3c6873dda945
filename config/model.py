"""The settings of `gateway.yaml`, frozen. Every key has the environment variable `GW_A__B`; `load.py` reads them.

Names, defaults and meaning are those of `docs/settings.md`. Checks that need more than one key live in `checks.py`.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from config.grammar import (
    HostName,
    HostValue,
    LimitName,
    MachineId,
    Method,
    Names,
    Origin,
    PathPrefix,
    PublicUrl,
    RoutePath,
    Scope,
    UpstreamName,
    UpstreamUrl,
    WebUrl,
    WebUrls,
)
from config.rates import AnyRate
from config.values import Address, AnyNetwork, Digest, Duration, Life, ListenAddress, Size, Tolerance

CredentialWord = Literal[
    "session",
    "api_token",
    "websocket_token",
    "agent_token",
    "system_token",
    "clerk_api_key",
    "clerk_oauth",
    "clerk_m2m",
]
RoleWord = Literal["USER", "ADMIN", "SYSTEM"]
Level = Literal["lax", "moderate", "strict", "strict_mfa"]


class Section(BaseModel):
    """Base of every part: frozen, unknown keys refused, secrets never echoed."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)


class Admin(Section):
    """The port operators see: metrics and health, never public."""

    listen: ListenAddress = Address("127.0.0.1", 9464)


class Tls(Section):
    """TLS of the listener."""

    certificate: Path
    key: Path


class Limits(Section):
    """What one client connection may send before it is refused."""

    head_bytes: Size = 32 * 1024
    head_fields: int = Field(default=128, ge=8, le=1000)
    head_timeout: Duration = 10.0
    keepalive: Duration = 75.0


class MissingAzp(Section):
    """What a token without `azp` means, per carrier, once `authorized_parties` is set."""

    header: Literal["refuse", "allow"] = "refuse"
    cookie: Literal["refuse", "allow"] = "allow"


class ProfileClaims(Section):
    """Claims of a session token, first present wins, that tell a person's name and e-mail address."""

    name: tuple[str, ...] = ("name",)
    email: tuple[str, ...] = ("email",)


class Jwks(Section):
    """How long signing keys are believed."""

    ttl: Duration = 300.0
    cooldown: Duration = 10.0
    stale_ceiling: Duration = 3600.0


class Clerk(Section):
    """One Clerk instance. `publishable_key` gives issuer, JWKS address and cookie suffix; each can be set apart.

    `load.py` fills `issuer`, `jwks_url` and `sign_in_url` from the key, so a loaded model always has the first two.
    """

    publishable_key: str | None = None
    issuer: WebUrls = ()
    jwks_url: WebUrl | None = None
    instance_id: str | None = None
    api_url: WebUrl = "https://api.clerk.com/v1"
    secret_key: SecretStr | None = None
    machine_secret_key: SecretStr | None = None
    machine_id: MachineId | None = None
    oauth_clients: tuple[str, ...] = ()
    authorized_parties: tuple[str, ...] = ()
    missing_azp: MissingAzp = MissingAzp()
    leeway: Tolerance = 5.0
    longest_session_token: Duration = 86400.0
    profile_claims: ProfileClaims = ProfileClaims()
    sign_in_url: WebUrl | None = None
    allow_insecure_http: bool = False
    jwks: Jwks = Jwks()
    webhook_secrets: tuple[SecretStr, ...] = ()


class Database(Section):
    """PostgreSQL. Without `url`, an embedded one under `data_dir`, which `serve` takes only with `embedded: true`."""

    url: SecretStr | None = None
    direct_url: SecretStr | None = None
    embedded: bool = False
    auto_migrate: bool = True
    pool_size: int = Field(default=10, ge=1, le=1000)
    acquire_timeout: Duration = 5.0


class Redis(Section):
    """Shared cache and invalidation between replicas."""

    url: SecretStr | None = None
    ca_file: Path | None = None


class Upstream(Section):
    """One backend. Exactly one of `url` and `addresses`; `ca_file` and `server_name` are for https."""

    url: UpstreamUrl | None = None
    addresses: tuple[UpstreamUrl, ...] = ()
    ca_file: Path | None = None
    server_name: HostName | None = None
    connect_timeout: Duration = 2.0
    response_timeout: Duration = 30.0
    idle_timeout: Duration = 300.0
    max_connections: int = Field(default=512, ge=1)
    queue_timeout: Duration = 5.0
    assertion: bool = True


class Route(Section):
    """One row of the route table; `policy/` compiles it. The first row whose path, method and host match decides."""

    path: RoutePath
    methods: tuple[Method, ...] = ()
    hosts: tuple[HostValue, ...] = ()
    auth: Literal["none", "optional", "required"]
    accept: tuple[CredentialWord, ...] = ("session", "api_token")
    scopes: tuple[Scope, ...] = ()
    roles: tuple[RoleWord, ...] = ()
    organization_roles: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    plans: tuple[str, ...] = ()
    reverification: Level | None = None
    upstream: str
    strip_prefix: PathPrefix | None = None
    forward_credentials: bool = False
    allow_pending: bool = False
    cross_site: Literal["deny", "allow"] = "deny"
    cors: Literal["gateway", "upstream"] = "gateway"
    protocol: Literal["http", "socketio"] = "http"
    allow_encoded: tuple[Literal["slash", "percent"], ...] = ()
    rate_limit: Names = ()
    track: str | None = Field(default=None, pattern=r"^[!#%-~](?:[ -~]{0,198}[!-~])?$")
    shadow: bool = False


class Cors(Section):
    """Origins that may read our answers from a browser; absent: `clerk.authorized_parties`."""

    origins: tuple[Origin, ...] | None = None


class Api(Section):
    """Own endpoints. `prefix` goes before all but `/users/current` and `/.well-known/jwks.json`."""

    prefix: PathPrefix = ""
    admin: bool = True
    organizations: bool = True
    console: bool = True


class Secrets(Section):
    """`master_key`: 32 characters or more; seals signing keys and one-time secrets."""

    master_key: SecretStr | None = None


class Keys(Section):
    """The key ring: what signs minted tokens and assertions."""

    rotate_every: Duration = 30 * 86400.0
    publish_ahead: Duration = 3600.0
    refresh_every: Duration = 60.0


class Tokens(Section):
    """Tokens the gateway makes. A life of None never ends."""

    default_life: Life = 180 * 86400.0
    max_life: Life = 365 * 86400.0
    per_user: int = Field(default=20, ge=1)
    websocket_life: Duration = 600.0
    agent_life: Duration = 3600.0
    scopes: tuple[Scope, ...] = ()
    leak_keys_url: WebUrl | None = None


class Provisioning(Section):
    """What happens when a person is seen for the first time."""

    personal_organizations: bool = True
    first_api_token: bool = True
    trial_days: int = Field(default=14, ge=0, le=730)
    trial_plan: str = Field(default="pro", min_length=1, max_length=100)
    link_verified_email: bool = False


class Cache(Section):
    """The near cache."""

    near_entries: int = Field(default=100_000, ge=1)
    near_ttl: Duration = 30.0
    degraded_ttl: Duration = 5.0
    stale_if_error: Duration = 600.0


class Websocket(Section):
    """Limits of a tunnel; None: none."""

    max_age: Duration | None = None
    idle_timeout: Duration | None = None
    max_per_principal: int | None = Field(default=None, ge=1)
    single_use: bool = False


class DeclaredFlag(Section):
    """One flag the gateway tells of."""

    type: Literal["boolean", "string", "integer", "number", "json"]
    default: Any
    expose: tuple[Literal["headers", "client"], ...] = ("headers",)
    when_role: RoleWord | None = None


class Flags(Section):
    """Feature flags."""

    provider: Literal["file", "posthog", "openfeature"] = "file"
    file: Path | None = None
    openfeature: str | None = Field(default=None, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    declare: dict[str, DeclaredFlag] = {}


class Outbox(Section):
    """What has to happen elsewhere: written with its cause, delivered by every process, or by `gateway worker`."""

    deliver: bool = True
    give_up_after: Duration = 3 * 86400.0
    keep_delivered: Duration = 7 * 86400.0


class Slack(Section):
    """Sign-up messages."""

    webhook_url: SecretStr


class Posthog(Section):
    """Product analytics and flags."""

    host: WebUrl = "https://us.i.posthog.com"
    project_key: SecretStr
    secret_key: SecretStr | None = None


class Stripe(Section):
    """Subscriptions."""

    secret_key: SecretStr
    price_id: str
    api_url: WebUrl = "https://api.stripe.com"
    webhook_secrets: tuple[SecretStr, ...] = ()


class Decisions(Section):
    """Forward-auth endpoints."""

    callers: tuple[AnyNetwork, ...]
    listen: ListenAddress | None = None
    audience: str = "decisions"


class Debug(Section):
    """The debug endpoint."""

    enabled: bool = False


class Bootstrap(Section):
    """The first administrators."""

    admin_emails: tuple[str, ...] = ()


class SystemToken(Section):
    """A caller that is no user, known by the SHA-256 of its token (hex, current and previous)."""

    name: str = Field(min_length=1, max_length=100)
    sha256: tuple[Digest, ...] = Field(min_length=1, max_length=2)
    networks: tuple[AnyNetwork, ...]


class RateLimit(Section):
    """One limit. Routes name those of requests; those of bad credentials hold everywhere, and have no `by`."""

    limit: AnyRate
    counts: Literal["requests", "failed_credentials"] = "requests"
    by: Literal["token", "user", "organization", "address"] = "user"
    when_unavailable: Literal["open", "closed", "local"] = "open"


class Settings(Section):
    """Everything one gateway process knows of its surroundings."""

    listen: ListenAddress = Address("127.0.0.1", 8080)
    admin: Admin = Admin()
    tls: Tls | None = None
    workers: int = Field(default=1, ge=1)
    public_url: PublicUrl | None = None
    hosts: tuple[HostValue, ...] = ()
    trusted_proxies: tuple[AnyNetwork, ...] = ()
    fast_lane: bool = True
    drain_grace: Duration = 20.0
    data_dir: Path | None = None
    limits: Limits = Limits()
    clerk: Clerk
    database: Database = Database()
    redis: Redis = Redis()
    upstreams: dict[UpstreamName, Upstream] = Field(min_length=1)
    routes: tuple[Route, ...] = Field(min_length=1)
    cors: Cors = Cors()
    api: Api = Api()
    secrets: Secrets = Secrets()
    keys: Keys = Keys()
    tokens: Tokens = Tokens()
    provisioning: Provisioning = Provisioning()
    cache: Cache = Cache()
    websocket: Websocket = Websocket()
    rate_limits: dict[LimitName, RateLimit] = {}
    bootstrap: Bootstrap = Bootstrap()
    system_tokens: tuple[SystemToken, ...] = ()
    flags: Flags | None = None
    outbox: Outbox = Outbox()
    slack: Slack | None = None
    posthog: Posthog | None = None
    stripe: Stripe | None = None
    decisions: Decisions | None = None
    debug: Debug = Debug()
