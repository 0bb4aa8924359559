"""Names of the product: a class name stands in one module, so that a search finds one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent


def public_classes(path: Path) -> list[str]:
    """Classes at the top level of a module; a leading underscore makes one the module's own."""
    body = ast.parse(path.read_text()).body
    return [node.name for node in body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]


def test_a_class_name_stands_in_one_module_of_the_product() -> None:
    modules: dict[str, set[str]] = defaultdict(set)
    for folder in ("api", "crds", "operator", "sandbox"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in public_classes(path):
                modules[name].add(str(path.relative_to(ROOT)))
    assert {name: sorted(paths) for name, paths in modules.items() if len(paths) > 1} == {}
