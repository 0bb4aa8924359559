"""The table of families in docs/models.md. `PYTHONPATH=tests python -m support.providers.table` prints it."""

from __future__ import annotations

from collections.abc import Iterable

from support.providers.families import FAMILIES
from support.providers.server import Family

TRIED = "strict fake"
COLUMNS = (
    "family",
    "how it was tried",
    "chart from a CSV",
    "form on a local site",
    "60 calls, 16k window",
    "runner killed",
    "model changed",
    "what is known of it",
    "public threads",
)


def link_thread(thread: str) -> str:
    repository, _, number = thread.partition("#")
    return f"[{thread}](https://github.com/{repository}/issues/{number})"


def render_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def render_family(family: Family) -> str:
    """Every family is in every test, so each "yes" is a test that passes."""
    threads = ", ".join(map(link_thread, family.threads))
    name = f"{family.name} (`{family.model}`)"
    return render_row([name, TRIED, *["yes"] * 5, family.known, threads])


def render_table() -> str:
    lines = [render_row(COLUMNS), render_row("---" for _ in COLUMNS), *map(render_family, FAMILIES)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(render_table(), end="")
