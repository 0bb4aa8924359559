"""A child process that cannot outlive this one, with its output in a file."""

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
    """What any program needs of ours. The rest may hold secrets, or settings meant for another server."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ") if name in os.environ}


@dataclass
class Child:
    """A process in a session and process group of its own, so a Ctrl-C at the terminal reaches only its parent."""

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
        """Start `command`; its output is appended to `log`. Secrets belong in the environment or a file: anyone may
        read the arguments. `death_signal` is what the child gets when this process dies, however it dies.

        The kernel watches the thread that starts the child, so only the main thread may.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("Children are started from the main thread: they end with the thread that started them")
        launcher = [sys.executable, "-I", "-m", "moorage_local.launch", str(os.getpid()), str(int(death_signal))]
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
        """The exit status once the process has ended; negative for a signal."""
        if self.process.returncode is not None:
            return self.process.returncode  # its pid may be somebody else's by now
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
        """End the whole process group at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    async def ask_to_end(self, number: signal.Signals, *, within_seconds: float) -> bool:
        """Whether it ended in time."""
        self.send(number)
        try:
            async with asyncio.timeout(within_seconds):
                await self.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self, number: signal.Signals = signal.SIGTERM, *, grace_seconds: float = KILL_GRACE_SECONDS) -> int:
        """Ask the process to end, insist after `grace_seconds`, and return its exit status."""
        await self.ask_to_end(number, within_seconds=grace_seconds)
        self.kill()  # it, or whatever it left behind in its group
        return await self.wait()

    def log_tail(self) -> str:
        """The last lines it printed."""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace").strip()
