"""A principal: who a verified credential speaks for."""

from dataclasses import dataclass, field
from math import inf

from gateway.credentials.kinds import Carrier, CredentialKind


@dataclass(frozen=True, slots=True)
class ClerkOrganization:
    """The active organization of a session token.

    Attributes:
        id: `org_…` of Clerk.
        slug: As in the token; None when absent.
        role: Without the `org:` prefix (`admin`, `member`, …).
        permissions: Full names, `org:feature:permission`, in the token's order.
    """

    id: str
    slug: str | None
    role: str
    permissions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Impersonator:
    """Who acts as the subject (Clerk's `act` claim)."""

    subject: str
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """What a minted token says of its use.

    Attributes:
        token: Its own id (`jti`).
        user_id: `usr_…` it was minted for.
        organization_id: `org_…` of ours it was minted in.
        path: The only path it opens; None: any route that takes it.
        origin: The only `Origin` that may bring it; None: any, and none.
    """

    token: str
    user_id: str
    organization_id: str
    path: str | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """What a verified credential proves; facts of the credential alone, nothing from our records.

    Attributes:
        kind: Kind of the credential.
        carrier: Where it was carried.
        issuer: Exact `iss`; empty for an API token, which our own records vouch for, and for what Clerk vouched for.
        subject: Clerk's user id, `user_…`; of a machine token also `mch_…`, or `org_…` for an organization's API key.
        session_id: Clerk's `sid`; None for tokens without one.
        organization: Active Clerk organization, None when the person works alone.
        impersonator: Set while someone acts as the subject.
        pending: `sts` is `pending`: a session with an unfinished task.
        features: Raw `fea` claim, as `policy/` reads it: entries like `o:reports`, `u:beta`, `uo:x`.
        plans: Raw `pla` claim: entries like `u:free`, `o:pro`.
        factor_ages: `fva`, minutes since first and second factor, -1 when never; None when absent or malformed.
        scopes: None means not limited by scopes (a session); else what the token carries.
        name: From the configured profile claims; None when they do not say.
        email: From the configured profile claims, never counted as verified.
        expires_at: `exp`, Unix seconds; the credential is dead at this instant plus leeway; infinite: it does not end.
        token_id: Of the API token it is or was minted from, `atk_…`, or Clerk's id of a machine token; None: a session
            is behind it.
        binding: What a minted token is held against beside its signature; None for other kinds.
        issued_at: `iat` of a session token, Unix seconds, also of the one that something was minted for;
            None when absent, and for other kinds.
        recheck_at: Monotonic seconds: then whoever vouches for it must be asked again, or signing keys that are
            younger. Infinite: it proves itself.
    """

    kind: CredentialKind
    carrier: Carrier
    issuer: str
    subject: str
    expires_at: float
    session_id: str | None = None
    organization: ClerkOrganization | None = None
    impersonator: Impersonator | None = None
    pending: bool = False
    features: tuple[str, ...] = ()
    plans: tuple[str, ...] = ()
    factor_ages: tuple[int, int] | None = None
    scopes: tuple[str, ...] | None = None
    name: str | None = None
    email: str | None = field(default=None, repr=False)
    token_id: str | None = None
    binding: Binding | None = None
    issued_at: float | None = None
    recheck_at: float = inf
