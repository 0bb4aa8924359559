"""Real gates for the pods of the stand-in kubelet: each pod gets a loopback address on which its gate listens."""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moorage_crds import names
from moorage_kube.client import Manifest
from support.gate import FakeBox, Gate, Keys
from support.kube.kubelet import status


def loopback_listener() -> socket.socket:
    """A socket with the gate's port, on an unused address of 127.0.0.0/8."""
    while True:
        address = f"127.{random.randrange(64, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}"
        try:
            return socket.create_server((address, names.GATE_PORT), backlog=64)
        except OSError:
            continue


@dataclass
class PodGates:
    """Use `behave` as the behaviour of the stand-in kubelet: it gives each pod a gate and reports the pod as ready."""

    keys: Keys
    has_real_boxes: bool = False
    """Whether commands are executed, as the user of this process, in a directory for each pod."""
    gates: dict[str, Gate] = field(default_factory=dict)
    """The gates by the UID of their pod."""
    boxes: dict[str, FakeBox] = field(default_factory=dict)
    _processes: list[asyncio.subprocess.Process] = field(default_factory=list)
    _starting: list[asyncio.Task[Any]] = field(default_factory=list)
    _directories: list[Path] = field(default_factory=list)

    def behave(self, pod: Manifest) -> Manifest:
        uid = pod["metadata"]["uid"]
        directory = Path(tempfile.mkdtemp(prefix="mo-"))
        self._directories.append(directory)
        box = self.boxes[uid] = FakeBox(directory / "box.sock")
        gate = self.gates[uid] = Gate(directory, self.keys, box.socket, uid=uid, listener=loopback_listener())
        self._starting.append(asyncio.create_task(self._start(gate, box)))
        address = gate.listener.getsockname()[0]
        return status(pod, ready=True, podIP=address, podIPs=[{"ip": address}])

    async def _start(self, gate: Gate, box: FakeBox) -> None:
        if self.has_real_boxes:
            await self._start_real_box(gate)
        else:
            await box.start()
        await gate.start()

    async def _start_real_box(self, gate: Gate) -> None:
        home = gate.directory / "home"
        home.mkdir()
        options = ["--socket", str(gate.box_socket), "--home", str(home), "--display", ":0"]
        command = [sys.executable, "-I", "-m", "moorage_sandbox.box", *options]
        self._processes.append(await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL))

    async def stop(self) -> None:
        await asyncio.gather(*self._starting, return_exceptions=True)
        for gate in self.gates.values():
            await gate.stop()
        for box in self.boxes.values():
            await box.stop()
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
        for directory in self._directories:
            shutil.rmtree(directory, ignore_errors=True)
