"""What a running process cannot change about itself. Pure."""

from config.checks import default_public_url
from config.model import Settings


def until_restart(running: Settings, wanted: Settings) -> tuple[Settings, tuple[str, ...]]:
    """Lay new settings over running ones as far as that goes without a restart.

    Args:
        running: Complete (`checks.complete`), in force.
        wanted: Complete, without problems.

    Returns:
        `wanted` with the running values of what cannot change, and the names of those that differ.
    """
    update: dict[str, object] = {}
    waiting = []
    for name in ("listen", "workers", "fast_lane", "data_dir"):
        if getattr(running, name) != getattr(wanted, name):
            update[name] = getattr(running, name)
            waiting.append(name)
    if running.admin.listen != wanted.admin.listen:
        update["admin"] = wanted.admin.model_copy(update={"listen": running.admin.listen})
        waiting.append("admin.listen")
    if (running.tls is None) is not (wanted.tls is None):  # other files are fine: the next handshake shows them
        update["tls"] = running.tls
        waiting.append("tls")
    if (running.database.url is None) is not (wanted.database.url is None):
        update["database"] = running.database
        waiting.append("database")
    kept = wanted.model_copy(update=update)
    if wanted.public_url == default_public_url(wanted):  # it only followed `listen` and `tls`, and those stay
        kept = kept.model_copy(update={"public_url": default_public_url(kept) if kept.listen.port else None})
    return kept, tuple(waiting)


def changed_sections(running: Settings, wanted: Settings) -> tuple[str, ...]:
    """Name the top-level keys that differ; never their values, which may be secret."""
    return tuple(name for name in Settings.model_fields if getattr(running, name) != getattr(wanted, name))
