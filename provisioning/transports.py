"""What uvloop says of connections that have died, where libraries expect other words."""


def is_dead(error: BaseException) -> bool:
    """Whether this is uvloop's refusal to write to a transport that was closed a moment ago.

    It is a bare RuntimeError, raised until the protocol has been told of the end; asyncio says nothing there, and so
    neither redis-py nor asyncpg takes it for a lost connection.
    """
    return isinstance(error, RuntimeError) and "the handler is closed" in str(error)
