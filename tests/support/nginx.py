"""A real nginx in the foreground, one process, everything of it in one folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_port
from tests.support.programs import listening, program_named

_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
_CONFIGURATION = """\
daemon off;
master_process off;  # one process that belongs to whoever runs the tests, root or not
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 2048; }}
http {{
  {temporary}
  log_format connections '$connection $status $request_method $request_uri';
  access_log {folder}/access.log connections;
  client_max_body_size 0;
  {around}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    {inside}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Nginx:
    """A running one."""

    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def requests(self) -> list[str]:
        """What it has answered: the connection's number, status, method and target."""
        return (self.folder / "access.log").read_text().splitlines()

    def connections(self) -> int:
        """How many connections brought those requests."""
        return len({line.split()[0] for line in self.requests()})


@contextmanager
def nginx(folder: Path, inside: str, around: str = "") -> Iterator[Nginx]:
    """Run one until the block ends.

    Args:
        folder: For its files; made here.
        inside: Directives of the one server.
        around: Directives of the http block.
    """
    program = program_named("nginx")
    folder.mkdir()
    running = Nginx(free_port(), folder)
    temporary = " ".join(f"{name}_temp_path {folder}/{name};" for name in _TEMPORARY)
    file = folder / "nginx.conf"
    file.write_text(
        _CONFIGURATION.format(folder=folder, temporary=temporary, port=running.port, inside=inside, around=around)
    )
    with listening([program, "-p", str(folder), "-e", "stderr", "-c", str(file)], running.port, folder / "stderr.log"):
        yield running
