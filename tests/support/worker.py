"""Which of the processes of a run this is."""

from __future__ import annotations

import os

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
"""The number that pytest-xdist gave to this process. Users are not shared between them."""
