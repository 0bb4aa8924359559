"""How the supervisor restarts a process that has ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

from moorage_common.backoff import Backoff
from moorage_local.errors import StartError
from moorage_local.processes.child import Child, base_environment
from moorage_local.supervisor import keep_member_running
from support.waiting import until


class SlowMember:
    """Its first two restarts fail, one as an embedded server fails, and one as a part of our own fails."""

    title = "Slow"

    def __init__(self, directory: Path) -> None:
        self.log = directory / "slow.log"
        self.restarts = 0
        self.child: Child | None = None

    async def start(self) -> None:
        self.child = Child.start(["sleep", "infinity"], log=self.log, environment=base_environment())

    async def restart(self) -> None:
        await self.stop()
        self.restarts += 1
        if self.restarts == 1:
            raise StartError("not ready, and stopped")
        await self.start()
        if self.restarts == 2:
            raise StartError("not ready, and still running")

    async def stop(self) -> None:
        if self.child is not None:
            await self.child.stop()
            self.child = None

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill()


async def test_a_process_is_restarted_until_a_restart_succeeds(tmp_path: Path) -> None:
    member, lines = SlowMember(tmp_path), list[str]()
    await member.start()
    keeping = asyncio.create_task(keep_member_running(member, lines.append, backoff=Backoff(0.01, 0.01)))
    try:
        member.kill()
        await until(lambda: keeping.done() or "Slow runs again" in lines, "the process runs again")
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await member.stop()
    assert member.restarts == 3
    assert lines == [
        f"Slow ended (signal 9) and will be restarted. Its log: {member.log}",
        "not ready, and stopped",
        "not ready, and still running",
        "Slow runs again",
    ]
