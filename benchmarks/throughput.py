"""Requests per second of one process: this gateway beside the same proxy written with `aiohttp.ClientSession`.

Both stand before the same nginx (an 800-byte JSON answer), take the same 50 session tokens over 64 connections from
wrk, and are measured in interleaved rounds of one run; each is pinned to the first core, nginx and wrk to the second.

    make bench                 # rounds of 5 s; writes benchmarks/results/throughput.md
    python -m benchmarks.throughput --seconds 10 --rounds 7
"""

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.clerk_keys import AUTHORIZED_PARTY, ISSUER, jwks, mint_token

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "throughput.md"
USERS, CONNECTIONS, ANSWER_BYTES = 50, 64, 800
OURS, THEIRS = "Actorgate", "aiohttp + ClientSession"
SETTLED = "the same, garbage collector settled as ours"

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 2048; }}
http {{
  access_log off; keepalive_requests 100000000; default_type application/json;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /jwks.json {{ root {folder}; }}
    location / {{ return 200 '{answer}'; }}
  }}
}}
"""
LUA = """
local tokens = {{ {tokens} }}
local next = 0
request = function()
  next = next % #tokens + 1
  return wrk.format("GET", "/api/things?page=1", {{ ["Host"] = "app.example.test", ["Accept"] = "application/json",
    ["User-Agent"] = "bench/1.0", ["Accept-Encoding"] = "gzip", ["Authorization"] = "Bearer " .. tokens[next] }})
end
"""


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(command: list[str], port: int, core: int, **environment: str) -> Iterator[int]:
    """Run a server pinned to a core until the block ends; gives its pid once it listens."""
    command = ["taskset", "-c", str(core), *command]
    quiet = subprocess.DEVNULL  # servers complain when the load generator hangs up
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stdout=quiet, stderr=quiet)
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit(f"{command[0]} ended with {process.returncode}") from None
                time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


@dataclass(frozen=True)
class Round:
    """What one run of wrk showed.

    Attributes:
        rate: Requests per second.
        cpu_us: Processor time of the server per request, in microseconds; less disturbed by neighbours than the rate.
    """

    rate: float
    p50: str
    p99: str
    cpu_us: float


def cpu_seconds(pid: int) -> float:
    """Processor time a process has used so far, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(pid: int, port: int, script: Path, seconds: float) -> Round:
    """Run wrk against a server."""
    before = cpu_seconds(pid)
    command = [
        "taskset",
        "-c",
        "1",
        "wrk",
        "-t1",
        f"-c{CONNECTIONS}",
        f"-d{seconds:g}s",
        "--latency",
        "-s",
        str(script),
    ]
    output = subprocess.run([*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"the run is spoilt:\n{output}")
    found = [
        re.search(pattern, output)
        for pattern in (
            r"Requests/sec:\s+([0-9.]+)",
            r"50%\s+([0-9.]+\S+)",
            r"99%\s+([0-9.]+\S+)",
            r"(\d+) requests in",
        )
    ]
    rate, p50, p99, count = (match[1] if match is not None else "" for match in found)
    if not count:
        raise SystemExit(f"wrk said something else:\n{output}")
    return Round(float(rate), p50, p99, (cpu_seconds(pid) - before) / int(count) * 1e6)


def warm(port: int, tokens: list[str]) -> None:
    """Let the first sight of every user pass, and see that answers are right."""
    for token in tokens:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/api/things?page=1")
        request.add_header("Authorization", f"Bearer {token}")
        request.add_header("Host", "app.example.test")
        with urllib.request.urlopen(request, timeout=10) as answer:
            if len(answer.read()) != ANSWER_BYTES:
                raise SystemExit("the answer is not the upstream's")


def settings(folder: Path, port: int, upstream: int) -> Path:
    """Settings of the measured gateway."""
    path = folder / "gateway.yaml"
    path.write_text(
        json.dumps(
            {
                "listen": f"127.0.0.1:{port}",
                "admin": {"listen": f"127.0.0.1:{free_port()}"},
                "public_url": AUTHORIZED_PARTY,
                "clerk": {
                    "issuer": ISSUER,
                    "jwks_url": f"http://127.0.0.1:{upstream}/jwks.json",
                    "authorized_parties": [AUTHORIZED_PARTY],
                    "allow_insecure_http": True,
                },
                "data_dir": str(folder / "data"),
                "database": {"embedded": True},
                "upstreams": {"app": {"url": f"http://127.0.0.1:{upstream}"}},
                "routes": [
                    {"path": "/public/**", "auth": "none", "upstream": "app"},
                    {"path": "/admin/**", "auth": "required", "roles": ["ADMIN"], "upstream": "app"},
                    {"path": "/**", "auth": "required", "upstream": "app"},
                ],
            }
        )
    )
    return path


def measure(seconds: float, rounds: int) -> dict[str, list[Round]]:
    """Run everything; gives the rounds of each system."""
    for tool in ("wrk", "nginx", "taskset"):
        if shutil.which(tool) is None and shutil.which(tool, path="/usr/sbin") is None:
            raise SystemExit(f"benchmarks need {tool}; Debian: apt-get install wrk nginx-light util-linux")
    upstream, ours, theirs, settled = free_port(), free_port(), free_port(), free_port()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-bench-")))
        folder.chmod(0o755)
        tokens = [
            mint_token(sub=f"user_{n:027d}", sid=f"sess_{n:027d}", exp=int(time.time()) + 7200) for n in range(USERS)
        ]
        script = folder / "tokens.lua"
        script.write_text(LUA.format(tokens=", ".join(f'"{token}"' for token in tokens)))
        (folder / "jwks.json").write_bytes(jwks())
        answer = '{"items":"' + "x" * (ANSWER_BYTES - 12) + '"}'
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=upstream, answer=answer))
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        origin_pid = stack.enter_context(started([nginx, "-c", str(folder / "nginx.conf")], upstream, 1))
        jwks_url = f"http://127.0.0.1:{upstream}/jwks.json"
        gateway = [sys.executable, "-m", "gateway", "serve", "-c", str(settings(folder, ours, upstream))]
        key = "benchmarks-only-key-with-enough-characters"
        gateway_pid = stack.enter_context(started(gateway, ours, 0, GW_SECRETS__MASTER_KEY=key))
        other = [sys.executable, "-m", "benchmarks.client_session_proxy"]
        to = [f"http://127.0.0.1:{upstream}", jwks_url]
        other_pid = stack.enter_context(started([*other, str(theirs), *to], theirs, 0))
        settled_pid = stack.enter_context(started([*other, str(settled), *to, "settled"], settled, 0))
        systems = {
            "nginx alone (no proxy: the limit of this set-up)": (origin_pid, upstream),
            OURS: (gateway_pid, ours),
            THEIRS: (other_pid, theirs),
            SETTLED: (settled_pid, settled),
        }
        for _, port in systems.values():
            warm(port, tokens)
        results: dict[str, list[Round]] = {name: [] for name in systems}
        for number in range(rounds + 1):
            for name, (pid, port) in systems.items():
                result = load(pid, port, script, seconds)
                if number:  # the first round only warms up
                    results[name].append(result)
                    print(f"round {number}/{rounds}  {name}: {result.rate:,.0f}/s", flush=True)
    return results


def table(results: dict[str, list[Round]], seconds: float, rounds: int) -> str:
    """Write the result as Markdown."""
    lines = [
        f"One process on one core, {CONNECTIONS} connections, {USERS} tokens (RS256), {ANSWER_BYTES}-byte answer.",
        f"Median of {rounds} interleaved rounds of {seconds:g} s.",
        "",
        "| system | requests/s, median | lowest–highest | p50 | p99 | CPU µs/request |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
    ]
    rates, cpu, cpu_known = {}, {}, (OURS, THEIRS, SETTLED)
    for name, rows in results.items():
        ordered = sorted(row.rate for row in rows)
        rates[name], cpu[name] = statistics.median(ordered), statistics.median(row.cpu_us for row in rows)
        middle = min(rows, key=lambda row: abs(row.rate - rates[name]))
        spent = f"{cpu[name]:.0f}" if name in cpu_known else "–"  # nginx works in a child
        spread = f"{ordered[0]:,.0f}–{ordered[-1]:,.0f}"
        lines.append(f"| {name} | {rates[name]:,.0f} | {spread} | {middle.p50} | {middle.p99} | {spent} |")
    lines += [""]
    for name in (THEIRS, SETTLED):
        faster, cheaper = rates[OURS] / rates[name], cpu[name] / cpu[OURS]
        lines.append(
            f"- {OURS} answers {faster:.2f} times as many as {name}; {cheaper:.2f} times less processor time each."
        )
    lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    text = table(measure(arguments.seconds, arguments.rounds), arguments.seconds, arguments.rounds)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
