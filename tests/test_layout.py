"""Rules of the layout whose violations would be noticed late, or only in an image."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import moorage_api
import moorage_common
import moorage_crds
import moorage_kube
import moorage_local
import moorage_operator
import moorage_sandbox
from moorage_api.errors import DomainError
from moorage_api.http.errors import STATUS_BY_ERROR

ROOT = Path(__file__).parent.parent

FOLDERS = {"api", "benchmarks", "charts", "crds", "docs", "operator", "sandbox", "tests"}
FILES = {
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "pyproject.toml",
    "skaffold.yaml",
}

# Imports the modules in its arguments. It fails if one of them opens a socket, starts a process or reads our settings.
IMPORT_EVERYTHING = """
import importlib, os, socket, subprocess, sys

class Untouched(dict):
    def __getitem__(self, name):
        if str(name).startswith("MOORAGE_"):
            raise AssertionError(f"{name} is read at import")
        return super().__getitem__(name)
    def get(self, name, default=None):
        return self[name] if name in self else default
    def __contains__(self, name):
        if str(name).startswith("MOORAGE_"):
            raise AssertionError(f"{name} is read at import")
        return super().__contains__(name)

def refuse(event, arguments):
    if event in ("socket.connect", "socket.bind", "subprocess.Popen", "os.fork", "os.exec", "os.posix_spawn"):
        raise AssertionError(f"{event} at import: {arguments}")

os.environ = Untouched(os.environ)
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def modules() -> list[str]:
    """The names of our modules, without `__main__`, which is run, and Alembic's files, which Alembic runs."""
    return [
        module.name
        for package in (
            moorage_api,
            moorage_common,
            moorage_crds,
            moorage_kube,
            moorage_local,
            moorage_operator,
            moorage_sandbox,
        )
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not module.name.endswith("__main__") and ".migrations." not in module.name
    ]


def tracked_files() -> list[Path]:
    reply = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [Path(line) for line in reply.stdout.splitlines() if (ROOT / line).exists()]


def test_source_folders_and_tests_have_no_init_file() -> None:
    """An `operator/__init__.py` would hide the standard library's module, and one in `api/` makes a second copy."""
    markers = {path for path in tracked_files() if path.name == "__init__.py"}
    sources = {Path(folder) for folder in ("api", "operator", "sandbox", "crds")}
    assert [path for path in markers if path.parts[0] == "tests" or path.parent in sources] == []


def test_the_top_level_holds_what_is_written_down() -> None:
    files = [path for path in tracked_files() if not path.parts[0].startswith(".")]
    assert {path.parts[0] for path in files if len(path.parts) > 1} - FOLDERS == set()
    assert {path.name for path in files if len(path.parts) == 1} - FILES == set()


def test_a_new_folder_of_the_api_gets_an_order_of_its_files() -> None:
    """The order of the features names each folder; inside a feature an exhaustive contract names each file."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    ordered = {name for contract in contracts if contract.get("exhaustive") for name in contract["containers"]}
    folders = {path.parent.name for path in Path(moorage_api.__file__).parent.glob("*/__init__.py")}
    not_features = {"http", "limits", "migrations", "objects", "outbound", "wiring"}
    assert {f"moorage_api.{folder}" for folder in folders - not_features} - ordered == set()


def subclasses(of: type[DomainError]) -> set[type[DomainError]]:
    return {found for direct in of.__subclasses__() for found in {direct, *subclasses(direct)}}


def test_every_domain_error_has_a_status() -> None:
    ours = {error for error in subclasses(DomainError) if error.__module__.startswith("moorage_api")}
    assert ours - set(STATUS_BY_ERROR) == set()
    codes = [error.code for error in ours]
    assert len(codes) == len(set(codes))


def test_importing_opens_nothing_and_reads_no_settings() -> None:
    script = IMPORT_EVERYTHING.replace("os.environ = ", "sys.addaudithook(refuse)\nos.environ = ")
    environment = {"PATH": "/usr/bin:/bin", "MOORAGE_DATABASE_URL": "never read"}
    reply = subprocess.run(
        [sys.executable, "-c", script, *modules()], env=environment, capture_output=True, text=True, check=False
    )
    assert reply.returncode == 0, reply.stderr


@pytest.mark.parametrize("module", ["moorage_sandbox.box", "moorage_sandbox.vnc", "moorage_sandbox.box.fetch_skills"])
def test_programs_of_box_and_vnc_need_only_the_standard_library(module: str) -> None:
    """Their images contain no other package, and they start fast because they import little."""
    script = f"import sys; sys.path.insert(0, {str(ROOT / 'sandbox')!r}); import {module}"
    reply = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)
    assert reply.returncode == 0, reply.stderr


def test_lines_of_the_make_help_are_its_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = [line for line in makefile.splitlines() if line.startswith(".PHONY:")]
    reply = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = reply.stdout.splitlines()
    assert [line.split()[1] for line in lines] == phony.split()[1:]
    columns = {len(line) - len(line.split(maxsplit=2)[2]) for line in lines}
    assert len(columns) == 1, "the descriptions begin in different columns"


def test_all_images_begin_with_the_same_layers() -> None:
    """A node then stores these layers once. docker, buildah and skaffold cannot all build every image from one file."""
    files = ("api/Dockerfile", "operator/Dockerfile", "sandbox/images/Dockerfile", "tests/cluster/images/Dockerfile")
    texts = [(ROOT / file).read_text() for file in files]
    beginnings = {text[text.index("FROM ${BASE} AS python") :].split("\n\n")[0] for text in texts}
    assert len(beginnings) == 1
