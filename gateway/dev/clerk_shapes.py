"""Objects and errors in the shapes of Clerk's Backend API (clerk/openapi-specs bapi 2026-05-12), made of personas."""

from collections.abc import Mapping
from typing import Any

from gateway.dev.personas import ORGANIZATIONS, PERSONAS, Membership, Organization, Persona, clerk_like_id

CREATED_AT_MS = 1_750_000_000_000
"""Birth of every persona and organization, Unix milliseconds: fixed, so that answers are the same after every start."""

_NO_IMAGE = {"image_url": "", "has_image": False}
_NO_IDENTITIES: Mapping[str, Any] = {
    "phone_numbers": [],
    "web3_wallets": [],
    "passkeys": [],
    "external_accounts": [],
    "saml_accounts": [],
    "enterprise_accounts": [],
}
_PASSWORD_ONLY: Mapping[str, Any] = {
    "password_enabled": True,
    "two_factor_enabled": False,
    "totp_enabled": False,
    "backup_code_enabled": False,
    "mfa_enabled_at": None,
    "mfa_disabled_at": None,
}
_IN_GOOD_STANDING: Mapping[str, Any] = {
    "banned": False,
    "locked": False,
    "deprovisioned": False,
    "lockout_expires_in_seconds": None,
    "verification_attempts_remaining": 100,
    "delete_self_enabled": True,
    "create_organization_enabled": True,
    "create_organizations_limit": None,
    "legal_accepted_at": None,
    "locale": None,
    "timezone": None,
}


def user_shape(persona: Persona) -> dict[str, Any]:
    """Write a User, as `GET /v1/users/{id}` gives it; the one address is verified."""
    address_id = clerk_like_id("idn", persona.name)
    address = {
        "id": address_id,
        "object": "email_address",
        "email_address": persona.email,
        "reserved": False,
        "verification": {"status": "verified", "strategy": "email_code", "attempts": 1, "expire_at": None},
        "linked_to": [],
        "matches_sso_connection": False,
        "created_at": CREATED_AT_MS,
        "updated_at": CREATED_AT_MS,
    }
    return {
        "id": persona.id,
        "object": "user",
        "username": persona.name,
        "first_name": persona.first_name,
        "last_name": persona.last_name,
        **_NO_IMAGE,
        "primary_email_address_id": address_id,
        "primary_phone_number_id": None,
        "primary_web3_wallet_id": None,
        "email_addresses": [address],
        **_NO_IDENTITIES,
        "public_metadata": {},
        "private_metadata": {},
        "unsafe_metadata": {},
        "external_id": None,
        **_PASSWORD_ONLY,
        "last_sign_in_at": CREATED_AT_MS,
        "last_active_at": CREATED_AT_MS,
        **_IN_GOOD_STANDING,
        "created_at": CREATED_AT_MS,
        "updated_at": CREATED_AT_MS,
    }


def organization_shape(organization: Organization, *, with_members_count: bool = False) -> dict[str, Any]:
    """Write an Organization; `members_count` only when asked for."""
    shape: dict[str, Any] = {
        "object": "organization",
        "id": organization.id,
        "name": organization.name,
        "slug": organization.slug,
        **_NO_IMAGE,
        "max_allowed_memberships": 100,
        "admin_delete_enabled": True,
        "public_metadata": {},
        "private_metadata": {},
        "created_by": None,
        "created_at": CREATED_AT_MS,
        "updated_at": CREATED_AT_MS,
    }
    if with_members_count:
        shape["members_count"] = sum(
            membership.organization == organization for persona in PERSONAS for membership in persona.memberships
        )
    return shape


def membership_shape(persona: Persona, membership: Membership) -> dict[str, Any]:
    """Write an OrganizationMembership; here, other than in a token, the role carries `org:`."""
    return {
        "object": "organization_membership",
        "id": clerk_like_id("orgmem", f"{persona.name}/{membership.organization.slug}"),
        "role": f"org:{membership.role}",
        "role_name": membership.role.capitalize(),
        "permissions": list(membership.permissions),
        "public_metadata": {},
        "private_metadata": {},
        "organization": organization_shape(membership.organization),
        "public_user_data": {
            "user_id": persona.id,
            "identifier": persona.email,
            "first_name": persona.first_name,
            "last_name": persona.last_name,
            **_NO_IMAGE,
        },
        "created_at": CREATED_AT_MS,
        "updated_at": CREATED_AT_MS,
    }


def error_shape(code: str, message: str, long_message: str, trace_id: str) -> dict[str, Any]:
    """Write an error body: Clerk gives a list, though one entry is usual."""
    return {
        "errors": [{"message": message, "long_message": long_message, "code": code}],
        "clerk_trace_id": trace_id,
    }


def find_user(user_id: str) -> Persona | None:
    """Find who has that `user_…`."""
    return next((persona for persona in PERSONAS if persona.id == user_id), None)


def find_organization(id_or_slug: str) -> Organization | None:
    """Find the organization of that `org_…` or slug: Clerk takes both."""
    return next((found for found in ORGANIZATIONS if id_or_slug in (found.id, found.slug)), None)
