"""How messages go through Redis: a channel, a counter that orders them, and a log of the last ones.

One script does all three, so whoever missed a message finds it in the log, and whoever finds a gap knows that more is
missing. In a cluster counter and log lie in one slot.
"""

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from gateway.shared_state.client import SharedRedis

LOGGED = 5000
"""Messages the log keeps, about; and it is gone an hour after the last."""
_TELL = """
redis.call('HSETNX', KEYS[1], 'epoch', ARGV[3])
local epoch = redis.call('HGET', KEYS[1], 'epoch')
local version
if ARGV[4] == '1' then
  version = redis.call('HINCRBY', KEYS[1], 'version', 1)
  local logged = redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], version .. '-0', 'm', ARGV[2])
  if type(logged) == 'table' and logged.err then
    redis.call('DEL', KEYS[2])
    redis.call('XADD', KEYS[2], version .. '-0', 'm', ARGV[2])
  end
  redis.call('EXPIRE', KEYS[2], 3600)
else
  version = redis.call('HGET', KEYS[1], 'version') or '0'
end
redis.call('PUBLISH', ARGV[1], epoch .. ' ' .. version .. ' ' .. ARGV[2])
return version
"""
"""Its first command writes, if only once: where Redis takes no change, being full or a replica, it shall not pass on
signs of life either, by which everybody would think that every change is heard."""
_MISSED = """
local epoch = redis.call('HGET', KEYS[1], 'epoch')
local version = redis.call('HGET', KEYS[1], 'version') or '0'
return {epoch or '', version, redis.call('XRANGE', KEYS[2], ARGV[1] .. '-0', '+')}
"""


@dataclass(frozen=True, slots=True)
class Heard:
    """What came over the channel.

    Attributes:
        epoch: Of the counter; another one after Redis forgot it.
        version: The counter, with this message.
    """

    epoch: bytes
    version: int
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Missed:
    """What the log holds.

    Attributes:
        epoch: Empty: nothing was ever told.
        version: The counter now.
        messages: Sealed, by version, from the one that was asked for, which may be too old to be there.
    """

    epoch: bytes
    version: int
    messages: tuple[tuple[int, bytes], ...]


class Channel:
    """The channel of those who share a master key. What asks Redis raises `RedisUnavailable`."""

    def __init__(self, shared: "SharedRedis", place: str) -> None:
        """Settle where.

        Args:
            shared: The way to Redis.
            place: `Envelope.place`.
        """
        self._shared = shared
        self._keys = f"gw:{{{place}}}:version", f"gw:{{{place}}}:log"
        self._epoch = secrets.token_hex(8)  # if there is none yet
        self.name = f"gw:{place}:revocations"

    async def tell(self, sealed: bytes, *, logged: bool) -> int:
        """Tell everybody; gives the counter, which goes up with what is logged."""
        arguments = (self.name, sealed, self._epoch, "1" if logged else "0", LOGGED)
        version = await self._shared.run(lambda client: client.eval(_TELL, len(self._keys), *self._keys, *arguments))
        return int(version)

    async def missed(self, since: int) -> Missed:
        """Read what was told from a version on, that one included."""
        answer = await self._shared.run(lambda client: client.eval(_MISSED, len(self._keys), *self._keys, since))
        epoch, version, entries = cast("tuple[bytes, bytes, list[Any]]", answer)
        messages = tuple((int(name.partition(b"-")[0]), fields[1]) for name, fields in entries)
        return Missed(epoch, int(version), messages)

    def subscription(self) -> Any:
        """Make a subscription of redis-py's, to be subscribed to `name` and closed by whoever asked for it."""
        return self._shared.subscriber()


def heard_of(data: bytes) -> Heard | None:
    """Read what came over the channel; None: not written by `tell`."""
    epoch, _, rest = data.partition(b" ")
    version, _, sealed = rest.partition(b" ")
    if not version.isdigit() or len(version) > len(str(2**63)):
        return None
    return Heard(epoch, int(version), sealed)
