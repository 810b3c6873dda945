"""What is refused because it was ended before its time."""

from gateway.errors import CredentialRejected


class SessionRevoked(CredentialRejected):
    """The session behind this credential is over, though the credential itself would live on."""

    code = "session_revoked"
