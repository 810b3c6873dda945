"""Templates and static files of `gateway dev`, read from the package once, so that no request waits for a disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import aiohttp_jinja2
import jinja2
from aiohttp import web

_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Assets:
    """What the pages are made of.

    Attributes:
        templates: Jinja sources by file name.
        static: Content by file name.
    """

    templates: Mapping[str, str]
    static: Mapping[str, bytes]


@cache
def load_assets() -> Assets:
    """Read everything; blocks, so call it off the event loop."""
    package = files("gateway")
    return Assets(
        {file.name: file.read_text(encoding="utf-8") for file in package.joinpath("templates/dev").iterdir()},
        {file.name: file.read_bytes() for file in package.joinpath("static/dev").iterdir()},
    )


def add_templates(app: web.Application, assets: Assets) -> None:
    """Let the application's handlers render; everything is escaped, and a missing name is an error."""
    aiohttp_jinja2.setup(
        app,
        loader=jinja2.DictLoader(assets.templates),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def add_static(app: web.Application, assets: Assets) -> None:
    """Serve the static files under `/static/`."""

    async def serve(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in assets.static:
            raise web.HTTPNotFound
        media_type = _MEDIA_TYPES[name[name.rindex(".") :]]
        return web.Response(body=assets.static[name], content_type=media_type, charset="utf-8")

    app.add_routes([web.get("/static/{name}", serve)])
