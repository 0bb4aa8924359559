"""A child process that ends when this process ends, and whose output goes to a file."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from moorage_common.processes import wait_readable

KILL_GRACE_SECONDS = 5.0
LOG_TAIL_BYTES = 4096


def base_environment() -> dict[str, str]:
    """Return the part of our environment that every program needs. The rest may hold secrets or other settings."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ") if name in os.environ}


@dataclass
class Child:
    """A process in its own session and process group, so that a Ctrl-C at the terminal reaches only its parent."""

    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(
        cls,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str],
        directory: Path | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
        pass_fds: Sequence[int] = (),
    ) -> Self:
        """Start `command` and append its output to `log`.

        Pass secrets in the environment or in a file, because every user can read the arguments of a process. The child
        gets `death_signal` when this process dies for any reason. The kernel sends it when the *thread* ends that
        started the child, so only the main thread may start one.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("Start children from the main thread: they end with the thread that started them")
        launcher = [
            sys.executable,
            "-I",
            "-m",
            "moorage_local.processes.end_with_parent",
            str(os.getpid()),
            str(int(death_signal)),
        ]
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            process = subprocess.Popen(
                [*launcher, "--", *(str(part) for part in command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(environment),
                cwd=directory,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        finally:
            os.close(output)
        return cls(process, log)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    async def wait(self) -> int:
        """Wait for the process to end and return its exit status; negative for a signal."""
        if self.process.returncode is not None:
            return self.process.returncode  # the pid may belong to another process now
        descriptor = os.pidfd_open(self.pid)
        try:
            await wait_readable(descriptor)
        finally:
            os.close(descriptor)
        return self.process.wait()

    def send(self, number: signal.Signals) -> None:
        if self.is_running:
            self.process.send_signal(number)

    def kill(self) -> None:
        """Kill the whole process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    async def ask_to_end(self, number: signal.Signals, *, within_seconds: float) -> bool:
        """Send a signal and wait. True if the process ended in time."""
        self.send(number)
        try:
            async with asyncio.timeout(within_seconds):
                await self.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self, number: signal.Signals = signal.SIGTERM, *, grace_seconds: float = KILL_GRACE_SECONDS) -> int:
        """Ask the process to end, kill it after `grace_seconds`, and return its exit status."""
        await self.ask_to_end(number, within_seconds=grace_seconds)
        self.kill()  # also processes that it left in its group
        return await self.wait()

    def log_tail(self) -> str:
        """Return the last LOG_TAIL_BYTES of its output."""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace").strip()
