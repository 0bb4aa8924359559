"""The documentation is true where a program can tell: paths, links, generated pages, the index of decisions."""

from __future__ import annotations

import re
from pathlib import Path

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
