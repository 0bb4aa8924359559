"""Go and Node for the tests that need them: they build Kubernetes, and run MCP servers that others wrote."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

WITH_TOOLCHAINS = Path(__file__).parents[2] / ".ci" / "with-toolchains"


@cache
def put_on_path() -> None:
    """Put Go and Node on this process's PATH. The first call on a machine without them installs them, outside the tree.

    When they cannot be installed, PATH stays as it is: callers look with `shutil.which`.
    """
    reply = subprocess.run(
        [WITH_TOOLCHAINS, "sh", "-c", 'printf %s "$PATH"'], stdout=subprocess.PIPE, text=True, check=False
    )
    if reply.returncode == 0:
        os.environ["PATH"] = reply.stdout
