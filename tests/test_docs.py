"""The documentation is true where a program can tell: paths, links, generated pages, the index of decisions."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from moorage_api.agent.toolsets import search, tools
from moorage_sandbox.protocol import SANDBOX_FUNCTIONS

ROOT = Path(__file__).parent.parent

FOLDERS = ("api", "benchmarks", "charts", "crds", "docs", "operator", "sandbox", "tests")
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
PLACEHOLDER = re.compile(r"…|<[a-z_]+>|\b[A-Z]{3,}\b")


def exists(path: str) -> bool:
    """`path` from the top, or from the folder that a package is in. A placeholder stands for any name."""
    pattern = PLACEHOLDER.sub("*", path.rstrip("/").partition("::")[0])
    folders = [ROOT] if path.startswith(FOLDERS) else [ROOT / "api", ROOT / "crds", ROOT / "operator", ROOT / "sandbox"]
    return any(any(folder.glob(pattern)) for folder in folders)


def test_every_path_in_the_documentation_exists() -> None:
    """A path is a code span that begins with a folder of the top level, or with a package of ours and a slash."""
    spans = re.compile(rf"`((?:(?:{'|'.join(FOLDERS)})|moorage_[a-z]+)/[^\s`]*)`")
    missing = [
        f"{page.relative_to(ROOT)}: {path}"
        for page in PAGES
        for path in spans.findall(page.read_text())
        if not exists(path)
    ]
    assert missing == []


def test_every_link_in_the_documentation_leads_somewhere() -> None:
    link = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
    missing = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in link.findall(page.read_text())
        if not (page.parent / target).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("page", ["settings", "chart_values", "authorization"])
def test_generated_pages_are_current(page: str) -> None:
    """Otherwise run `make docs` and commit what it writes."""
    made = runpy.run_path(str(ROOT / "docs" / f"{page}.py"))
    assert made["TARGET"].read_text() == made["page"]()


def test_every_variable_that_the_product_names_is_in_the_list_of_settings() -> None:
    described = (ROOT / "docs" / "settings.md").read_text()
    sources = [path for folder in ("api", "operator", "sandbox", "crds") for path in (ROOT / folder).rglob("*.py")]
    named = {name for path in sources for name in re.findall(r"MOORAGE_[A-Z0-9_]*[A-Z0-9]\b", path.read_text())}
    assert {name for name in named if name not in described} == set()


def test_every_setting_has_a_sentence() -> None:
    cells = [line.split(" | ") for line in (ROOT / "docs" / "settings.md").read_text().splitlines()]
    rows = [cell for cell in cells if cell[0].startswith(("| `MOORAGE_", "| `--"))]
    assert [row[0] for row in rows if not re.search(r"^[A-Z].{12,}\.(?:\)| \(or \w+\))? \|$", row[-1])] == []


def test_the_page_on_remote_tools_has_the_number_of_the_agents_own_functions() -> None:
    page = (ROOT / "docs" / "remote-tools.md").read_text()
    own = {*SANDBOX_FUNCTIONS, search.SEARCH.name, *(function.name for function in tools.OWN)}
    assert re.findall(r"The agent's own\s+(\d+)", page) == [str(len(own))]


def test_every_decision_has_a_title_a_date_and_a_line_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    rows = []
    for page in sorted(folder.glob("0*.md")):
        found = re.match(r"# (\d+)\. (.+)\n\nDate: (\d{4}-\d\d-\d\d)\. Status: [^.]+\.", page.read_text())
        assert found, f"{page.name} does not begin with a number, a title, a date and a status"
        number, title, date = found.groups()
        assert page.name.startswith(f"{int(number):04}-")
        rows.append(f"| [{number}]({page.name}) | {title} | {date} |")
    assert (folder / "README.md").read_text().endswith("\n".join(["|---|---|---|", *rows, ""]))
