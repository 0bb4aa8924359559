"""What a cluster's probes see while a runner works, waits for its database, or hangs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
from sqlalchemy import text

from moorage_api.database import create_engine
from moorage_api.runner.health import LONGEST_AWAY_SECONDS, LONGEST_STALL_SECONDS, Health
from moorage_local.data.ports import free_ports
from support.processes import Platform, Process
from support.waiting import HANG_SECONDS


@dataclass
class RunnerProbes:
    process: Process
    client: httpx.AsyncClient

    async def until_ready(self, status: int) -> None:
        async with asyncio.timeout(LONGEST_AWAY_SECONDS + HANG_SECONDS):
            while await self.status("/readyz") != status:
                await asyncio.sleep(0.1)

    async def status(self, path: str) -> int:
        """The HTTP status, or 0 if the connection was refused."""
        try:
            return (await self.client.get(path)).status_code
        except httpx.ConnectError:
            return 0


@pytest.fixture
async def runner(platform: Platform) -> AsyncIterator[RunnerProbes]:
    port = free_ports(1)[0]
    platform.changes.update(runner_host="127.0.0.1", runner_port=port)
    process = await platform.start_runner()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=HANG_SECONDS, trust_env=False) as client:
        probes = RunnerProbes(process, client)
        await probes.until_ready(200)
        yield probes


async def test_a_runner_reports_health_and_metrics_and_stops_when_asked(runner: RunnerProbes) -> None:
    assert await runner.status("/healthz") == 200
    counted = (await runner.client.get("/metrics")).text
    assert "\nmoorage_runner_runs 0.0\n" in counted
    assert "process_resident_memory_bytes" in counted
    assert await runner.process.stop() == 0


async def test_a_runner_stays_alive_but_not_ready_while_the_database_does_not_answer(
    runner: RunnerProbes, platform: Platform
) -> None:
    engine = create_engine(platform.database_url)
    async with engine.begin() as connection:
        await connection.execute(text("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE"))
        await runner.until_ready(503)
        assert await runner.status("/healthz") == 200
    await engine.dispose()
    await runner.until_ready(200)


async def test_a_frozen_runner_answers_no_probe(runner: RunnerProbes) -> None:
    runner.process.child.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(httpx.ReadTimeout):
            await runner.client.get("/healthz", timeout=1)
    finally:
        runner.process.child.process.send_signal(signal.SIGCONT)
    assert await runner.status("/healthz") == 200


@pytest.mark.parametrize(
    ("iterated", "answered", "seen"),
    [
        pytest.param(1, 1, (True, True), id="works"),
        pytest.param(1, LONGEST_AWAY_SECONDS, (True, False), id="the database does not answer"),
        pytest.param(LONGEST_STALL_SECONDS - 1, LONGEST_STALL_SECONDS - 1, (True, False), id="one slow iteration"),
        pytest.param(LONGEST_STALL_SECONDS, LONGEST_STALL_SECONDS, (False, False), id="stalled"),
    ],
)
def test_a_runner_is_alive_while_its_loop_iterates_and_ready_while_the_database_answers(
    iterated: float, answered: float, seen: tuple[bool, bool]
) -> None:
    """`iterated` and `answered` are seconds before now; `seen` is (is_alive, is_ready)."""
    at = -answered
    health = Health(lambda: at)
    health.on_database_answered()
    at = -iterated
    health.on_iteration()
    at = 0
    assert (health.is_alive, health.is_ready) == seen


def test_a_runner_that_has_just_started_is_alive_and_not_ready() -> None:
    health = Health()
    assert (health.is_alive, health.is_ready) == (True, False)
