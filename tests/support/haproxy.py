"""A real HAProxy before several gateways, in the foreground, everything of it in one folder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_port
from tests.support.programs import listening, program_named

CONFIGURATION = """\
global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 1s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
  # What a gateway that ends leaves unanswered, another one is asked for; never what may have done something.
  retries 3
  option redispatch 1
  retry-on conn-failure empty-response
frontend clients
  bind 127.0.0.1:{port} backlog 4096
  default_backend gateways
backend gateways
  balance roundrobin
  http-request disable-l7-retry unless {{ method GET HEAD OPTIONS }}
{servers}
"""
_SERVER = "  server gateway{number} 127.0.0.1:{port} check inter 500ms fall 2 rise 1"


@dataclass(frozen=True, slots=True)
class Haproxy:
    """A running one."""

    port: int
    folder: Path


@contextmanager
def haproxy(folder: Path, gateways: Sequence[int]) -> Iterator[Haproxy]:
    """Run one until the block ends; it asks the gateways in turns.

    Args:
        folder: For its files; made here.
        gateways: Port of each.
    """
    port = free_port()
    servers = "\n".join(_SERVER.format(number=number, port=gateway) for number, gateway in enumerate(gateways, 1))
    with configured_haproxy(folder, port, CONFIGURATION.format(port=port, servers=servers)) as running:
        yield running


@contextmanager
def configured_haproxy(folder: Path, port: int, configuration: str) -> Iterator[Haproxy]:
    """Run one with a whole configuration, which listens on this port, until the block ends."""
    program = program_named("haproxy")
    folder.mkdir()
    running = Haproxy(port, folder)
    file = folder / "haproxy.cfg"
    file.write_text(configuration)
    with listening([program, "-db", "-f", str(file)], running.port, folder / "haproxy.log"):
        yield running
