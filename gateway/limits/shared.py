"""Counting in Redis, for all processes: one round trip, and Redis does it step by step for everybody in turn.

Importing this reads redis-py, which is large: do it in a thread, and only where `redis.url` is set.

The log is that of `memory.py`. Redis' own clock counts, so that gateways need not agree on theirs. When it is set
back, what was counted is moved along, as if it had just been counted: nothing more passes for it, and nobody is locked
out for longer than a window. When it is set forward, what was counted is over early; nobody could tell.
"""

from hashlib import sha1
from math import ceil
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

from gateway.limits.rules import Rule, Verdict

if TYPE_CHECKING:
    from gateway.shared_state.client import SharedRedis

_PREFIX = b"gw:limit:"
# KEYS[1]; ARGV: limit, window and segment in microseconds. Gives: allowed, remaining, microseconds to wait.
# What somebody else wrote there counts as nothing: it must not become an error that seems to be an outage.
_SCRIPT = """
local limit, window, segment = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local log = {}
local raw = redis.pcall('GET', KEYS[1])
if type(raw) == 'string' then
  local read, value = pcall(cmsgpack.unpack, raw)
  if read and type(value) == 'table' and #value % 2 == 0 then log = value end
  for i = 1, #log do
    if type(log[i]) ~= 'number' then log = {} break end
  end
end
local back = #log > 0 and log[#log - 1] - now or 0
if back < 0 then back = 0 end
local kept, used = {}, 0
for i = 1, #log, 2 do
  if log[i] - back > now - window then
    kept[#kept + 1] = log[i] - back
    kept[#kept + 1] = log[i + 1]
    used = used + log[i + 1]
  end
end
local allowed = used < limit
if allowed then
  local last = kept[#kept - 1]
  if segment > 0 and last and math.floor(last / segment) == math.floor(now / segment) then
    kept[#kept - 1] = now
    kept[#kept] = kept[#kept] + 1
  else
    kept[#kept + 1] = now
    kept[#kept + 1] = 1
  end
  used = used + 1
end
if allowed or back > 0 then
  redis.call('SET', KEYS[1], cmsgpack.pack(kept), 'PX', math.ceil(window / 1000) + 1)
end
return {allowed and 1 or 0, limit - used, kept[1] + window - now}
"""
_SCRIPT_NAME = sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()


class RedisCounter:
    """Counts by keys, which expire when nothing of them counts any more."""

    def __init__(self, shared: "SharedRedis") -> None:
        """Prepare.

        Args:
            shared: The way to Redis, closed by its owner.
        """
        self._shared = shared

    async def take(self, key: bytes, rule: Rule) -> Verdict:
        """Count one more, if it may pass.

        Raises:
            RedisUnavailable: Nobody can tell. A question whose answer was lost may have been counted.
        """
        arguments = (rule.limit, ceil(rule.window_s * 1e6), ceil(rule.segment_s * 1e6))

        async def ask(client: Any) -> Any:
            try:
                return await client.evalsha(_SCRIPT_NAME, 1, _PREFIX + key, *arguments)
            except NoScriptError:  # Redis was started anew, or this is the first time
                return await client.eval(_SCRIPT, 1, _PREFIX + key, *arguments)

        allowed, remaining, wait_us = await self._shared.run(ask)
        return Verdict(bool(allowed), max(0, int(remaining)), max(0, int(wait_us)) / 1e6)
