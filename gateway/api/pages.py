"""Pages for people: the refusals of `problems.py` as HTML."""

from urllib.parse import quote

import jinja2

from gateway.credentials.websocket import names_issuer, without_token_in_url
from gateway.problems import PageRenderer, Row


class Pages:
    """Renders refusals for browsers."""

    def __init__(self, public_url: str, sign_in_url: str | None) -> None:
        """Read the template; reads files, so not on the event loop."""
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("gateway", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
        )
        self._template = environment.get_template("problem.html")
        self._issuer = public_url
        self._public_url = public_url.rstrip("/")
        self._sign_in_url = sign_in_url

    def renderer(self, target: bytes) -> PageRenderer:
        """Make the renderer for one request.

        Args:
            target: Validated origin-form target to come back to after signing in; empty when there is none.
        """

        def render(row: Row, code: str, request_id: str) -> bytes:
            sign_in = self._sign_in_link(target) if row.status == 401 else None
            return self._template.render(row=row, code=code, request_id=request_id, sign_in=sign_in).encode()

        return render

    def _sign_in_link(self, target: bytes) -> str | None:
        if self._sign_in_url is None:
            return None
        # Another party's page gets this address to come back to: no token of ours goes along.
        target = without_token_in_url(target, lambda token: names_issuer(token, self._issuer))
        back = quote(self._public_url + target.decode("latin-1"), safe="")
        return f"{self._sign_in_url}{'&' if '?' in self._sign_in_url else '?'}redirect_url={back}"
