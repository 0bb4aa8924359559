"""Every process that is started by itself logs JSON where MOORAGE_LOG_FORMAT says so, and readable lines elsewhere.

Each process is started with settings that it refuses, so it logs why and ends.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("api", "crds", "operator", "sandbox")

PROCESSES: dict[str, tuple[list[str], dict[str, str]]] = {
    "moorage_api.main": ([], {}),
    "moorage_api.runner.main": ([], {}),
    "moorage_local.cli": (["prepare"], {"MOORAGE_ADMIN_PASSWORD": "short"}),
    "moorage_operator.main": ([], {}),
    "moorage_sandbox.box": (["--socket=/missing/box.sock", "--home={here}"], {}),
    "moorage_sandbox.box.fetch_skills": (["--url=http://127.0.0.1:1"], {"MOORAGE_SKILLS": "wrong"}),
    "moorage_sandbox.gate": (["--listen=127.0.0.1:0", "--state-dir=/proc/missing", "--sandbox-uid=1"], {}),
    "moorage_sandbox.host": (["--socket={here}/host.sock", "--data-dir=/proc/missing", "--trust-file={here}"], {}),
    "moorage_sandbox.mcp_runner": (["--token-file=/dev/null"], {}),
    "moorage_sandbox.vnc": ([], {"PATH": ""}),
}
"""The module of each process, with arguments and variables that make it end with an error."""

OTHERS = {
    "moorage_api.http.routes": "prints a table for the documentation",
    "moorage_local.processes.end_with_parent": "replaces itself by another program before it could log",
    "moorage_sandbox.box.files.search": "answers the box on its standard output",
    "moorage_sandbox.box.files.shrink": "answers the box on its standard output",
    "moorage_sandbox.host.processes.fork_server": "the sandbox host logs its output",
    "moorage_sandbox.host.processes.readable_environment": "the sandbox host logs its output",
}


def entry_points() -> set[str]:
    found = set()
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            module = ".".join(path.relative_to(ROOT / folder).with_suffix("").parts)
            if path.name == "__main__.py":
                found.add(module.removesuffix(".__main__"))
            elif '\nif __name__ == "__main__":' in path.read_text():
                found.add(module)
    return found


def test_every_entry_point_is_known_here() -> None:
    assert entry_points() == set(PROCESSES) | set(OTHERS)


def start_and_fail(module: str, here: Path, *, log_format: str) -> str:
    """Run a process until it ends with an error. Returns what it wrote."""
    arguments, variables = PROCESSES[module]
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment = {**inherited, "MOORAGE_LOG_FORMAT": log_format, "MOORAGE_SESSION_ID": "s1", **variables}
    reply = subprocess.run(
        [sys.executable, "-m", module, *(argument.format(here=here) for argument in arguments)],
        env=environment,
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert reply.returncode == 1, reply.stdout
    return reply.stdout


@pytest.mark.parametrize("module", PROCESSES)
def test_with_json_every_line_of_a_process_is_one_object_with_its_ids(module: str, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in start_and_fail(module, tmp_path, log_format="json").splitlines()]
    assert lines[-1]["level"] in ("error", "critical")
    assert {line["session_id"] for line in lines} == {"s1"}


@pytest.mark.parametrize("module", PROCESSES)
def test_without_json_a_process_writes_lines_for_people(module: str, tmp_path: Path) -> None:
    written = start_and_fail(module, tmp_path, log_format="text")
    assert re.search(r"^[-0-9]{10} [0-9:,]{12} (ERROR|CRITICAL) moorage\S* \S+ .+", written, re.MULTILINE)
