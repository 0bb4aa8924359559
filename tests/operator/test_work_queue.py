"""The work queue: what it logs about a session."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest

from moorage_common.logging_setup import JsonFormatter
from moorage_kube.client import KubeError
from moorage_operator.work_queue import WorkQueue


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the process logs as JSON."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    logging.getLogger().addHandler(handler)
    yield written
    logging.getLogger().removeHandler(handler)


async def test_every_line_about_a_session_has_its_id(log: io.StringIO) -> None:
    begun = asyncio.Event()

    async def fail(_: str) -> float | None:
        logging.getLogger("moorage_operator").warning("A line of the work itself")
        begun.set()
        raise KubeError(500, "InternalError", "broken")

    queue = WorkQueue(fail, workers=1)
    queue.add("session-4711")
    running = asyncio.create_task(queue.run())
    await begun.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert len(lines) == 2
    assert {line["session_id"] for line in lines} == {"4711"}
