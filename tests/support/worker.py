"""The number of this test process."""

from __future__ import annotations

import os

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
"""pytest-xdist assigns this number. Each test process uses its own range of user ids."""
