"""The people and organizations of `gateway dev`: frozen, with the same ids on every machine and after every start.

Ids look like Clerk's: a prefix and 27 base62 characters. `tokens.py` says what a session token tells of them,
`backend_api.py` what the Backend API tells.
"""

import hashlib
import string
from dataclasses import dataclass

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


def clerk_like_id(prefix: str, seed: str) -> str:
    """Make an id in Clerk's form, `prefix_` and 27 base62 characters, the same for the same seed."""
    number = int.from_bytes(hashlib.sha256(f"{prefix}:{seed}".encode()).digest(), "big")
    characters = []
    for _ in range(27):
        number, digit = divmod(number, 62)
        characters.append(_BASE62[digit])
    return f"{prefix}_{''.join(characters)}"


@dataclass(frozen=True, slots=True)
class Organization:
    """A Clerk organization.

    Attributes:
        slug: Unique; the id is made of it.
        features: What the organization's plan includes, in the order of the `fea` claim.
        plan: Slug of the plan, for the `pla` claim.
    """

    slug: str
    name: str
    features: tuple[str, ...]
    plan: str

    @property
    def id(self) -> str:
        """Clerk's `org_…`."""
        return clerk_like_id("org", self.slug)


@dataclass(frozen=True, slots=True)
class Membership:
    """A persona in an organization.

    Attributes:
        role: Without `org:` (`admin`, `member`).
        permissions: Full names, `org:feature:permission`.
    """

    organization: Organization
    role: str
    permissions: tuple[str, ...] = ()

    @property
    def permission_names(self) -> tuple[str, ...]:
        """The last parts of the permissions, each once, in order: the `o.per` claim."""
        return tuple(dict.fromkeys(permission.split(":")[2] for permission in self.permissions))


@dataclass(frozen=True, slots=True)
class Persona:
    """A person one can sign in as.

    Attributes:
        name: What one types and reads: lower-case, unique; the ids are made of it.
        memberships: The first is the active organization unless another is chosen; empty: works alone.
        user_features: Features of the person's own plan.
        pending: The session still has a task to do (`sts: pending`).
        impersonated_by: Name of the support person who acts as this one (`act`); None for most.
        about: One sentence for the sign-in page.
    """

    name: str
    first_name: str
    last_name: str
    about: str
    memberships: tuple[Membership, ...] = ()
    user_features: tuple[str, ...] = ()
    pending: bool = False
    impersonated_by: str | None = None

    @property
    def id(self) -> str:
        """Clerk's `user_…`."""
        return clerk_like_id("user", self.name)

    @property
    def session_id(self) -> str:
        """Clerk's `sess_…`: one session a persona, kept when the organization is switched, as at Clerk."""
        return clerk_like_id("sess", self.name)

    @property
    def email(self) -> str:
        """Address under a domain that exists nowhere (RFC 2606 §3)."""
        return f"{self.name}@acme.example"

    @property
    def full_name(self) -> str:
        """First and last name."""
        return f"{self.first_name} {self.last_name}"


class PersonaUnknown(LookupError):
    """No persona, or no organization of theirs, has that name."""


_ACME = Organization("acme", "Acme", features=("reports", "billing"), plan="pro")
_GLOBEX = Organization("globex", "Globex", features=("reports",), plan="free_org")
_ACME_ADMIN = ("org:reports:read", "org:reports:write", "org:billing:read", "org:billing:write")
_READER = ("org:reports:read",)

PERSONAS = (
    Persona(
        "alice",
        "Alice",
        "Adams",
        "Admin of Acme: may read and write its reports and billing.",
        (Membership(_ACME, "admin", _ACME_ADMIN),),
        user_features=("beta",),
    ),
    Persona("bob", "Bob", "Brown", "Member of Acme, without any permission.", (Membership(_ACME, "member"),)),
    Persona("carol", "Carol", "Clark", "In no organization: works in a personal one."),
    Persona(
        "dave",
        "Dave",
        "Davis",
        "In two organizations: member of Acme, admin of Globex.",
        (Membership(_ACME, "member", _READER), Membership(_GLOBEX, "admin", ("org:reports:read", "org:reports:write"))),
    ),
    Persona(
        "erin",
        "Erin",
        "Evans",
        "Member of Acme; someone of support is signed in as her.",
        (Membership(_ACME, "member", _READER),),
        impersonated_by="support",
    ),
    Persona(
        "mallory",
        "Mallory",
        "Moore",
        "Signed in, but with a task left to do: the session is pending and refused.",
        pending=True,
    ),
    Persona("support", "Sam", "Stone", "The person of support who acts as Erin."),
)
ORGANIZATIONS = (_ACME, _GLOBEX)


def find_persona(name: str) -> Persona:
    """Find a persona by name.

    Raises:
        PersonaUnknown: With a sentence that lists the names there are.
    """
    for persona in PERSONAS:
        if persona.name == name:
            return persona
    known = ", ".join(persona.name for persona in PERSONAS)
    raise PersonaUnknown(f"there is no such persona; choose one of {known}")


def find_membership(persona: Persona, organization: str | None) -> Membership | None:
    """Find the membership that is active in a session.

    Args:
        persona: Whose.
        organization: Slug or id; None takes the first, the empty string none (working alone).

    Raises:
        PersonaUnknown: The persona is not in that organization.
    """
    if organization is None:
        return next(iter(persona.memberships), None)
    if not organization:
        return None
    for membership in persona.memberships:
        if organization in (membership.organization.slug, membership.organization.id):
            return membership
    raise PersonaUnknown(f"{persona.name} is not in such an organization")
