"""What is asked of every system: requests, how many connections bring them, and wrk's script for it. Pure."""

import json
from dataclasses import dataclass
from pathlib import Path

SMALL_ANSWER, LARGE_ANSWER = 800, 1_000_000
HOST = "app.example.test"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load.

    Attributes:
        name: The word on the command line.
        title: What it is, for the report.
        connections: Kept open by wrk, one request at a time on each.
        body: Bytes of each request's body.
        answer: Bytes of each answer's body.
        unique: No two requests have equal heads: `traceparent` and another field change with every one.
    """

    name: str
    title: str
    connections: int
    path: str = "/api/things?page=1"
    body: int = 0
    answer: int = SMALL_ANSWER
    unique: bool = False

    @property
    def method(self) -> str:
        return "POST" if self.body else "GET"


GET_64 = Scenario("get-64", "GET, 800 B answer, 64 connections", 64)
SCENARIOS = (
    Scenario("get-1", "GET, 800 B answer, 1 connection", 1),
    Scenario("get-8", "GET, 800 B answer, 8 connections", 8),
    GET_64,
    Scenario("get-512", "GET, 800 B answer, 512 connections", 512),
    Scenario("unique-64", "GET, 800 B answer, 64 connections, no two heads equal", 64, unique=True),
    Scenario("post-64", "POST 16 kB, 800 B answer, 64 connections", 64, body=16_384),
    Scenario("download-64", "GET, 1 MB answer, 64 connections", 64, path="/large", answer=LARGE_ANSWER),
)

_SCRIPT = """
local before, after, body = {before}, {after}, string.rep("x", {body})
local file = assert(io.open({tokens}, "r"))
local length = #file:read("*l") + 1
local count = file:seek("end") / length
local seed, number, ready = "", 0, {{}}

-- All tokens are of one length. Few are kept as ready requests; many stay in the file, read from a place of chance.
function init(args)
  math.randomseed(os.time())
  seed = string.format("%08x", math.random(0, 2^31 - 1))
  file:seek("set", count > 1000 and math.random(0, count - 1) * length or 0)
  if count <= 1000 then
    for token in file:lines() do
      ready[#ready + 1] = {{ before, "Authorization: Bearer " .. token .. "\\r\\n" .. after .. body }}
    end
    for i, parts in ipairs(ready) do parts[3] = parts[1] .. parts[2] end
  end
end

function request()
  number = number + 1
  if count > 1000 then
    local token = file:read("*l")
    if token == nil then
      file:seek("set", 0)
      token = file:read("*l")
    end
    return before .. "Authorization: Bearer " .. token .. "\\r\\n" .. after .. body
  end
  local parts = ready[number % #ready + 1]
  if not {unique} then return parts[3] end
  return parts[1] .. string.format("traceparent: 00-%s%024x-%016x-01\\r\\nX-Request-Start: t=%d\\r\\n", seed, number,
    number, number) .. parts[2]
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('\\n{{"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "failed": %d}}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


def script(scenario: Scenario, tokens: Path) -> str:
    """Write wrk's script; the tokens of a file, one per line and all of one length, take turns."""
    before = f"{scenario.method} {scenario.path} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: bench/1.0\r\n"
    before += "Accept: application/json\r\nAccept-Encoding: gzip\r\n"
    after = f"Content-Type: application/json\r\nContent-Length: {scenario.body}\r\n" if scenario.body else ""
    return _SCRIPT.format(
        before=_lua(before),
        after=_lua(after + "\r\n"),
        tokens=_lua(str(tokens)),
        body=scenario.body,
        unique="true" if scenario.unique else "false",
    )


def _lua(text: str) -> str:
    """Quote ASCII text; Lua's escapes for it are those of JSON."""
    return json.dumps(text)


@dataclass(frozen=True, slots=True)
class Shot:
    """What wrk itself tells of a run.

    Attributes:
        failed: Broken connections, time-outs and answers from status 400 on.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int


def parse_shot(output: str) -> Shot:
    """Read the line that the script writes at the end.

    Raises:
        ValueError: There is none.
    """
    line = next((line for line in reversed(output.splitlines()) if line.startswith("{")), None)
    if line is None:
        raise ValueError(f"wrk told no result:\n{output[-2000:]}")
    told = json.loads(line)
    return Shot(
        requests=int(told["requests"]),
        seconds=float(told["seconds"]),
        p50_ms=float(told["p50_ms"]),
        p99_ms=float(told["p99_ms"]),
        failed=int(told["failed"]),
    )
