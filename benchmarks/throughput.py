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
from pathlib import Path

from tests.support.clerk_keys import AUTHORIZED_PARTY, ISSUER, jwks, mint_token

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "throughput.md"
USERS, CONNECTIONS, ANSWER_BYTES = 50, 64, 800

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


def load(port: int, script: Path, seconds: float) -> tuple[float, str, str]:
    """Run wrk; gives requests per second, p50 and p99."""
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
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", output)
    half, most = re.search(r"50%\s+(\S+)", output), re.search(r"99%\s+(\S+)", output)
    if rate is None or half is None or most is None:
        raise SystemExit(f"wrk said something else:\n{output}")
    return float(rate[1]), half[1], most[1]


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


def measure(seconds: float, rounds: int) -> dict[str, list[tuple[float, str, str]]]:
    """Run everything; gives the rounds of each system."""
    for tool in ("wrk", "nginx", "taskset"):
        if shutil.which(tool) is None and shutil.which(tool, path="/usr/sbin") is None:
            raise SystemExit(f"benchmarks need {tool}; Debian: apt-get install wrk nginx-light util-linux")
    upstream, ours, theirs = free_port(), free_port(), free_port()
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
        stack.enter_context(started([nginx, "-c", str(folder / "nginx.conf")], upstream, 1))
        jwks_url = f"http://127.0.0.1:{upstream}/jwks.json"
        gateway = [sys.executable, "-m", "gateway", "serve", "-c", str(settings(folder, ours, upstream))]
        key = "benchmarks-only-key-with-enough-characters"
        stack.enter_context(started(gateway, ours, 0, GW_SECRETS__MASTER_KEY=key))
        other = [sys.executable, "-m", "benchmarks.client_session_proxy", str(theirs)]
        stack.enter_context(started([*other, f"http://127.0.0.1:{upstream}", jwks_url], theirs, 0))
        systems = {"nginx alone (no proxy: the limit of this set-up)": upstream}
        systems |= {"Actorgate": ours, "aiohttp + ClientSession": theirs}
        for port in systems.values():
            warm(port, tokens)
        results: dict[str, list[tuple[float, str, str]]] = {name: [] for name in systems}
        for number in range(rounds + 1):
            for name, port in systems.items():
                result = load(port, script, seconds)
                if number:  # the first round only warms up
                    results[name].append(result)
                    print(f"round {number}/{rounds}  {name}: {result[0]:,.0f}/s", flush=True)
    return results


def table(results: dict[str, list[tuple[float, str, str]]], seconds: float, rounds: int) -> str:
    """Write the result as Markdown."""
    lines = [
        f"One process on one core, {CONNECTIONS} connections, {USERS} tokens (RS256), {ANSWER_BYTES}-byte answer.",
        f"Median of {rounds} interleaved rounds of {seconds:g} s.",
        "",
        "| system | requests/s, median | lowest–highest | p50 | p99 |",
        "| --- | ---: | --- | ---: | ---: |",
    ]
    medians = {}
    for name, rows in results.items():
        rates = sorted(row[0] for row in rows)
        medians[name] = statistics.median(rates)
        middle = min(rows, key=lambda row: abs(row[0] - medians[name]))
        lines.append(
            f"| {name} | {medians[name]:,.0f} | {rates[0]:,.0f}–{rates[-1]:,.0f} | {middle[1]} | {middle[2]} |"
        )
    ratio = medians["Actorgate"] / medians["aiohttp + ClientSession"]
    lines += ["", f"Actorgate is {ratio:.1f} times the ClientSession proxy.", ""]
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
