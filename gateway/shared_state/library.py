"""aiocache on a client of ours. Read off the loop, and only where there is a Redis.

Its own deadline is switched off: the client has one, and aiocache's costs a task for each question. Its `clear` is
never called: it asks Redis for all its keys, or empties the database.
"""

from typing import Any

from aiocache import Cache
from aiocache.serializers import BaseSerializer

NAMESPACE = "gw"  # aiocache puts a colon behind it


class _Bytes(BaseSerializer):  # type: ignore[misc]
    """Leaves values as they are: what is kept was written and sealed before."""

    DEFAULT_ENCODING = None

    def dumps(self, value: bytes) -> bytes:
        return value

    def loads(self, value: bytes | None) -> bytes | None:
        return value


def cache_on(client: Any) -> Any:
    """Make a cache that asks through a client, which its owner closes."""
    cache = Cache(Cache.REDIS, namespace=NAMESPACE, serializer=_Bytes(), timeout=None)
    cache.client = client
    return cache
