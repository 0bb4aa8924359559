"""The sandbox's modules depend on each other in one direction."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import moorage_sandbox

PACKAGE = Path(moorage_sandbox.__file__).parent
FILES = {
    ".".join(["moorage_sandbox", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imports_of(module: str) -> Iterator[str]:
    """The modules of this package that `module` imports, anywhere in its file."""
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            found = name if name in FILES else name.rpartition(".")[0]
            if found in FILES:
                yield found


def folder_of(module: str) -> str:
    return str(FILES[module].parent.relative_to(PACKAGE))


def file_graph() -> dict[str, set[str]]:
    return {module: set(imports_of(module)) - {module} for module in FILES}


def folder_graph() -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for module, imported in file_graph().items():
        graph.setdefault(folder_of(module), set()).update(folder_of(one) for one in imported)
    return {folder: imported - {folder} for folder, imported in graph.items()}


@pytest.mark.parametrize("graph", [file_graph, folder_graph])
def test_no_files_and_no_folders_import_each_other_in_a_circle(graph: object) -> None:
    assert callable(graph)
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_graph_sees_imports() -> None:
    """Without this, a mistake in `imports_of` would make the other tests pass forever."""
    assert "moorage_sandbox.box.box" in file_graph()["moorage_sandbox.box.server"]
    assert "box/shared" in folder_graph()["box/files"]
