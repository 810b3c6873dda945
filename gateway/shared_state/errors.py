"""What can fail in what is shared."""


class RedisUnavailable(Exception):
    """Redis cannot be asked now; the reason is a word of `REASONS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


REASONS = ("unreachable", "timeout", "refused", "command_refused", "breaker_open")
"""Why: nobody is there; no answer in time; it answers, and does not serve, or not this; it was away a moment ago."""
