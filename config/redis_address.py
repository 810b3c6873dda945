"""Where Redis is: one server, a cluster, or whatever a sentinel names as master. Pure."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import SplitResult, unquote, urlsplit

_SCHEMES = re.compile(r"(?:(?P<tls>redis|rediss)(?:\+(?P<kind>cluster|sentinel))?|(?P<unix>unix))", re.ASCII)
_HOST = re.compile(r"(?P<host>[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
_SERVICE = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_MOST_HOSTS = 64
_MOST_DATABASES = 16_384
_FORMS = (
    "write redis://host:6379/0, rediss://… for TLS, unix:///folder/redis.sock, redis+cluster://host:6379,host:6379, or "
    "redis+sentinel://host:26379,host:26379/master-name/0"
)


class RedisKind(StrEnum):
    """What answers there."""

    SERVER = "server"
    CLUSTER = "cluster"
    SENTINEL = "sentinel"
    SOCKET = "socket"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """What a `redis.url` says.

    Attributes:
        hosts: Names or addresses, with ports; of the sentinels for `SENTINEL`, empty for `SOCKET`.
        tls: To all of them.
        user: Of Redis' ACLs; None: the default user, if there is a password.
        database: 0 for a cluster.
        service: Name of the master, for `SENTINEL`.
        path: Of the socket, for `SOCKET`.
    """

    kind: RedisKind
    hosts: tuple[tuple[str, int], ...] = ()
    tls: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    service: str = ""
    path: str = ""


def parse_redis_url(text: str) -> RedisAddress:
    """Read a `redis.url`.

    Args:
        text: `redis://`, `rediss://`, either with `+cluster` or `+sentinel`, or `unix://`; user and password of an ACL
            before `@`, percent-encoded.

    Raises:
        ValueError: It is none; the message says what to write, and never holds the URL.
    """
    scheme, separator, _ = text.partition("://")
    found = _SCHEMES.fullmatch(scheme)
    if found is None or not separator or not text.isascii():
        raise ValueError(_FORMS)
    parts = urlsplit(text)
    if parts.query or parts.fragment:
        raise ValueError(f"nothing follows the path of a redis.url, no ? and no #; {_FORMS}")
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, password = _credentials(credentials)
    if found["unix"]:
        if hosts or len(parts.path) < len("/x"):
            raise ValueError("write the socket's path after three slashes: unix:///folder/redis.sock")
        return RedisAddress(RedisKind.SOCKET, user=user, password=password, path=unquote(parts.path))
    kind = RedisKind(found["kind"] or "server")
    service, database = _path(kind, parts)
    return RedisAddress(
        kind, _hosts(kind, hosts), found["tls"] == "rediss", user, password, database, service
    )  # fmt: skip


def _credentials(text: str) -> tuple[str | None, str | None]:
    user, _, password = text.partition(":")
    return unquote(user) or None, unquote(password) or None


def _hosts(kind: RedisKind, text: str) -> tuple[tuple[str, int], ...]:
    found = [_HOST.fullmatch(one) for one in text.split(",")]
    default = 26379 if kind is RedisKind.SENTINEL else 6379
    hosts = tuple((one["host"].strip("[]"), int(one["port"] or default)) for one in found if one is not None)
    if len(hosts) != len(found) or len(hosts) > _MOST_HOSTS or not all(0 < port <= 0xFFFF for _, port in hosts):
        raise ValueError(_FORMS)
    if len(hosts) > 1 and kind is RedisKind.SERVER:
        raise ValueError("several hosts are redis+cluster://… or redis+sentinel://…/master-name; one is redis://…")
    return hosts


def _path(kind: RedisKind, parts: SplitResult) -> tuple[str, int]:
    """Give the master's name and the database."""
    words = [unquote(word) for word in parts.path.split("/")[1:] if word]
    service = ""
    if kind is RedisKind.SENTINEL:
        if not words or _SERVICE.fullmatch(words[0]) is None:
            raise ValueError("name the master that the sentinels watch: redis+sentinel://host:26379/master-name")
        service = words.pop(0)
    database = words.pop(0) if words else "0"
    if words or not (database.isascii() and database.isdigit()) or int(database) >= _MOST_DATABASES:
        raise ValueError(f"the database of Redis is a number, such as 0; {_FORMS}")
    if kind is RedisKind.CLUSTER and int(database):
        raise ValueError("a Redis cluster has the database 0 alone: leave the path away")
    return service, int(database)
