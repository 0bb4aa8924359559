"""Starts `@copilotkit/aimock`, a third-party mock of model providers. The first use installs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import toolchains
from support.waiting import HANG_SECONDS

VERSION = "1.43.0"
INSTALL_SECONDS = 500
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moorage" / "aimock" / VERSION


def _aimock_path() -> Path:
    """Install aimock if needed and return its entry script. Two processes may install at once; one copy is kept."""
    script = CACHE / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
    if script.exists():
        return script
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE.parent) as directory:
        fresh = Path(directory) / "fresh"
        fresh.mkdir()
        subprocess.run(
            ["npm", "install", "--prefix", str(fresh), "--no-audit", "--no-fund", f"@copilotkit/aimock@{VERSION}"],
            check=True,
            capture_output=True,
            timeout=INSTALL_SECONDS,
        )
        if not CACHE.exists():
            fresh.rename(CACHE)
    return script


@contextmanager
def aimock(turns: list[dict[str, Any]], directory: Path) -> Iterator[str]:
    """Answer each request with the turn whose index is its number of assistant messages. Yields the base URL."""
    toolchains.put_on_path()
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    fixtures = [{"match": {"turnIndex": place}, "response": turn} for place, turn in enumerate(turns)]
    (directory / "fixtures.json").write_text(json.dumps({"fixtures": fixtures}))
    command = [
        "node",
        str(_aimock_path()),
        "--port",
        "0",
        "--fixtures",
        str(directory),
        "--strict",
        "--chunk-size",
        "9",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield f"{_address(process)}/v1"
        finally:
            process.terminate()
            process.communicate(timeout=HANG_SECONDS)


def _address(process: subprocess.Popen[str]) -> str:
    """Read the output until it contains the address. Raises RuntimeError when the process ends before."""
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        if found := re.search(r"listening on (http://\S+)", line):
            return found[1]
    raise RuntimeError(f"aimock did not start: {''.join(printed)}")
