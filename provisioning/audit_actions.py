"""The actions of audit events, each with its meaning: a closed set, which `docs/audit.md` lists."""

ACTIONS = {
    "admin.access_denied": "Somebody known was refused where administrators alone may go. At most two a minute for "
    "one actor and route: the first as it came, the others as one with their number (`times`).",
    "api_token.changed": "An API token was given another name or other scopes; `before` tells what they were.",
    "api_token.created": "An API token was made; `sealed`: the first one, made at sign-up.",
    "api_token.expired": "An API token reached its end.",
    "api_token.revealed": "The sealed text of the first API token was shown.",
    "api_token.revoked": "An API token was ended; `cause`: `leaked` when it was found in public.",
    "api_token.rotated": "An API token was replaced by another one, `replacedBy`.",
    "api_token.secret_erased": "The sealed text of the first API token was not read in time.",
    "membership.created": "Clerk told, or a token showed, that a person joined an organization.",
    "membership.deleted": "Clerk told that a person left an organization.",
    "membership.role_changed": (
        "Clerk told, or a token showed, another role of a person in an organization; `before` is the old one."
    ),
    "organization.deleted": "Clerk told that an organization was deleted; `members`: how many it had.",
    "subscription.changed": "What Stripe tells of an organization's subscription changed.",
    "subscription.trial_started": "An organization's trial began, once for ever.",
    "user.banned": "Clerk told that a person is banned: they are refused.",
    "user.created": "A person was seen for the first time.",
    "user.deleted": "Clerk told that a person was deleted: they are refused for ever.",
    "user.disabled": "An administrator or operator disabled a person.",
    "user.enabled": "An administrator or operator let a disabled person call again.",
    "user.impersonated": "Somebody began to act as this person; no login of theirs.",
    "user.linked": "A person who was new at Clerk got the records of who had the same verified address.",
    "user.login": "A person's session was seen for the first time, once for each session of Clerk's.",
    "user.repaired": "An administrator had a person's records completed.",
    "user.role_changed": "A person's role became another; `before` is the old one.",
    "user.signed_out": "All sessions of a person were ended; `sessions` and `apiTokens`: how many.",
    "user.unbanned": "Clerk told that a person is not banned any more.",
}
