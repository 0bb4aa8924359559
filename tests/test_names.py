"""Names: a class name stands in one module of the product or the tests, and file names differ by more than a suffix.

So a search finds one thing, and a reader who knows a name does not open the wrong file.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PRODUCT = ("api", "crds", "operator", "sandbox")

SUFFIXES = ("s", "es", "r", "er", "ers", "d", "ed", "ing", "or", "ion", "ment")

FEATURE_FILES = {"models", "repository", "router", "schemas", "service"}
"""Every feature of the api has files of these names, so a reader expects them."""


def public_classes(path: Path) -> list[str]:
    """Classes at the top level of a module; a leading underscore makes one the module's own."""
    body = ast.parse(path.read_text()).body
    return [node.name for node in body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]


@pytest.mark.parametrize("folders", [PRODUCT, ("tests",)], ids="-".join)
def test_a_class_name_stands_in_one_module(folders: tuple[str, ...]) -> None:
    modules: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for name in public_classes(path):
                modules[name].add(str(path.relative_to(ROOT)))
    assert {name: sorted(paths) for name, paths in modules.items() if len(paths) > 1} == {}


def longer_forms(name: str) -> Iterator[str]:
    """The names that differ from `name` by a suffix alone, such as launcher, launching and launched of launch."""
    yield from (f"{name}{suffix}" for suffix in SUFFIXES)
    if name.endswith("y"):
        yield f"{name[:-1]}ies"
    if name.endswith("e"):
        yield from (f"{name[:-1]}{suffix}" for suffix in ("ing", "or", "ion"))


def file_names(*folders: str) -> dict[str, list[str]]:
    """The paths of each file name, without the files that every feature has."""
    paths: dict[str, list[str]] = defaultdict(list)
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not path.stem.startswith("__") and path.stem not in FEATURE_FILES and path.parent.name != "versions":
                paths[path.stem].append(str(path.relative_to(ROOT)))
    return paths


def pairs_by_suffix(paths: dict[str, list[str]]) -> list[tuple[list[str], list[str]]]:
    return [(paths[name], paths[longer]) for name in paths for longer in longer_forms(name) if longer in paths]


@pytest.mark.parametrize("folders", [PRODUCT, ("tests",), ("benchmarks",)], ids="-".join)
def test_file_names_do_not_differ_by_a_suffix_alone(folders: tuple[str, ...]) -> None:
    assert pairs_by_suffix(file_names(*folders)) == []


@pytest.mark.parametrize(
    ("name", "longer"),
    [
        ("client", "clients"),
        ("launch", "launcher"),
        ("window", "windows"),
        ("process", "processes"),
        ("policy", "policies"),
        ("route", "router"),
        ("fence", "fencing"),
        ("confine", "confinement"),
    ],
)
def test_a_pair_that_differs_by_a_suffix_is_found(name: str, longer: str) -> None:
    assert pairs_by_suffix({name: ["a"], longer: ["b"]}) == [(["a"], ["b"])]


def constants(path: Path) -> Iterator[tuple[str, str]]:
    """The names and values, as code, of the upper-case constants at the top level of a module."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and target.id.isupper():
                yield target.id, ast.unparse(node.value)


TIED_CONSTANTS = {"HOME", "MAX_SIDE"}
"""The agent imports nothing of the sandbox, and shrink.py nothing of ours. test_shared_names.py compares the places."""


def test_a_constant_is_declared_in_one_package_of_the_product() -> None:
    """The same name and value in two packages are one truth in two places.

    Timeouts may be equal by chance, and a name of one letter is a type variable.
    """
    packages: dict[tuple[str, str], set[str]] = defaultdict(set)
    for folder in PRODUCT:
        for path in (ROOT / folder).rglob("*.py"):
            for name, value in constants(path):
                if len(name) > 1 and not name.endswith("_SECONDS") and name not in TIED_CONSTANTS:
                    packages[name, value].add(path.relative_to(ROOT / folder).parts[0])
    assert {name: sorted(where) for name, where in packages.items() if len(where) > 1} == {}


VAGUE_NAMES = {
    *("done", "found", "given", "heard", "kept", "known", "made", "moved", "said", "seen", "shown", "told"),
    *("do", "give", "go", "it", "one", "existing", "failure", "stuff", "thing"),
}
"""They do not say what a function returns or does. `to_item`, `find_shell` and `describe_failure` do."""


@pytest.mark.parametrize("folder", [*PRODUCT, "tests", "benchmarks"])
def test_functions_say_what_they_return_or_do(folder: str) -> None:
    vague = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.strip("_") in VAGUE_NAMES
    ]
    assert vague == []
