"""`gateway dev` and `gateway dev-token`: composes everything on one machine and owns its life.

The gateway runs in this process through `gateway.app.running`, beside the local issuer and the demo upstream;
PostgreSQL is the one child process.
"""

import asyncio
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import socket

from aiohttp import web

from gateway.dev.assets import load_assets
from gateway.dev.demo_upstream import demo_application
from gateway.dev.folder import DevFailed, DevFolder, Ports, default_data_dir
from gateway.dev.issuer import issuer_application
from gateway.dev.logs import configure_dev_logs
from gateway.dev.personas import PERSONAS, PersonaUnknown, find_membership, find_persona
from gateway.dev.place import Place, examples
from gateway.dev.ports import LOOPBACK, listening_socket_preferring, listening_socket_searching, port_of
from gateway.dev.printed import welcome
from gateway.dev.settings import check_upstream, dev_settings
from gateway.errors import GatewayError
from gateway.listen.sockets import Sockets
from provisioning.database.embedded import EmbeddedPostgres
from provisioning.errors import ProvisioningError

DEFAULT_PORT = 8080
DEFAULT_ADMIN_PORT = 9464
_FIRST_CHOICES = (8181, 8182)
_SEARCHED_PORTS = 50
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def run_dev(
    *, upstream: str | None, port: int, data_dir: Path | None, admin_port: int = DEFAULT_ADMIN_PORT
) -> int:
    """Run until a signal comes.

    Args:
        upstream: `http://host:port` to forward to; None brings the demo upstream.
        port: Of the gateway; 0 lets the system choose. When the default one is taken another is found.
        data_dir: What is kept between two starts; None takes `default_data_dir()`.
        admin_port: Of metrics and health; when taken another is found.

    Returns:
        Exit code: 0 after a signal, 1 when it could not start, with a line on standard error that says why.
    """
    try:
        forward_to = check_upstream(upstream) if upstream is not None else None
        return await _until_signalled(_live(forward_to, port, admin_port, (data_dir or default_data_dir()).absolute()))
    except (DevFailed, ProvisioningError, GatewayError, OSError) as error:
        sys.stderr.write(f"gateway dev: {error}\n")
        return 1


async def _until_signalled(life: Coroutine[None, None, None]) -> int:
    """Run until done or cancelled by a signal; a second signal cuts short what the first is still ending."""
    loop = asyncio.get_running_loop()
    body = asyncio.create_task(life)
    for number in _SIGNALS:
        loop.add_signal_handler(number, body.cancel)
    try:
        await body
    except asyncio.CancelledError:
        return 0
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
    return 0


def mint_token(persona: str, organization: str | None, data_dir: Path | None) -> str:
    """Mint a session token of a persona's, for the gateway that runs or last ran with this folder.

    Args:
        persona: Name, such as `alice`.
        organization: Slug or id; None takes the persona's first, the empty string none.
        data_dir: As for `run_dev`.

    Raises:
        DevFailed: Nothing ran there yet, or there is no such persona or organization.
    """
    mint = DevFolder(data_dir or default_data_dir()).mint()
    try:
        chosen = find_persona(persona)
        return mint.token(chosen, find_membership(chosen, organization), now=int(time.time()))
    except PersonaUnknown as error:
        raise DevFailed(str(error)) from error


async def _live(forward_to: str | None, port: int, admin_port: int, data_dir: Path) -> None:
    """Start everything, say so, and wait for ever; cancelling ends everything in the reverse order."""
    # Not at the top: `gateway dev-token` needs the mint alone, and should not wait for the whole gateway to load.
    from gateway.app import running

    configure_dev_logs()
    folder = DevFolder(data_dir)
    await asyncio.to_thread(folder.prepare)
    async with AsyncExitStack() as stack:
        # First, because its lock tells two runs with one folder apart before the second overwrites the ports.
        postgres = await stack.enter_async_context(EmbeddedPostgres(folder.path))
        doors = stack.enter_context(_open_doors(folder, port, admin_port))
        place = doors.place(forward_to, token_command(folder.path))
        assets = await asyncio.to_thread(load_assets)
        issuer = issuer_application(place, folder.mint(), folder.secret_key(), assets)
        await stack.enter_async_context(_serving(issuer, doors.issuer))
        if place.demo:
            await stack.enter_async_context(_serving(demo_application(place.issuer_url, assets), doors.demo))
        settings = dev_settings(
            place,
            data_dir=folder.path,
            database_url=postgres.url,
            master_key=folder.master_key(),
            secret_key=folder.secret_key(),
            instance_id=folder.signing_key().instance_id,
        )
        await stack.enter_async_context(running(settings, doors.gateway))
        _say(_greeting(place, folder, port))
        await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class _Doors:
    """The sockets of one run, which nobody can take from it any more."""

    gateway: Sockets
    issuer: socket
    demo: socket

    @property
    def ports(self) -> Ports:
        """Those that the next run prefers."""
        return Ports(port_of(self.gateway.public), port_of(self.issuer), port_of(self.demo))

    def place(self, forward_to: str | None, token_words: tuple[str, ...]) -> Place:
        """Tell where everything is; without another upstream the demo is the one."""
        return Place(
            self.ports,
            admin_url=f"http://{LOOPBACK}:{port_of(self.gateway.admin)}",
            upstream_url=forward_to or f"http://{LOOPBACK}:{self.ports.demo}",
            demo=forward_to is None,
            token_command=token_words,
        )


@contextmanager
def _open_doors(folder: DevFolder, port: int, admin_port: int) -> Iterator[_Doors]:
    """Open the ports of the last run where they are free, and remember which they are now.

    Raises:
        DevFailed: The gateway's port, or every admin port, is taken.
    """
    # First choices lie below the range that systems lend to outgoing connections, or one of those could sit on them.
    before = folder.ports() or Ports(port, *((0, 0) if port == 0 else _FIRST_CHOICES))
    with (
        closing(_open_gateway(port)) as public,
        closing(_open_admin(0 if port == 0 else admin_port)) as admin,
        closing(listening_socket_preferring(before.issuer)) as issuer,
        closing(listening_socket_preferring(before.demo)) as demo,
    ):
        doors = _Doors(Sockets(public, admin), issuer, demo)
        folder.remember(doors.ports)
        yield doors


def _greeting(place: Place, folder: DevFolder, asked_port: int) -> list[str]:
    alice = PERSONAS[0]
    token = folder.mint().token(alice, find_membership(alice, None), now=int(time.time()))
    moved = asked_port not in {0, place.ports.gateway}
    remarks = (f"Port {asked_port} is taken, so the gateway listens on {place.ports.gateway}.",) if moved else ()
    return welcome(place, examples(place, alice.name, token), str(folder.path), remarks)


def _open_gateway(asked: int) -> socket:
    """Take the asked port; only for the default one, which nobody insisted on, is another found.

    Raises:
        DevFailed: Taken.
    """
    listener = listening_socket_searching(asked, _SEARCHED_PORTS if asked == DEFAULT_PORT else 1)
    if listener is None:
        raise DevFailed(f"port {asked} is taken; end what listens there or choose another with --port")
    return listener


def _open_admin(asked: int) -> socket:
    """Take the asked port or one after it.

    Raises:
        DevFailed: All are taken.
    """
    listener = listening_socket_searching(asked, _SEARCHED_PORTS)
    if listener is None:
        raise DevFailed(f"port {asked} and those after it are taken; choose another with --admin-port")
    return listener


@asynccontextmanager
async def _serving(app: web.Application, listener: socket) -> AsyncIterator[None]:
    """Serve an application; its open streams get a tenth of a second at the end."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield
    finally:
        await runner.cleanup()


def token_command(data_dir: Path) -> tuple[str, ...]:
    """Find the words that run `gateway dev-token` from where we are; under `make` the command is not on the PATH."""
    script = Path(sys.executable).with_name("gateway")
    if shutil.which("gateway") == str(script):
        command: tuple[str, ...] = ("gateway",)
    elif script.exists():
        command = (str(script),)
    else:
        command = (sys.executable, "-m", "gateway")
    place = () if data_dir == default_data_dir() else ("--data-dir", str(data_dir))
    return (*command, "dev-token", *place)


def _say(lines: Iterable[str]) -> None:
    """Print at once, also into a pipe; no rich: a wrapped line cannot be pasted."""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
