"""The seeds of a run are the same in all its processes, whenever they start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent

MODULE = """
import pytest
from support.seeds import many_seeds, seeds

@pytest.mark.parametrize("seed", seeds() + many_seeds())
def test_a_seed(seed):
    assert seed > 0
"""


def test_two_workers_collect_the_same_seeds(tmp_path: Path) -> None:
    module = tmp_path / "test_module.py"
    module.write_text(MODULE)
    outer = ("CHAOS_", "PYTEST_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(outer)}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", TESTS.parent / "pyproject.toml", "-p", "conftest", "-n", "2", module],
        env={**environment, "PYTHONPATH": str(TESTS), "CHAOS_ROUNDS": "3"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "13 passed" in ended.stdout
