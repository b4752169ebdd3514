"""What the documents name is there: files, functions, links, steps, words."""

import ast
import re
from pathlib import Path

import pytest

from gateway.domain import faults
from gateway.domain.faults import FaultKind

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "config").rglob("*.md")]
)
PLACE = re.compile(r"`((?:gateway|lua|config|docs|tests)/[\w./-]*\.\w+)(?::([A-Za-z_][\w.]*))?`")
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)(#[^)]*)?\)")
REQUEST_PATH = ROOT / "docs" / "request-path.md"
VOCABULARY = ROOT / "docs" / "vocabulary.md"


def named(text: str) -> list[tuple[str, str]]:
    """Every (path, dotted name or "") that a page puts into backticks."""
    return [(found[1], found[2] or "") for found in PLACE.finditer(text)]


def defines(source: str, dotted: str) -> bool:
    """Whether a module defines a name: a function, a class, an assignment, and what stands directly inside a class."""
    body: list[ast.stmt] = ast.parse(source).body
    for part in dotted.split("."):
        found = next((node for node in body if part in _names(node)), None)
        if found is None:
            return False
        body = found.body if isinstance(found, ast.ClassDef) else []
    return True


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_and_name_is_there(page: Path) -> None:
    """A stranger who follows a page to a file or a function finds it; a rename that forgets the page fails here."""
    missing = [
        f"{path}:{name}"
        for path, name in named(page.read_text(encoding="utf-8"))
        if not (ROOT / path).is_file() or (name and not defines((ROOT / path).read_text(encoding="utf-8"), name))
    ]

    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """A dead link in a page is the first thing that a reader learns about how it is kept."""
    targets = [found[1] for found in LINK.finditer(page.read_text(encoding="utf-8"))]

    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_plain_text(page: Path) -> None:
    """Pages are read in terminals too: no line above 160 characters outside tables and examples, no trailing space."""
    lines = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL).splitlines()

    assert [line for line in lines if len(line) > 160 and not line.startswith("|")] == []
    assert [line for line in lines if line != line.rstrip()] == []


def test_a_missing_name_is_found_out() -> None:
    """The check above can fail: it knows a method from its absence, and a module's name from a class's."""
    source = (ROOT / "gateway" / "edge" / "proxy.py").read_text(encoding="utf-8")

    assert defines(source, "Proxy._serve")
    assert not defines(source, "Proxy.serve")
    assert not defines(source, "_serve")
    assert named("`gateway/edge/gone.py:Gone.x` and `lua/reserve.lua`") == [
        ("gateway/edge/gone.py", "Gone.x"),
        ("lua/reserve.lua", ""),
    ]


def test_the_request_path_visits_every_file_of_the_edge() -> None:
    """A new file on the client's side of HTTP is a new stop that readers have to be told of."""
    told = {path for path, _ in named(REQUEST_PATH.read_text(encoding="utf-8"))}
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "gateway" / "edge").glob("*.py")}

    assert files - told == {"gateway/edge/__init__.py"}


def test_the_request_path_keeps_the_order_of_the_code() -> None:
    """The page tells the steps in the order in which `Proxy._serve` takes them, and leaves none out."""
    tree = ast.parse((ROOT / "gateway" / "edge" / "proxy.py").read_text(encoding="utf-8"))
    serve = next(node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef) and node.name == "_serve")
    calls = [node.func for node in ast.walk(serve) if isinstance(node, ast.Call)]
    steps = [call for call in calls if isinstance(call, ast.Attribute)]
    taken = [call.attr for call in sorted(steps, key=lambda call: (call.lineno, call.col_offset))]
    text = REQUEST_PATH.read_text(encoding="utf-8").partition("## The request")[2]
    places = [text.find(f".{step}`") for step in taken]

    assert taken == ["_route", "serve", "identify", "_read", "_estimate", "admit", "pace", "_forward", "relay"]
    assert -1 not in places
    assert places == sorted(places)


def test_the_request_path_answers_with_faults_that_exist() -> None:
    """A code in the column "may answer" is one that a caller can meet and look up."""
    rows = [
        line.split("|")
        for line in REQUEST_PATH.read_text(encoding="utf-8").splitlines()
        if re.match(r"\| \d+ \|", line)
    ]
    told = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row[5])}

    assert told
    assert told <= {kind.code for kind in vars(faults).values() if isinstance(kind, FaultKind)}


def test_every_word_has_its_place() -> None:
    """Each row of the vocabulary says where its word is defined, and no word is defined twice."""
    rows = [line.split("|") for line in VOCABULARY.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    words = [row[1].strip() for row in rows[2:]]

    assert len(words) == len(set(words)) > 30
    assert [row[1].strip() for row in rows[2:] if not named(row[3])] == []
