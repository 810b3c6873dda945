"""A person at a real browser with `gateway dev`: signing in, reaching the upstream, and what other sites may not do."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.dev.dev_process import DevProcess, get, start_dev
from tests.support.browser import Browser, chromium
from tests.support.pages import foreign_site
from tests.support.programs import until

READ = "return fetch(...arguments).then(async r => [r.status, await r.text()], error => [0, String(error)])"
SUBMIT = """
const form = document.createElement("form");
Object.assign(form, {method: "post", action: arguments[0]});
document.body.append(form);
form.submit();
"""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where everything is; `elsewhere` is the port of a site that has nothing to do with us."""

    dev: DevProcess
    browser: Browser
    elsewhere: int

    @property
    def gateway(self) -> str:
        return self.dev.address("Gateway")

    @property
    def issuer(self) -> str:
        return self.dev.address("Issuer")

    def sign_in(self, persona: str = "alice") -> None:
        """Sign in as a person does, beginning at the start page."""
        self.browser.open(f"{self.issuer}/")
        self.browser.follow("Sign in")
        self.browser.submit(f"form:has([name=persona][value={persona}]) button")

    def token(self, persona: str = "alice") -> str:
        minted = get(f"{self.issuer}/v1/dev/tokens", {}, json.dumps({"persona": persona}).encode())
        return str(minted.json()["token"])

    def refusals(self, reason: str) -> int:
        """How often the gateway says it refused a credential for this reason."""
        metrics = get(f"{self.dev.address('Admin')}/metrics", {}).body
        counts = re.findall(rf'^gateway_auth_decisions_total{{[^}}]*reason="{reason}"[^}}]*}} (\S+)$', metrics, re.M)
        return int(sum(map(float, counts)))

    def at_localhost(self, url: str) -> str:
        return url.replace("127.0.0.1", "localhost")

    def on_an_own_page(self, origin: str | None = None) -> None:
        """Be on a page of the gateway's origin whose scripts no policy binds."""
        self.browser.open(f"{origin or self.gateway}/public/size")


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    dev = start_dev(tmp_path_factory.mktemp("dev") / "data")
    try:
        with foreign_site() as elsewhere, chromium(tmp_path_factory.mktemp("browser")) as browser:
            yield Surroundings(dev, browser, elsewhere)
    finally:
        dev.end()


@pytest.fixture
def here(surroundings: Surroundings) -> Surroundings:
    """A browser that nobody has signed in with."""
    surroundings.browser.forget()
    return surroundings


def test_person_signs_in_and_arrives_at_the_gateway(here: Surroundings) -> None:
    here.sign_in()

    assert here.browser.url == f"{here.gateway}/"
    assert here.browser.table()["x-actor-id"].startswith("usr_")
    assert here.browser.console() == []


def test_current_user_is_the_persona_who_signed_in(here: Surroundings) -> None:
    here.sign_in("carol")
    here.browser.open(f"{here.gateway}/users/current")

    user = here.browser.json()
    assert (user["name"], user["email"]) == ("Carol Clark", "carol@acme.example")
    assert here.browser.console() == []


def test_upstream_sees_the_actor_and_no_cookie_but_the_application_s_own(here: Surroundings) -> None:
    here.sign_in("dave")
    here.browser.run("document.cookie = 'theme=dark; path=/'; document.cookie = 'X-Actor-Id=usr_mine; path=/'")
    here.browser.open(f"{here.gateway}/hello?from=browser")

    seen = here.browser.table()
    assert here.browser.text("h1") == "GET /hello?from=browser"
    assert seen["x-actor-id"].startswith("usr_")
    assert seen["x-actor-auth"] == "session"
    assert seen["x-organization-role"] == "member"
    assert seen["x-organization-permissions"] == "org:reports:read"
    assert sorted(seen["cookie"].split("; ")) == ["X-Actor-Id=usr_mine", "theme=dark"]
    assert here.browser.console() == []


def test_page_of_a_public_route_shows_nobody_even_to_who_is_signed_in(here: Surroundings) -> None:
    here.sign_in()
    here.browser.open(f"{here.gateway}/public/hello")

    seen = here.browser.table()
    assert seen["x-actor-id"].strip("()") == "empty"
    assert "cookie" not in seen
    assert here.browser.console() == []


def test_localhost_is_as_good_a_name_as_the_address(here: Surroundings) -> None:
    here.browser.open(here.at_localhost(f"{here.issuer}/"))
    here.browser.follow("Sign in")
    here.browser.submit("form:has([name=persona][value=bob]) button")

    assert here.browser.url == here.at_localhost(f"{here.gateway}/")
    assert here.browser.table()["x-actor-id"].startswith("usr_")
    assert here.browser.console() == []


def test_nobody_gets_a_page_whose_link_leads_to_sign_in_and_back(here: Surroundings) -> None:
    here.browser.open(f"{here.gateway}/hello?x=1&y=%C3%A9")

    assert here.browser.text("h1") == "401 Unauthorized"
    # Chromium notes every refused page on the console; that is all there may be.
    assert [line.rpartition("status of ")[2] for line in here.browser.console()] == ["401 (Unauthorized)"]

    here.browser.follow("Sign in")
    here.browser.submit("form:has([name=persona][value=carol]) button")

    assert here.browser.url == f"{here.gateway}/hello?x=1&y=%C3%A9"
    assert here.browser.text("h1") == "GET /hello?x=1&y=%C3%A9"
    assert here.browser.console() == []


def test_signing_out_makes_the_next_page_ask_again(here: Surroundings) -> None:
    here.sign_in()
    here.browser.open(f"{here.issuer}/")
    here.browser.submit("form[action='/sign-out'] button")
    forms = here.browser.texts("form[action='/sign-out']")
    here.browser.open(f"{here.gateway}/users/current")

    assert forms == []
    assert here.browser.text("h1") == "401 Unauthorized"


def test_pending_session_is_refused_on_a_page(here: Surroundings) -> None:
    here.sign_in("mallory")

    assert here.browser.text("h1") == "401 Unauthorized"
    assert here.browser.text("small").startswith("session_pending")


def test_script_of_the_gateway_s_own_origin_may_post_with_the_cookie(here: Surroundings) -> None:
    here.sign_in()
    here.on_an_own_page()
    status, body = here.browser.run(READ, "/hello", {"method": "POST", "body": "a=1"})

    seen = json.loads(body)
    assert status == 200
    assert (seen["method"], seen["body"]["text"]) == ("POST", "a=1")
    assert dict(seen["headers"])["X-Actor-Id"].startswith("usr_")


def test_s01_form_of_another_site_is_refused_though_the_browser_sends_the_cookie(here: Surroundings) -> None:
    here.sign_in()
    here.browser.open(f"http://127.0.0.1:{here.elsewhere}/")
    here.browser.leave(SUBMIT, f"{here.gateway}/hello")

    assert here.browser.text("h1") == "403 Forbidden"
    assert here.browser.text("small").startswith("cross_site")


def test_script_of_another_site_can_neither_act_nor_read(here: Surroundings) -> None:
    here.sign_in()
    here.browser.open(f"http://127.0.0.1:{here.elsewhere}/")
    before = here.refusals("origin_foreign")
    posting = {"method": "POST", "body": "a=1", "credentials": "include"}
    posted = here.browser.run(READ, f"{here.gateway}/hello", posting)
    read = here.browser.run(READ, f"{here.gateway}/users/current", {"credentials": "include"})

    assert posted == [0, "TypeError: Failed to fetch"]
    assert read == [0, "TypeError: Failed to fetch"]
    assert here.refusals("origin_foreign") == before + 1


def test_form_of_a_site_under_another_name_brings_no_cookie(here: Surroundings) -> None:
    here.sign_in()
    here.browser.open(f"http://localhost:{here.elsewhere}/")
    here.browser.leave(SUBMIT, f"{here.gateway}/hello")

    assert here.browser.text("h1") == "401 Unauthorized"


def test_script_of_an_allowed_origin_may_call_with_a_token_and_read(here: Surroundings) -> None:
    here.on_an_own_page(here.at_localhost(here.gateway))
    headers = {"Authorization": f"Bearer {here.token()}", "Content-Type": "application/json"}
    user = here.browser.run(READ, f"{here.gateway}/users/current", {"headers": headers})
    patched = here.browser.run(
        READ,
        f"{here.gateway}/users/current/settings",
        {"method": "PATCH", "headers": headers, "body": json.dumps({"theme": "dark"})},
    )

    assert (user[0], json.loads(user[1])["name"]) == (200, "Alice Adams")
    assert (patched[0], json.loads(patched[1])["theme"]) == (200, "dark")


def test_script_of_an_allowed_origin_can_read_why_it_was_refused(here: Surroundings) -> None:
    here.on_an_own_page(here.at_localhost(here.gateway))
    status, body = here.browser.run(
        "return fetch(...arguments).then(async r => [r.status, [await r.text(), r.headers.get('www-authenticate')]])",
        f"{here.gateway}/hello",
        {"headers": {"Authorization": f"Bearer {here.token()[:-9]}AAAAAAAAA"}},
    )

    document, challenge = body
    assert status == 401
    assert json.loads(document)["code"] == "invalid_token"
    assert 'error="invalid_token"' in challenge


def test_server_sent_events_arrive_in_a_page(here: Surroundings) -> None:
    here.sign_in()
    here.on_an_own_page()
    first = here.browser.run(
        """return new Promise((resolve, reject) => {
          const source = new EventSource("/hello/events?count=2");
          source.onmessage = message => { source.close(); resolve(message.data); };
          source.onerror = () => { source.close(); reject(new Error("no event")); };
        })"""
    )

    assert first == "event 0 of 2"


def test_every_page_of_ours_loads_without_a_word_on_the_console(here: Surroundings) -> None:
    here.sign_in("dave")
    for path in ("/", "/sign-in"):
        here.browser.open(f"{here.issuer}{path}")
    here.browser.open(f"{here.issuer}/")
    here.browser.submit("form[action='/tokens'] button")
    minted = here.browser.text("h1")

    assert minted == "A token for Alice Adams"
    assert here.browser.console() == []


def test_button_beside_a_command_copies_all_of_it(here: Surroundings) -> None:
    here.browser.grant(here.issuer, "clipboardReadWrite", "clipboardSanitizedWrite")
    here.browser.open(f"{here.issuer}/")
    here.browser.click("button.copy")
    until(lambda: here.browser.text("button.copy") == "Copied")
    copied = here.browser.run("return navigator.clipboard.readText()")

    assert copied == here.browser.texts("dd pre code")[0]
    assert copied.startswith("curl -sS -H 'Authorization: Bearer ")
    assert here.browser.console() == []
