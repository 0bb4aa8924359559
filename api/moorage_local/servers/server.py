"""Base class of the embedded servers: start on free ports, wait until ready, stop, and report failures."""

from __future__ import annotations

import asyncio
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from moorage_local.data.ports import PortBook, is_free
from moorage_local.data.private_files import make_private_directory
from moorage_local.errors import StartError
from moorage_local.processes.child import Child

READY_TIMEOUT_SECONDS = 60.0
STOP_GRACE_SECONDS = 2.0
"""Stored data is safe even if a server is killed. A clean stop only makes the next start faster."""

POLL_SECONDS = 0.02
PORT_ATTEMPTS = 3


class EmbeddedServer(ABC):
    """One server on loopback with its data in `directory`.

    `start()` returns when the server answers an authenticated request. `restart()` keeps its ports, because clients
    know them.
    """

    title: ClassVar[str]
    name: ClassVar[str]
    port_uses: ClassVar[Sequence[str]]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    death_signal: ClassVar[signal.Signals] = signal.SIGKILL
    """Signal for an immediate end, and when this process dies."""

    def __init__(self, directory: Path, *, ports: PortBook, log: Path) -> None:
        self.directory = directory
        self.log = log
        self.ports: dict[str, int] = {}
        self.child: Child | None = None
        self._port_book = ports

    async def start(self) -> None:
        """Start the server. Raises StartError with the end of its log if it does not become ready."""
        make_private_directory(self.directory)
        make_private_directory(self.log.parent)
        await self.prepare()
        for _ in range(PORT_ATTEMPTS):
            self.ports = self._port_book.take(self.name, self.port_uses)
            if await self._launch_until_ready():
                return
            if all(is_free(port) for port in self.ports.values()):
                break  # the reason was not a port that another program took meanwhile
        raise self._start_error("ended at once")

    async def restart(self) -> None:
        """Start the server again after it died, on the same ports."""
        await self.prepare()
        if not await self._launch_until_ready():
            raise self._start_error("ended at once")

    async def stop(self, *, at_once: bool = False) -> None:
        """Stop the server. `at_once` skips the clean stop; use it if the data is not needed any more."""
        if self.child is not None:
            if not at_once:
                await self.child.ask_to_end(self.stop_signal, within_seconds=STOP_GRACE_SECONDS)
            await self.child.stop(self.death_signal)
            self.child = None
        self.clean_up()

    def kill(self) -> None:
        """End the server immediately. Committed data is kept."""
        if self.child is not None:
            self.child.send(self.death_signal)

    @abstractmethod
    async def prepare(self) -> None:
        """Create the data directory and write the configuration. Safe to repeat."""

    @abstractmethod
    def launch(self) -> Child:
        """Start the process on `self.ports`."""

    @abstractmethod
    def clean_up(self) -> None:
        """Remove files that an ended or killed server left outside its directory."""

    @abstractmethod
    async def is_ready(self) -> bool:
        """Whether the server answers an authenticated request."""

    @abstractmethod
    async def on_ready(self) -> None:
        """Create what clients need in the server (role, database). Safe to repeat."""

    async def _launch_until_ready(self) -> bool:
        """Start the process. True when it is ready, False if it has ended."""
        self.clean_up()
        self.child = self.launch()
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        try:
            while time.monotonic() < deadline:
                if not self.child.is_running:
                    return False
                if await self.is_ready():
                    await self.on_ready()
                    return True
                await asyncio.sleep(POLL_SECONDS)
        except BaseException:
            await self.stop()
            raise
        await self.stop()
        raise self._start_error(f"was not ready after {READY_TIMEOUT_SECONDS:.0f} s")

    def _start_error(self, what: str) -> StartError:
        tail = self.log.read_text(errors="replace").strip().splitlines()[-12:] if self.log.exists() else []
        lines = "\n".join(f"  {line}" for line in tail)
        return StartError(f"{self.title} {what}. Its last lines, from {self.log}:\n{lines}")
