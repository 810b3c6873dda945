"""New settings for a running process: read, checked, built beside the old, and taken into force in one step.

Whatever is wrong on the way leaves everything as it is, and a metric and the log say so. Requests under way finish with
the rooms they began in; open websockets and streams go on.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog

from config.model import Settings
from config.problems import SettingsInvalid
from config.restart import changed_sections, until_restart
from config.watch import Source, changes
from gateway.actors.system_tokens import narrowed
from gateway.composition import Composition, Home, compose
from gateway.parts import ComposeFailed
from gateway.report import failure_text
from gateway.telemetry.reloads import Outcome, Reloads
from gateway.tls import renew
from gateway.upstream.pool import Upstream
from provisioning.background import end_tasks
from provisioning.database.migrate import ensure
from provisioning.errors import ProvisioningError

_log = structlog.get_logger()


class Reloader:
    """Owns what is in force, and puts other settings in its place.

    Attributes:
        home: Of this process.
        current: What is in force.
        reloads: What became of all reloads, for metrics.
        adopt: Leads the next request to a composition; must not wait. Nothing before there is a listener.
        listener_tls: The context of the listener; None: plain HTTP, or none yet.
    """

    def __init__(self, current: Composition, home: Home, own_database_url: str | None) -> None:
        """Take over what was built at the start.

        Args:
            current: In force, and from now on ours to close.
            home: Of this process.
            own_database_url: DSN of the embedded PostgreSQL, which lives as long as the process; None: there is none.
        """
        self.current = current
        self.reloads = Reloads()
        self.adopt: Callable[[Composition], None] = lambda _: None
        self.listener_tls: ssl.SSLContext | None = None
        self.home = home
        self._own_database_url = own_database_url
        self._one_at_a_time = asyncio.Lock()
        self._leaving: dict[asyncio.Task[None], asyncio.Task[None]] = {}  # who closes old parts: what they wait for
        self._retired: list[Upstream] = []

    @property
    def retired(self) -> tuple[Upstream, ...]:
        """Upstreams of earlier settings that still carry something."""
        self._retired = [upstream for upstream in self._retired if upstream.open or upstream.upgraded]
        return tuple(self._retired)

    async def reload(self, load: Callable[[], Settings]) -> bool:
        """Take settings into force; True when they are. Raises nothing: it says what went wrong itself.

        Args:
            load: Reads them, in a thread; may raise SettingsInvalid.
        """
        async with self._one_at_a_time:
            outcome = await self._reload(load)
        self.reloads.ended(outcome)
        return outcome == "ok"

    async def _reload(self, load: Callable[[], Settings]) -> Outcome:
        try:
            await self._replace(await asyncio.to_thread(load))
        except SettingsInvalid as invalid:
            _log.error("settings refused", problems=[str(problem) for problem in invalid.problems])
            return "refused"
        except (OSError, ComposeFailed, ProvisioningError) as error:
            _log.error("reload failed", cause=failure_text(error))
            return "failed"
        except Exception as error:  # noqa: BLE001 - a mistake of ours in here must not end a gateway that serves
            _log.error("reload failed", cause=type(error).__name__, exc_info=error)
            return "failed"
        return "ok"

    async def _replace(self, wanted: Settings) -> None:
        old = self.current
        settings, waiting = until_restart(old.settings, wanted)
        database_url = self._own_database_url
        if settings.database.url is not None:
            database_url = settings.database.url.get_secret_value()
            if settings.database.url != old.settings.database.url:
                direct = settings.database.direct_url or settings.database.url
                await ensure(direct.get_secret_value(), automatic=settings.database.auto_migrate, wait_s=0.0)
        if database_url is None:
            raise ComposeFailed("there is no database")
        new = await compose(settings, database_url, self.home, old)
        if self.listener_tls is not None and settings.tls is not None:
            try:
                renew(self.listener_tls, settings.tls.certificate, settings.tls.key)
            except OSError:
                await new.parts.release()
                raise
        self.put_into_force(new)
        _log.info("settings reloaded", changed=changed_sections(old.settings, settings))
        if waiting:
            _log.warning("settings need a restart", keys=waiting)

    def put_into_force(self, new: Composition) -> None:
        """The one step: nothing waits in here, so no request sees half of it."""
        old, self.current = self.current, new
        limits = new.settings.websocket
        self.home.tunnels.limit(limits.max_age, limits.idle_timeout)
        self.adopt(new)
        for name in narrowed(old.settings.system_tokens, new.settings.system_tokens):
            self.home.live.end(system=name)  # nothing else ends what a system token opened
        kept = set(new.sources.upstreams.values())
        for upstream in old.sources.upstreams.values():
            if upstream not in kept:
                upstream.retire()
                self._retired.append(upstream)
        over = asyncio.create_task(old.pipeline.rooms.lease.over())
        leaving = asyncio.create_task(_leave(old, over))
        self._leaving[leaving] = over
        leaving.add_done_callback(self._leaving.pop)

    async def close(self) -> None:
        """Close everything, once nothing serves any more."""
        for upstream in (*self.retired, *self.current.sources.upstreams.values()):
            upstream.close()
        # The wait is cut short, never the closing: it would leave the rest of the parts open.
        for over in self._leaving.values():
            over.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        await self.current.parts.release()


async def _leave(old: Composition, over: asyncio.Task[None]) -> None:
    """Close what only the old composition held, as soon as nobody waits in its rooms, or should no longer."""
    await asyncio.wait({over})
    await old.parts.release()


@asynccontextmanager
async def reloading(
    reloader: Reloader, source: Source, signalled: asyncio.Event, *, watch: bool
) -> AsyncIterator[None]:
    """Reload inside the context, whenever there is a reason.

    Args:
        reloader: Does it.
        source: Where settings come from.
        signalled: Set from outside to ask for it.
        watch: Also when a file that counts changed.
    """

    async def reload_when_asked() -> None:
        while True:
            await signalled.wait()
            signalled.clear()
            await reloader.reload(source.load)

    tasks = [asyncio.create_task(reload_when_asked())]
    if watch:
        tasks.append(asyncio.create_task(ask_when_stale(source, signalled)))
    try:
        yield
    finally:
        await end_tasks(*tasks, quietly=True)


async def ask_when_stale(source: Source, signalled: asyncio.Event) -> None:
    """Ask for a reload whenever a file that counts changed; does not end by itself."""
    try:
        async for _ in changes(source):
            signalled.set()
    except Exception as error:  # noqa: BLE001 - a gateway that serves goes on without it; SIGHUP still reloads
        _log.error("settings are no longer watched", exc_info=error)
