"""What can fail while a request for the gateway itself is read."""

from gateway.errors import GatewayError


class BodyTimedOut(GatewayError):
    """The body did not arrive in time (`own_body.py`)."""

    code = "body_timeout"
