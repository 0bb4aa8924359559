"""What the embedded servers have in common: start on free ports, be ready, stop, and say why not."""

from __future__ import annotations

import asyncio
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from moorage_local.child import Child
from moorage_local.errors import StartError
from moorage_local.files import make_private_directory
from moorage_local.ports import PortBook, is_free

READY_TIMEOUT_SECONDS = 60.0
STOP_GRACE_SECONDS = 2.0
"""What is stored is safe however a server ends: the slow way out only spares it work at the next start."""

POLL_SECONDS = 0.02
PORT_ATTEMPTS = 3


class Server(ABC):
    """One server on loopback with its data in `directory`.

    `start()` returns when it answers an authenticated request. `restart()` keeps its ports, as others know them.
    """

    title: ClassVar[str]
    name: ClassVar[str]
    port_uses: ClassVar[Sequence[str]]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    death_signal: ClassVar[signal.Signals] = signal.SIGKILL
    """What it gets when there is no time, or when we are killed ourselves."""

    def __init__(self, directory: Path, *, ports: PortBook, log: Path) -> None:
        self.directory = directory
        self.log = log
        self.ports: dict[str, int] = {}
        self.child: Child | None = None
        self._port_book = ports

    async def start(self) -> None:
        """Raises StartError with the server's last words when it does not come up."""
        make_private_directory(self.directory)
        make_private_directory(self.log.parent)
        await self.prepare()
        for _ in range(PORT_ATTEMPTS):
            self.ports = self._port_book.take(self.name, self.port_uses)
            if await self._launch_until_ready():
                return
            if all(is_free(port) for port in self.ports.values()):
                break  # it was not for a port that somebody took in between
        raise self._start_error("ended at once")

    async def restart(self) -> None:
        """Start it again after it died, where its clients expect it."""
        await self.prepare()
        if not await self._launch_until_ready():
            raise self._start_error("ended at once")

    async def stop(self, *, at_once: bool = False) -> None:
        """`at_once` is for data that nobody wants any more."""
        if self.child is not None:
            if not at_once:
                await self.child.ask_to_end(self.stop_signal, within_seconds=STOP_GRACE_SECONDS)
            await self.child.stop(self.death_signal)
            self.child = None
        self.clean_up()

    def kill(self) -> None:
        """End it this moment. What it has promised to keep, it keeps."""
        if self.child is not None:
            self.child.send(self.death_signal)

    @abstractmethod
    async def prepare(self) -> None:
        """Lay out the data directory and write the configuration; harmless to repeat."""

    @abstractmethod
    def launch(self) -> Child:
        """Start the process on `self.ports`."""

    @abstractmethod
    def clean_up(self) -> None:
        """Remove what an ended server, or a killed one, left outside its directory."""

    @abstractmethod
    async def is_ready(self) -> bool:
        """Whether it does real work already."""

    @abstractmethod
    async def on_ready(self) -> None:
        """Put in it what has to be there before others use it; harmless to repeat."""

    async def _launch_until_ready(self) -> bool:
        """Whether it became ready; False when it ended instead."""
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
