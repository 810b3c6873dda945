"""Who answers: this gateway, in several settings, and the proxies it is compared with. Each has one core to itself."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import configurations
from benchmarks.configurations import Ports
from benchmarks.processes import SYSTEM_CORE, program, started, tree
from benchmarks.surroundings import Surroundings
from tests.support.clerk_keys import AUTHORIZED_PARTY, ISSUER, jwks
from tests.support.ports import free_port

MASTER_KEY = "benchmarks-only-key-with-enough-characters"
_WORKERS_S = 3.0


class NotHere(Exception):
    """What was asked for cannot be measured in this release; the text says why."""


@dataclass(frozen=True, slots=True)
class Running:
    """A started system.

    Attributes:
        pids: Its processes, without their children.
    """

    port: int
    pids: tuple[int, ...]


Start = Callable[[Surroundings], AbstractContextManager[Running]]


@dataclass(frozen=True, slots=True)
class System:
    """One that can be measured.

    Attributes:
        name: The word on the command line.
        title: For the report.
        lacks: What it cannot do, or does otherwise, beside what the gateway does; for the report.
        verifies: Whether a bad token is refused with 401 and the upstream is told who calls.
        websockets: Whether it is measured with them.
    """

    name: str
    title: str
    lacks: str
    start: Start
    verifies: bool = True
    websockets: bool = False


def gateway_settings(place: Surroundings, folder: Path, port: int, changes: dict[str, Any]) -> Path:
    """Write settings of a gateway at full work: sessions, Actors, organizations, all headers, metrics."""
    path = folder / "gateway.yaml"
    routes = [
        {"path": "/public/**", "auth": "none", "upstream": "app"},
        {"path": "/admin/**", "auth": "required", "roles": ["ADMIN"], "upstream": "app"},
        {"path": "/socket", "auth": "required", "upstream": "sockets"},
        {"path": "/**", "auth": "required", "upstream": "app"},
    ]
    settings: dict[str, Any] = {
        "listen": f"127.0.0.1:{port}",
        "admin": {"listen": f"127.0.0.1:{free_port()}"},
        "public_url": AUTHORIZED_PARTY,
        "clerk": {
            "issuer": ISSUER,
            "jwks_url": place.jwks_url,
            "authorized_parties": [AUTHORIZED_PARTY],
            "allow_insecure_http": True,
        },
        "data_dir": str(folder / "data"),
        "database": {"url": place.postgres.create()},
        "upstreams": {
            "app": {"url": f"http://127.0.0.1:{place.origin}"},
            "sockets": {"url": f"http://127.0.0.1:{place.echo}"},
        },
        "routes": routes,
    }
    path.write_text(json.dumps(settings | changes))
    return path


@contextmanager
def gateway(
    place: Surroundings, *, cores: str = SYSTEM_CORE, processes: int = 1, compiled: bool = True, **changes: Any
) -> Iterator[Running]:
    """Run this gateway, compiled if it is; `changes` replace whole sections of its settings.

    Raises:
        NotHere: It runs fewer processes than asked for.
    """
    folder, port = place.new_folder("gateway"), free_port()
    command = [sys.executable, "-m", "gateway", "serve", "-c", str(gateway_settings(place, folder, port, changes))]
    environment = {"GW_SECRETS__MASTER_KEY": MASTER_KEY, "ACTORGATE_COMPILED": "1" if compiled else "0"}
    with started(command, port, cores, folder, **environment) as pid:
        deadline = time.monotonic() + _WORKERS_S
        while len(tree([pid])) < processes and time.monotonic() < deadline:
            time.sleep(0.1)
        if len(tree([pid])) < processes:
            raise NotHere(f"this release runs one process, whatever `workers` says ({processes} asked for)")
        yield Running(port, (pid,))


@dataclass(frozen=True, slots=True)
class _Stand:
    """Where a compared proxy is put up; `pids` are those of the gateway it asks, if any: they count as its own."""

    folder: Path
    ports: Ports
    pids: tuple[int, ...]


@contextmanager
def _stand(place: Surroundings, *, asks: bool = False) -> Iterator[_Stand]:
    """Make room for a proxy; with `asks`, a gateway on the same core answers it who calls.

    This gateway's own decision endpoint does not exist yet: a proxied route to an upstream that answers 204 and repeats
    the identity it was told stands in for it.
    """
    folder = place.new_folder("proxy")
    folder.chmod(0o755)  # nginx's worker is another user when root started it
    with ExitStack() as stack:
        decider = stack.enter_context(gateway(place)) if asks else None
        ports = Ports(free_port(), place.origin, place.echo, decider.port if decider else 0)
        yield _Stand(folder, ports, decider.pids if decider else ())


@contextmanager
def _proxy(stand: _Stand, command: list[str], **environment: str) -> Iterator[Running]:
    """Run a proxy of another make where it stands."""
    with started(command, stand.ports.own, SYSTEM_CORE, stand.folder, **environment) as pid:
        yield Running(stand.ports.own, (pid, *stand.pids))


@contextmanager
def nginx(place: Surroundings, *, asks: bool = False) -> Iterator[Running]:
    """Run nginx as a proxy; with `asks`, it asks a gateway by `auth_request`."""
    with _stand(place, asks=asks) as stand:
        file = stand.folder / "nginx.conf"
        file.write_text(configurations.nginx_proxy(stand.folder, stand.ports, place.files))
        with _proxy(stand, [program("nginx"), "-e", "stderr", "-c", str(file)]) as running:
            yield running


@contextmanager
def haproxy(place: Surroundings) -> Iterator[Running]:
    """Run HAProxy, one thread."""
    with _stand(place) as stand:
        file = stand.folder / "haproxy.cfg"
        file.write_text(configurations.haproxy(stand.ports, place.public_key, ISSUER, place.files))
        with _proxy(stand, [program("haproxy"), "-db", "-f", str(file)]) as running:
            yield running


@contextmanager
def envoy(place: Surroundings, *, cached: bool) -> Iterator[Running]:
    """Run Envoy, one worker."""
    with _stand(place) as stand:
        file = stand.folder / "envoy.json"
        file.write_text(configurations.envoy(stand.ports, jwks().decode(), ISSUER, cached=cached))
        command = [program("envoy"), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
        with _proxy(stand, command) as running:
            yield running


@contextmanager
def caddy(place: Surroundings, *, asks: bool = False) -> Iterator[Running]:
    """Run Caddy on one processor; with `asks`, it asks a gateway by `forward_auth`."""
    with _stand(place, asks=asks) as stand:
        file = stand.folder / "Caddyfile"
        file.write_text(configurations.caddy(stand.ports))
        homes = {name: str(stand.folder) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
        command = [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(file)]
        with _proxy(stand, command, GOMAXPROCS="1", **homes) as running:
            yield running


@contextmanager
def client_session(place: Surroundings, *, settled: bool) -> Iterator[Running]:
    """Run the proxy of `client_session_proxy.py`; `settled`: with the gateway's settings of the garbage collector."""
    with _stand(place) as stand:
        command = [sys.executable, "-m", "benchmarks.client_session_proxy", str(stand.ports.own)]
        command += [f"http://127.0.0.1:{place.origin}", place.jwks_url, *(["settled"] if settled else [])]
        with _proxy(stand, command) as running:
            yield running


@contextmanager
def no_proxy(place: Surroundings) -> Iterator[Running]:
    """Take the upstream itself: the limit of the set-up. It shares the core of the load."""
    yield Running(place.origin, (place.origin_pid,))


_NO_AUTH = "authentication of any kind"
_TOKEN_ALONE = "Actor, organization, provisioning, flags, revocation, cookies"
_ASKING = "asks a gateway for each request; the rest is the gateway's"
_OWN = "–"
_WRITTEN = "Actor, provisioning, flags, revocation, cookies, websockets, most refusals"

SYSTEMS = (
    System("actorgate", "Actorgate", _OWN, gateway, websockets=True),
    System("aiohttp-lane", "Actorgate, `fast_lane: false`", _OWN, partial(gateway, fast_lane=False)),
    System("actorgate-sources", "Actorgate, not compiled", _OWN, partial(gateway, compiled=False)),
    System("client-session", "aiohttp + ClientSession", _WRITTEN, partial(client_session, settled=False)),
    System(
        "client-session-settled",
        "ClientSession, garbage collector as ours",
        _WRITTEN,
        partial(client_session, settled=True),
    ),
    System("envoy", "Envoy `jwt_authn`, token cache on", _TOKEN_ALONE, partial(envoy, cached=True)),
    System("envoy-uncached", "Envoy `jwt_authn` as it comes", _TOKEN_ALONE, partial(envoy, cached=False)),
    System("haproxy", "HAProxy `jwt_verify`", _TOKEN_ALONE, haproxy),
    System("caddy", "Caddy `reverse_proxy`", _NO_AUTH, caddy, verifies=False, websockets=True),
    System("caddy-forward-auth", "Caddy `forward_auth` to Actorgate", _ASKING, partial(caddy, asks=True)),
    System("nginx", "nginx `proxy_pass`", _NO_AUTH, nginx, verifies=False, websockets=True),
    System("nginx-auth-request", "nginx `auth_request` to Actorgate", _ASKING, partial(nginx, asks=True)),
    System("no-proxy", "no proxy: the limit of the set-up", "everything", no_proxy, verifies=False),
)
