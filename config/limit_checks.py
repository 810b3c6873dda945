"""Rate limits and the routes that name them: what cannot be, and what is probably not meant. Pure."""

from collections.abc import Iterator

from config.model import Settings
from config.problems import Finding


def find_limit_problems(settings: Settings) -> Iterator[Finding]:
    """Refuse limits that would limit nothing."""
    limits = settings.rate_limits
    for name, limit in limits.items():
        if limit.counts == "failed_credentials" and "by" in limit.model_fields_set:
            text = "is not for counts: failed_credentials, which counts by address and by the id that was claimed"
            yield Finding(("rate_limits", name, "by"), text)
    for index, route in enumerate(settings.routes):
        loc = ("routes", index, "rate_limit")
        for name in route.rate_limit:
            if name not in limits:
                there = ", ".join(sorted(limits)) or "none"
                yield Finding(loc, f"no limit has this name in rate_limits; there are: {there}")
            elif limits[name].counts == "failed_credentials":
                yield Finding(loc, f"{name} counts bad credentials, on every route; leave it out here")
        if len(set(route.rate_limit)) < len(route.rate_limit):
            yield Finding(loc, "write each name once")


def lint_limits(settings: Settings) -> Iterator[Finding]:
    """Find limits that are not what they seem."""
    named = {name for route in settings.routes for name in route.rate_limit}
    for name, limit in settings.rate_limits.items():
        if limit.counts == "requests" and name not in named:
            yield Finding(("rate_limits", name), "limits nothing: no route names it in rate_limit")
        if limit.when_unavailable != "open" and settings.redis.url is None:
            text = "is never asked: without redis.url this process counts by itself"
            yield Finding(("rate_limits", name, "when_unavailable"), text)
    for index, route in enumerate(settings.routes):
        for name in route.rate_limit:
            by = settings.rate_limits[name].by
            if route.auth == "none" and by != "address":
                text = f"{name} is by {by}, and auth: none knows nobody; here it counts by address"
                yield Finding(("routes", index, "rate_limit"), text)
