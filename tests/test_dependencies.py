"""Every imported package is declared, and each lock file fits pyproject.toml. These tests need no network."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]

EXTRAS_OF = {
    "api/moorage_api": ("api",),
    "api/moorage_local": ("api", "embedded"),
    "crds": ("api",),
    "operator": ("operator",),
    "sandbox/moorage_sandbox": (),
    "sandbox/moorage_sandbox/client.py": ("api",),
    "sandbox/moorage_sandbox/gate": ("gate",),
    "sandbox/moorage_sandbox/host": ("gate",),
    "tests": ("dev",),
    "benchmarks": ("dev",),
    "docs": ("dev",),
}
"""Which extras are installed where the files of a folder run; the longest folder that fits a file counts."""

ALSO = {"crds": ("operator",)}
"""Folders whose files run in a second environment as well."""

LOCKS = {
    "tests/requirements.lock": EXTRAS["dev"],
    "api/requirements.lock": EXTRAS["api"],
    "operator/requirements.lock": EXTRAS["operator"],
    "sandbox/requirements.lock": EXTRAS["gate"],
    "sandbox/commands.lock": PYPROJECT["dependency-groups"]["commands"],
}

OWN = {path.name for folder in ("api", "crds", "operator", "sandbox") for path in (ROOT / folder).glob("moorage_*")}
OWN |= {path.stem for path in (ROOT / "tests").iterdir()} | {"benchmarks"}


def requirements(lines: list[str]) -> Iterator[Requirement]:
    """Each requirement of `lines`; an extra of this project stands for what is in it."""
    for line in lines:
        requirement = Requirement(line)
        if requirement.name == PROJECT["name"]:
            for extra in requirement.extras:
                yield from requirements(EXTRAS[extra])
        else:
            yield requirement


WITH_PYTHON_OF_THE_SANDBOX = {"sandbox/moorage_sandbox/box/files/shrink.py": {"PIL": "python3-pil"}}
"""Programs that the sandbox's own Python runs, and the Debian packages of what they import."""


def declared_packages(extras: tuple[str, ...]) -> set[str]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return {canonicalize_name(requirement.name) for requirement in requirements(lines)}


def python_files() -> list[Path]:
    return [
        path.relative_to(ROOT)
        for folder in ("api", "crds", "operator", "sandbox", "tests", "benchmarks", "docs")
        for path in (ROOT / folder).rglob("*.py")
    ]


def imports(path: Path) -> set[str]:
    """Top-level names of the packages of other projects that a file imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - OWN


def extras_of(path: Path, table: dict[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    found = [folder for folder in table if path.is_relative_to(folder)]
    return table[max(found, key=len)] if found else None


@pytest.mark.parametrize("table", [EXTRAS_OF, ALSO], ids=["first environment", "second environment"])
def test_every_imported_package_is_a_declared_dependency(table: dict[str, tuple[str, ...]]) -> None:
    distributions = packages_distributions()
    missing = {
        f"{path}: {name}"
        for path in python_files()
        if (extras := extras_of(path, table)) is not None
        for name in imports(path) - WITH_PYTHON_OF_THE_SANDBOX.get(str(path), {}).keys()
        if not {canonicalize_name(found) for found in distributions.get(name, [])} & declared_packages(extras)
    }
    assert missing == set()


def test_the_software_of_the_sandbox_has_what_its_programs_import() -> None:
    lines = (ROOT / "sandbox" / "software.txt").read_text().splitlines()
    software = {word for line in lines for word in line.partition("#")[0].split()}
    assert {package for packages in WITH_PYTHON_OF_THE_SANDBOX.values() for package in packages.values()} <= software


def pins(lock: str) -> dict[str, str]:
    """Version by name."""
    return dict(re.findall(r"^([a-z0-9.-]+)(?:\[[^]]*\])?==([^ \\]+)", (ROOT / lock).read_text(), re.MULTILINE))


def named_by_the_project(lock: str) -> set[str]:
    """What the lock file says pyproject.toml asks for: uv writes down who needs each package."""
    entries = re.split(r"^(?=[a-z0-9])", (ROOT / lock).read_text(), flags=re.MULTILINE)
    return {entry.partition("==")[0].partition("[")[0] for entry in entries if "pyproject.toml" in entry}


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_file_fits_pyproject(lock: str) -> None:
    """Otherwise run `make lock` and commit what it writes."""
    lines = [*([] if lock.endswith("commands.lock") else PROJECT["dependencies"]), *LOCKS[lock]]
    wanted = list(requirements(lines))
    pinned = pins(lock)
    unmet = [str(one) for one in wanted if not one.specifier.contains(pinned.get(canonicalize_name(one.name), "0"))]
    assert unmet == []
    assert named_by_the_project(lock) == {canonicalize_name(one.name) for one in wanted}


@pytest.mark.parametrize(
    "lock", [lock for lock in LOCKS if lock not in ("tests/requirements.lock", "sandbox/commands.lock")]
)
def test_images_install_the_versions_that_were_tested(lock: str) -> None:
    assert pins(lock).items() - pins("tests/requirements.lock").items() == set()


def test_every_package_of_ours_says_that_it_is_typed() -> None:
    packages = [ROOT / folder for folder in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
    assert {path.name for path in packages} == {name for name in OWN if name.startswith("moorage_")}
    assert [path.name for path in packages if not (path / "py.typed").exists()] == []
