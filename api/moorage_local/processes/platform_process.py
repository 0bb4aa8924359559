"""One of our own processes that the supervisor starts: api, runner or sandbox host."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moorage_common.tasks import race
from moorage_local.errors import StartError
from moorage_local.processes.child import Child

READY_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.05
STOP_GRACE_SECONDS = 2.5


@dataclass
class PlatformProcess:
    """A Python module that runs as a process. `is_ready` checks that it works."""

    title: str
    module: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    is_ready: Callable[[], Awaitable[bool]]
    pass_fds: Sequence[int] = ()
    child: Child | None = field(default=None, init=False)

    async def start(self) -> None:
        """Start the process and wait until it is ready. Raises StartError with the end of its log if it is not."""
        self.child = child = Child.start(
            [sys.executable, "-m", *self.module],
            log=self.log,
            environment=self.environment,
            pass_fds=self.pass_fds,
        )
        async with race(child.wait(), self._until_ready(), timeout_seconds=READY_TIMEOUT_SECONDS) as (ended, ready):
            if ready.done():
                return ready.result()
            what = "ended at once" if ended.done() else "was not ready in time"
        lines = "\n".join(f"  {line}" for line in child.log_tail().splitlines()[-12:])
        raise StartError(f"{self.title} {what}. Its last lines, from {self.log}:\n{lines}")

    async def _until_ready(self) -> None:
        while not await self.is_ready():  # noqa: ASYNC110 - the state is in another process
            await asyncio.sleep(POLL_SECONDS)

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def stop(self) -> None:
        if self.child is not None:
            await self.child.stop(signal.SIGTERM, grace_seconds=STOP_GRACE_SECONDS)

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill()
