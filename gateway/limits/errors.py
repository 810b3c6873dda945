"""What limits refuse, and that they cannot tell."""

from gateway.errors import GatewayError, VerifierUnavailable


class RateLimited(GatewayError):
    """More requests, or more bad credentials, than a limit lets through.

    Attributes:
        retry_after_s: Whole seconds until the next may pass, at least 1.
    """

    code = "rate_limited"

    def __init__(self, reason: str | None = None, retry_after_s: int = 1) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class WebsocketsExceeded(RateLimited):
    """The caller has as many websockets as `websocket.max_per_principal` allows, in this process."""

    code = "websocket_limit_reached"


class RateLimiterUnavailable(VerifierUnavailable):
    """Redis cannot be asked, and the limit says that then nobody passes."""

    code = "rate_limiter_unavailable"
