"""The documents say what is so: what they list is compared with the code, and what they point at exists."""

import ast
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.load import load, load_settings
from gateway.api.openapi import openapi_document
from gateway.dev.folder import Ports
from gateway.dev.place import Place, examples
from gateway.dev.printed import welcome
from gateway.edge import fields
from gateway.errors import CredentialMissing
from gateway.problems import INTERNAL, INTERNAL_CODE, TABLE, answer_for
from provisioning.audit_actions import ACTIONS
from tests.support.gateway import gateway_under_test, mint_token
from tests.support.settings_files import MASTER_KEY, write
from tests.support.wire import bearer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROBLEMS = (ROOT / "docs/problems.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
THREATS = (ROOT / "docs/threat-model.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
DECISIONS = sorted((ROOT / "docs/decisions").glob("*.md"))
SHORTENED_TOKEN = "eyJhbGciOiJSUzI1NiIsImNhdCI…"


def after(text: str, mark: str) -> str:
    """Give the text behind a mark that occurs once."""
    before, found, rest = text.partition(mark)
    assert found, mark
    assert mark not in before + rest
    return rest


def rows(text: str) -> list[list[str]]:
    """Give the cells of the first table in a text, its head left out."""
    lines = itertools.dropwhile(lambda line: not line.startswith("|"), text.splitlines())
    table = list(itertools.takewhile(lambda line: line.startswith("|"), lines))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def every_row(text: str) -> Iterator[list[str]]:
    """Give the cells of all rows of all tables in a text, heads and rulers among them."""
    return ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|")


def words(cell: str) -> list[str]:
    """Give what stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def fenced(text: str) -> str:
    """Give the first fenced block of a text."""
    return text.partition("```")[2].partition("\n")[2].partition("```")[0]


def statuses() -> dict[str, int]:
    return {error.code: row.status.value for error, row in TABLE.items()} | {INTERNAL_CODE: INTERNAL.status.value}


def anchors(path: Path) -> set[str]:
    """Give the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        place = path if not file else path.parent / file

        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


def test_smallest_settings_of_the_readme_are_enough_to_serve(tmp_path: Path) -> None:
    path = write(tmp_path, fenced(after(README, "<!-- smallest-settings:")))
    environ = {"GW_SECRETS__MASTER_KEY": MASTER_KEY}

    settings = load_settings(path, environ, for_serve=True)
    warned = {warning.key for warning in load(path, environ).warnings}

    assert str(settings.listen) == "127.0.0.1:8080"
    assert warned == {"clerk.authorized_parties"}


def test_readme_shows_what_make_dev_prints() -> None:
    place = Place(Ports(8080, 8181, 8182), "http://127.0.0.1:9464", "http://127.0.0.1:8182")
    data_dir = "/home/you/.local/share/actorgate/dev"
    printed = [line for line in welcome(place, examples(place, "alice", SHORTENED_TOKEN), data_dir) if line]
    beginning, _, end = fenced(after(README, "and prints")).partition("…\nCtrl-C")

    shown = [line for line in beginning.splitlines() if line]

    assert shown == printed[: len(shown)]
    assert f"Ctrl-C{end}".strip() == printed[-1]


def test_readme_lists_every_problem_under_its_status() -> None:
    listed = {code: int(status) for status, codes in rows(after(README, "<!-- problems:")) for code in words(codes)}

    assert listed == statuses()


def test_every_problem_is_explained_once_with_its_status() -> None:
    explained = [(words(row[0])[0], int(row[1])) for row in every_row(PROBLEMS) if words(row[0])]

    assert sorted(explained) == sorted(statuses().items())


def test_problems_that_close_the_connection_say_so() -> None:
    closing = {error.code for error, row in TABLE.items() if row.close} | {INTERNAL_CODE}

    assert {words(row[0])[0] for row in every_row(PROBLEMS) if "(closes)" in row[2]} == closing


@pytest.mark.parametrize("text", [README, PROBLEMS])
def test_shown_problem_is_what_is_answered(text: str) -> None:
    answer = answer_for(CredentialMissing(), "25bd444ccde8f1cb88fa6f44cfe74d54")

    assert answer.body.decode() in text


def test_readme_lists_the_identity_header_set_in_its_order() -> None:
    listed = [name for row in rows(after(README, "## What your backend receives")) for name in words(row[0])]
    identity = [name.decode() for name in fields.IDENTITY_NAMES]

    assert listed[: len(identity)] == identity
    assert listed[len(identity)] == "X-Request-Id"


def test_readme_lists_every_name_a_client_cannot_send() -> None:
    paragraph = after(README, "**Dropped from every client**").partition("per-hop")[0]
    listed = {fields.folded(name.encode()) for name in words(paragraph) if name not in {"_", "."}}
    dropped = {prefix + b"-" for prefix in fields._DROPPED_PREFIXES} | fields._DROPPED  # `*` folds to `-`

    assert listed == dropped


def test_readme_lists_every_own_endpoint() -> None:
    listed = {tuple(words(row[0])[0].split(" ")) for row in rows(after(README, "## Own endpoints"))}
    paths: dict[str, dict[str, object]] = openapi_document("")["paths"]
    published = {(method.upper(), path) for path, methods in paths.items() for method in methods}

    assert listed == published | {("GET", "/openapi.json")}


async def test_readme_lists_every_metric_with_its_labels(database_url: str) -> None:
    listed = {words(row[0])[0]: set(words(row[1])) for row in rows(after(README, "<!-- metrics:"))}
    async with gateway_under_test(database_url) as gateway:
        await gateway.get("/x", bearer(mint_token()))
        shown = (await gateway.metrics()).splitlines()

    families = {line.split(" ")[2] for line in shown if line.startswith("# HELP ")}
    samples = (re.fullmatch(r"(\w+?)(?:_bucket|_count|_sum)?(?:\{(.*)\})? \S+", line) for line in shown)
    labels = {match[1]: set(re.findall(r'(\w+)="', match[2] or "")) - {"le"} for match in samples if match is not None}
    assert set(listed) == families
    assert labels.items() <= listed.items()


def test_audit_document_lists_every_action_with_its_meaning() -> None:
    text = (ROOT / "docs/audit.md").read_text(encoding="utf-8")

    assert {words(row[0])[0]: row[1] for row in rows(after(text, "<!-- actions:"))} == ACTIONS


def test_every_action_of_the_code_is_listed_and_every_listed_one_is_of_the_code() -> None:
    written = {
        f"api_token.{word}" if function.id == "told" else word
        for room in ("gateway", "provisioning")
        for path in (ROOT / room).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(function := call.func, ast.Name)
        if function.id in {"Event", "told"}
        for word in words_in(call.args[0])
    }
    # `_with_events` of the reaper, `Login.event` and what webhooks tell pass the word on.
    passed = {"api_token.expired", "api_token.secret_erased", "user.login", "user.impersonated"}
    passed |= {"user.banned", "user.unbanned", "membership.created", "membership.role_changed"}

    assert written | passed == set(ACTIONS)


def words_in(argument: ast.expr) -> list[str]:
    return [argument.value] if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else []


def test_map_covers_every_module_once_and_names_nothing_else() -> None:
    named = [path for row in rows(after(ARCHITECTURE, "<!-- map:")) for path in words(row[1])]
    modules = [
        path.relative_to(ROOT).as_posix()
        for room in ("gateway", "provisioning", "config")
        for path in (ROOT / room).rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and path.name not in {"py.typed", "compiled.json"}
        and path.suffix != ".so"  # what was compiled stands beside its source
        and path not in {ROOT / "gateway/__init__.py", ROOT / "provisioning/__init__.py"}
    ]

    covered = Counter({module: sum(is_within(module, path) for path in named) for module in modules})

    assert [path for path in named if not (ROOT / path).exists()] == []
    assert {module: count for module, count in covered.items() if count != 1} == {}


def is_within(module: str, path: str) -> bool:
    return module.startswith(path) if path.endswith("/") else module == path


@pytest.mark.parametrize(
    "path", [path for path in DOCUMENTS if path.name != "CHANGELOG.md"], ids=lambda path: path.name
)
def test_named_files_exist(path: Path) -> None:
    named = re.findall(r"`((?:gateway|provisioning|config|tests|docs)/[\w/.]*)`", path.read_text(encoding="utf-8"))

    assert [name for name in named if not (ROOT / name).exists()] == []


def test_cases_the_threat_model_names_are_tests() -> None:
    shown = " ".join(row[3] for row in every_row(THREATS) if len(row) > 3)
    ranges = re.findall(r"([A-Z])(\d\d)(?:–[A-Z](\d\d))?", shown)
    cases = {
        f"{letter}{number:02}".lower()
        for letter, first, last in ranges
        for number in range(int(first), int(last or first) + 1)
    }
    tests = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    proven = {case for text in tests for name in re.findall(r"def test_(\w+)", text) for case in name.split("_")}

    assert len(cases) > 50
    assert cases - proven == set()


def test_glossary_is_in_order_and_says_each_word_once() -> None:
    glossary = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    entries = [re.sub(r"[^a-z ]", "", row[0].lower()) for row in rows(glossary)]

    assert entries == sorted(set(entries))


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_decision_is_short_and_says_what_was_rejected(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert text.startswith(f"# {path.stem[:3]} — ")
    assert all(f"**{part}.**" in text for part in ("Context", "Choice", "Rejected"))
    assert len(text.splitlines()) <= 50


def test_decisions_are_numbered_without_gaps() -> None:
    assert [int(path.stem[:3]) for path in DECISIONS] == list(range(1, len(DECISIONS) + 1))
