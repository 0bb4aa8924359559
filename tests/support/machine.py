"""Runs `moorage up` as a person does, and tracks the processes that it starts."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from moorage_local.processes.child import Child
from support.waiting import HANG_SECONDS

READY = "Moorage is ready"


def environment(data: Path, changes: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without the MOORAGE_ variables, with `changes`."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MOORAGE_")}
    return {**plain, "MOORAGE_DATA_DIR": str(data), **changes}


def moorage(*arguments: str, data: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a command until it ends. Its output and its errors are in `stdout` together, as a person reads them."""
    return subprocess.run(
        [sys.executable, "-m", "moorage_local.cli", *arguments],
        env=environment(data, changes),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


@dataclass
class Machine:
    """One data directory. After the end, `start()` may be called again."""

    data: Path
    changes: dict[str, str] = field(default_factory=dict)
    within: Sequence[str] = ()
    """Words that go before the command."""
    python: str = sys.executable
    child: Child | None = None
    _seen: dict[int, psutil.Process] = field(default_factory=dict)

    @property
    def up(self) -> Child:
        assert self.child is not None
        return self.child

    def launch(self) -> None:
        """Start the command without waiting until it is ready."""
        log = self.data.with_name(f"{self.data.name}.out")
        log.unlink(missing_ok=True)
        command = [*self.within, self.python, "-m", "moorage_local.cli", "up"]
        self.child = Child.start(command, log=log, environment=environment(self.data, self.changes))

    async def start(self) -> None:
        self.launch()
        await self.wait_for_output(READY)

    def output(self) -> str:
        return self.up.log.read_text(errors="replace")

    @property
    def url(self) -> str:
        return next(line.split()[1] for line in self.output().splitlines() if line.startswith("  Address"))

    async def wait_for_output(self, text: str, *, times: int = 1) -> None:
        deadline = time.monotonic() + HANG_SECONDS
        while self.output().count(text) < times:
            if not self.up.is_running or time.monotonic() > deadline:
                raise AssertionError(f"The output never contains {text!r}:\n{self.output()}\n{self.logs()}")
            await asyncio.sleep(0.05)

    def logs(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted((self.data / "logs").glob("*.log"))
        )

    def processes(self) -> list[psutil.Process]:
        """All descendant processes. `remaining_processes` remembers them, because orphans change their parent."""
        found = psutil.Process(self.up.pid).children(recursive=True)
        self._seen.update({process.pid: process for process in found})
        return found

    def part(self, words: str) -> psutil.Process:
        """The child process whose command line contains `words`."""
        (found,) = [
            process for process in psutil.Process(self.up.pid).children() if words in " ".join(process.cmdline())
        ]
        return found

    async def kill(self) -> None:
        """Send SIGKILL to the process that a person started."""
        self.processes()
        self.up.process.kill()
        await self.up.wait()

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal, wait for the end and return the exit status."""
        self.processes()
        self.up.send(number)
        async with asyncio.timeout(HANG_SECONDS):
            return await self.up.wait()

    async def remaining_processes(self) -> list[str]:
        """The processes that it started and that still run when the wait is over."""
        deadline = time.monotonic() + HANG_SECONDS
        while (left := self._find_remaining()) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        return left

    def _find_remaining(self) -> list[str]:
        alive = {pid: process for pid, process in self._seen.items() if is_alive(process)}
        for process in psutil.process_iter():
            if is_alive(process) and self._is_ours(process):
                alive[process.pid] = process
        return [str(process) for process in alive.values() if is_alive(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            traces = [*process.cmdline(), process.cwd(), *process.environ().values()]
        except psutil.Error:
            return False
        return process.pid != os.getpid() and any(str(self.data) in trace for trace in traces)

    async def discard(self) -> None:
        """Stop it at the end of a test, whether the test passed or not."""
        if self.child is not None:
            self.processes() if self.child.is_running else None
            await self.child.stop(grace_seconds=HANG_SECONDS)


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
