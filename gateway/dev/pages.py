"""The issuer's pages: start, sign-in, a minted token. Forms need no script; the one script copies text."""

import time
from collections.abc import Mapping
from typing import Any, NoReturn

import aiohttp_jinja2
import jwt
import orjson
from aiohttp import ClientSession, web

from gateway.dev.clerk_shapes import find_user
from gateway.dev.cookies import set_signed_in, set_signed_out
from gateway.dev.parts import ask_parts
from gateway.dev.personas import PERSONAS, Membership, Persona, PersonaUnknown, find_membership, find_persona
from gateway.dev.place import Place, examples
from gateway.dev.returns import is_own_post, is_safe_return, same_host
from gateway.dev.tokens import TOKEN_LIFE_S, Mint

CLIENT = web.AppKey("client", ClientSession)


class Pages:
    """Handlers of the pages, and of `POST /v1/dev/tokens`, which is Clerk's to nobody: it mints without a password."""

    def __init__(self, place: Place, mint: Mint) -> None:
        self._place = place
        self._mint = mint
        # Hosts a browser can know the issuer under; the gateway may return to any page of its own or of ours.
        self._returns = (*place.ports.gateway_origins, place.issuer_url, f"http://localhost:{place.ports.issuer}")

    def routes(self) -> list[web.RouteDef]:
        """List the routes for `Application.add_routes`."""
        return [
            web.get("/", self.start),
            web.get("/sign-in", self.choose),
            web.post("/sign-in", self.sign_in),
            web.post("/sign-out", self.sign_out),
            web.post("/tokens", self.show_token),
            web.post("/v1/dev/tokens", self.mint_token),
        ]

    async def start(self, request: web.Request) -> web.Response:
        """Tell what this is, how its parts are, and what to try."""
        persona = self._signed_in(request) or PERSONAS[0]
        token = self._mint.token(persona, find_membership(persona, None), now=int(time.time()))
        context = {
            "signed_in": self._signed_in(request),
            "parts": await ask_parts(request.app[CLIENT], self._place),
            "examples": examples(self._place, persona.name, token),
            "gateway": f"http://{request.host.rpartition(':')[0]}:{self._place.ports.gateway}",
        }
        return self._page("start.html", request, context)

    async def choose(self, request: web.Request) -> web.Response:
        """List the personas.

        Cookies belong to a host name, so a browser that came from `localhost` is sent to this page at `localhost`.
        """
        target = self._return_target(request, request.query.get("redirect_url"))
        if not same_host(target, request.host):
            host = "localhost" if request.host.startswith("127.") else "127.0.0.1"
            here = request.url.with_host(host).with_query({"redirect_url": target})
            raise web.HTTPSeeOther(str(here))
        return self._page("sign_in.html", request, {"target": target, "signed_in": self._signed_in(request)})

    async def sign_in(self, request: web.Request) -> web.Response:
        """Set the cookies of the chosen persona and go back."""
        form = await self._form(request)
        target = self._return_target(request, form.get("redirect_url"))
        persona, membership = self._chosen(form)
        now = int(time.time())
        origin = f"http://{request.host.rpartition(':')[0]}:{self._place.ports.gateway}"
        response = web.Response(status=303, headers={"Location": target})
        token = self._mint.token(persona, membership, now=now, origin=origin)
        set_signed_in(response, self._place.cookie_suffix, token, now)
        return response

    async def sign_out(self, request: web.Request) -> web.Response:
        """Clear the session and show the start page."""
        await self._form(request)
        response = web.Response(status=303, headers={"Location": "/"})
        set_signed_out(response, self._place.cookie_suffix)
        return response

    async def show_token(self, request: web.Request) -> web.Response:
        """Mint a token and show it with commands that use it."""
        form = await self._form(request)
        persona, membership = self._chosen(form)
        token = self._mint.token(persona, membership, now=int(time.time()))
        context = {
            "persona": persona,
            "organization": membership.organization.name if membership else None,
            "token": token,
            "examples": examples(self._place, persona.name, token),
        }
        return self._page("token.html", request, context)

    async def mint_token(self, request: web.Request) -> web.Response:
        """`POST /v1/dev/tokens {"persona", "organization"?}` → 201 `{"token", "expiresAt", …}`."""
        self._refuse_foreign(request)
        try:
            asked = orjson.loads(await request.read())
        except orjson.JSONDecodeError:
            _refuse("write a JSON object with a persona")
        if not isinstance(asked, dict) or not all(isinstance(word, str) for word in asked.values()):
            _refuse("write a JSON object with texts")
        persona, membership = self._chosen(asked)
        now = int(time.time())
        answer = {
            "token": self._mint.token(persona, membership, now=now),
            "expiresAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + TOKEN_LIFE_S)),
            "persona": persona.name,
            "organization": membership.organization.slug if membership else None,
        }
        return web.Response(status=201, body=orjson.dumps(answer) + b"\n", content_type="application/json")

    def _page(self, template: str, request: web.Request, context: Mapping[str, Any]) -> web.Response:
        shared = {"place": self._place, "personas": PERSONAS}
        return aiohttp_jinja2.render_template(template, request, shared | dict(context))

    def _return_target(self, request: web.Request, asked: str | None) -> str:
        """Take where to return to; the gateway under the same host name when nothing was asked."""
        if asked is None:
            return f"http://{request.host.rpartition(':')[0]}:{self._place.ports.gateway}/"
        if not is_safe_return(asked, self._returns):
            _refuse("redirect_url must be a page of this gateway")
        return asked

    def _signed_in(self, request: web.Request) -> Persona | None:
        """Tell who the browser's cookie says it is; for display alone, so that a bad cookie is nobody."""
        token = request.cookies.get(f"__session_{self._place.cookie_suffix}", "")
        try:
            claims = jwt.decode(
                token,
                self._mint.key.private.public_key(),
                algorithms=["RS256"],
                issuer=self._mint.issuer,
                options={"require": ["exp", "sub", "iss"]},
            )
        except jwt.InvalidTokenError:
            return None
        return find_user(claims["sub"])

    def _chosen(self, form: Mapping[str, str]) -> tuple[Persona, Membership | None]:
        try:
            persona = find_persona(form.get("persona", ""))
            return persona, find_membership(persona, form.get("organization"))
        except PersonaUnknown as error:
            _refuse(str(error))

    async def _form(self, request: web.Request) -> Mapping[str, str]:
        self._refuse_foreign(request)
        return {name: value for name, value in (await request.post()).items() if isinstance(value, str)}

    def _refuse_foreign(self, request: web.Request) -> None:
        """Let no other site sign this browser in or mint."""
        if not is_own_post(request.headers.get("Origin"), request.host):
            raise web.HTTPForbidden(text="this form belongs to another site\n")


def _refuse(sentence: str) -> NoReturn:
    raise web.HTTPBadRequest(text=f"{sentence}\n")
