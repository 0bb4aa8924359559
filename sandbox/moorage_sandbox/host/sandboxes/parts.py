"""The processes of a sandbox: its gate, screen and box, and commands of MCP servers. Each function runs one of them."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from moorage_sandbox.host.confinement import command_lines
from moorage_sandbox.host.confinement.bubblewrap import ConfinedProcess, run_confined
from moorage_sandbox.host.confinement.command_lines import Python
from moorage_sandbox.host.confinement.identities import Identity
from moorage_sandbox.host.confinement.limits import CgroupParents, ControlGroup, ResourceLimits
from moorage_sandbox.host.network.connection import BoxNetwork
from moorage_sandbox.host.processes.launcher import LaunchedProcess, Launcher, Program
from moorage_sandbox.host.sandboxes.layout import Layout, RuntimeFiles, StoredFiles

logger = logging.getLogger(__name__)

GATE_GRACE_SECONDS = 1.0
BOX_OOM_SCORE_ADJ = 500
"""When memory runs out, the kernel kills processes of sandboxes before other processes of the machine."""


@dataclass(frozen=True)
class SharedResources:
    """The objects and settings that all sandboxes of a host share."""

    layout: Layout
    launcher: Launcher
    python: Python
    parents: CgroupParents
    limits: ResourceLimits
    has_network: bool
    unresponsive_seconds: float


@dataclass(frozen=True)
class SandboxParts:
    """Runs the processes of one sandbox.

    `note(subject, text)` takes a problem that people see, and an empty text when it is solved. Each `run_…` returns why
    the process ended, and always removes the process and its descendants. Each raises LaunchError or OSError when the
    process cannot be started.
    """

    sandbox_uid: str
    identity: Identity
    stored: StoredFiles
    runtime: RuntimeFiles
    shared: SharedResources
    group: ControlGroup
    note: Callable[[str, str], None]
    listener: socket.socket | None = None
    """The gate's listening socket. Commands have no such socket."""
    _children: dict[str, LaunchedProcess] = field(default_factory=dict)

    def kill(self, name: str) -> None:
        """Kill the gate or the box. The sandbox then starts it again."""
        if (child := self._children.get(name)) is not None:
            child.kill()

    async def run_gate(self) -> str:
        """Run the gate, outside of bubblewrap. The host owns its socket, so callers wait while the gate restarts."""
        assert self.listener is not None
        state = self.stored.gate if self.identity.group is None else self.runtime.state
        child = await self.shared.launcher.launch(
            Program(
                name="gate",
                gate=[
                    "--listen-fd=3",
                    f"--box-socket={self.runtime.box_socket}",
                    f"--rfb-socket={self.runtime.rfb_socket}",
                    f"--state-dir={state}",
                    f"--trust-file={self.shared.layout.trust_file}",
                    f"--sandbox-uid={self.sandbox_uid}",
                ],
                uid=self.identity.gate,
                gid=self.identity.group,
                mounts=self._mounts(self.stored.gate, state),
                fds=[self.listener.fileno()],
            )
        )
        self._children["gate"] = child
        try:
            return describe_end(child, await child.wait())
        finally:
            await child.stop(grace_seconds=GATE_GRACE_SECONDS)

    async def run_screen(self) -> str:
        arguments = command_lines.vnc_arguments(
            python=self.shared.python,
            code=self.shared.layout.code / "vnc",
            etc=self.shared.layout.etc,
            sockets=self.runtime.rfb_socket.parent,
            x_sockets=self.runtime.x_sockets,
            limits=self._limit_arguments(),
        )
        async with self._confine("screen", arguments, uid=self.identity.vnc) as running:
            await running.begin()
            return describe_end(running.child, await running.child.wait())

    async def run_box(self) -> str:
        # A killed box leaves its socket, and an existing socket means that a box is running.
        self.runtime.box_socket.unlink(missing_ok=True)
        home = self.stored.home if self.identity.group is None else self.runtime.home
        arguments = command_lines.box_arguments(
            python=self.shared.python,
            code=self.shared.layout.code / "box",
            etc=self.shared.layout.etc,
            home=home,
            sockets=self.runtime.box_socket.parent,
            x_sockets=self.runtime.x_sockets,
            limits=self._limit_arguments(),
        )
        mounts = self._mounts(self.stored.home, home)
        async with (
            self._confine("box", arguments, uid=self.identity.box, mounts=mounts) as running,
            self._connect(running.pid),
        ):
            self._children["box"] = running.child
            await running.begin()
            return describe_end(running.child, await running.child.wait())

    @asynccontextmanager
    async def run_command(
        self, stdio: socket.socket, paths: Sequence[Path], wanted: ResourceLimits
    ) -> AsyncIterator[LaunchedProcess]:
        """Run the program of an MCP server while the block runs. It reads its command line from `stdio`."""
        home = self.stored.home if self.identity.group is None else self.runtime.home
        mounts = self._mounts(self.stored.home, home)
        visible = []
        for number, path in enumerate(paths):
            if self.identity.group is None:
                visible.append((path, path))
                continue
            place = self.runtime.root / f"path{number}"  # the command's user may not be able to reach `path` itself
            place.mkdir(mode=0o700)
            mounts += self._mounts(path, place)
            visible.append((place, path))
        arguments = command_lines.command_arguments(
            python=self.shared.python,
            etc=self.shared.layout.etc,
            home=home,
            visible=visible,
            limits=self._limit_arguments(wanted),
        )
        async with (
            self._confine("command", arguments, uid=self.identity.box, mounts=mounts, last_fd=stdio) as running,
            self._connect(running.pid),
        ):
            await running.begin()
            yield running.child

    def _confine(
        self,
        name: str,
        arguments: list[str],
        *,
        uid: int | None,
        mounts: list[tuple[str, str]] | None = None,
        last_fd: socket.socket | None = None,
    ) -> AbstractAsyncContextManager[ConfinedProcess]:
        return run_confined(
            self.shared.launcher,
            arguments,
            program=Program(
                name=name,
                is_chatty=name != "box",
                uid=uid,
                gid=self.identity.group,
                cgroup_files=self.group.join_files,
                oom_score_adj=BOX_OOM_SCORE_ADJ,
                mounts=mounts or [],
            ),
            last_fd=last_fd,
        )

    def _connect(self, pid: int) -> AbstractAsyncContextManager[None]:
        def note(text: str) -> None:
            self.note("network", text)

        note("")
        if not self.shared.has_network:
            return nullcontext()
        network = BoxNetwork(self.shared.launcher, uid=self.identity.box, gid=self.identity.group, note=note)
        return network.connect(pid)

    def _mounts(self, source: os.PathLike[str], target: os.PathLike[str]) -> list[tuple[str, str]]:
        return [] if self.identity.group is None else [(str(source), str(target))]

    def _limit_arguments(self, wanted: ResourceLimits | None = None) -> list[str]:
        parents, wanted = self.shared.parents, wanted or self.shared.limits
        return command_lines.limit_arguments(
            processes=None if parents.bounds_processes else wanted.processes,
            data_bytes=None if parents.bounds_memory else wanted.memory_bytes,
        )


def describe_end(child: LaunchedProcess, code: int) -> str:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    last_line = f": {child.lines[-1]}" if child.lines else ""
    return f"the {child.name} {how}{last_line}"
