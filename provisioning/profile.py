"""A person's name and e-mail as others tell them, made fit for our records. Pure."""

import re
from dataclasses import dataclass, field

from provisioning.records import Subject

NAME_LENGTH = 200
EMAIL_LENGTH = 320
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\s]+")


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of a person; None: not said.

    Attributes:
        name: One line, at most 200 characters.
        email: At most 320 characters, with an `@`.
        verified_email: The primary address as Clerk verified it; what a claim says never counts as that.
    """

    name: str | None = None
    email: str | None = field(default=None, repr=False)
    verified_email: str | None = field(default=None, repr=False)


def folded_line(text: str) -> str:
    """Fold white space, controls and what PostgreSQL cannot store (U+0000, lone surrogates) to single spaces."""
    return _UNFIT.sub(" ", text).strip()


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can be asked for this at all: no U+0000, no lone surrogate."""
    return _UNSTORABLE.search(text) is None


def clean_name(text: str | None) -> str | None:
    """Fold to one line and cut to length; None when nothing is left."""
    cleaned = folded_line(text or "")[:NAME_LENGTH].strip()
    return cleaned or None


def clean_email(text: str | None) -> str | None:
    """Keep what can be an address; anything else counts as not said. An address is not repaired."""
    trimmed = (text or "").strip()
    if "@" not in trimmed or len(trimmed) > EMAIL_LENGTH or _UNFIT.search(trimmed):
        return None
    return trimmed


def claimed(subject: Subject) -> Profile:
    """Take the profile from the token's claims alone."""
    return Profile(clean_name(subject.name), clean_email(subject.email))


def filled(first: Profile, second: Profile | None) -> Profile:
    """Fill what `first`, the token's claims, does not say from `second`, which is Clerk's own word."""
    if second is None:
        return first
    return Profile(first.name or second.name, first.email or second.email, second.verified_email)


def personal_organization_name(profile: Profile) -> str:
    """Name a personal organization after its person, else after the local part of their e-mail."""
    local_part = (profile.email or "").partition("@")[0]
    return profile.name or local_part or "Personal"
