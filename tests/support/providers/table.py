"""The table of families in docs/models.md. `PYTHONPATH=tests python -m support.providers.table` prints it."""

from __future__ import annotations

from collections.abc import Iterable

from support.providers.families import FAMILIES, PASSING

TRIED = "two tasks of one session against a strict fake"


def link_thread(thread: str) -> str:
    repository, _, number = thread.partition("#")
    return f"[{thread}](https://github.com/{repository}/issues/{number})"


def render_rows() -> Iterable[str]:
    yield "| family | works | how it was tried | what is known of it | public threads |"
    yield "|---|---|---|---|---|"
    for family in FAMILIES:
        works = "yes" if family in PASSING else "not yet"
        threads = ", ".join(map(link_thread, family.threads))
        yield f"| {family.name} (`{family.model}`) | {works} | {TRIED} | {family.known} | {threads} |"


def render_table() -> str:
    return "\n".join(render_rows()) + "\n"


if __name__ == "__main__":
    print(render_table(), end="")
