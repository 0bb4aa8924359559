"""What a sandbox consists of: its gate, its screen and its box, each run once from start to end."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from moorage_sandbox.host.confinement import command_lines
from moorage_sandbox.host.confinement.bubblewrap import ConfinedProcess, confined
from moorage_sandbox.host.confinement.command_lines import Python
from moorage_sandbox.host.confinement.identities import Identity
from moorage_sandbox.host.confinement.limits import CgroupParents, ControlGroup, ResourceLimits
from moorage_sandbox.host.network import slirp as network
from moorage_sandbox.host.network.slirp import Namespaces, NetworkError, Slirp
from moorage_sandbox.host.processes.launcher import LaunchedProcess, Launcher, LaunchError, Program
from moorage_sandbox.host.sandboxes.layout import Layout, RuntimeFiles, StoredFiles

log = logging.getLogger(__name__)

GATE_GRACE_SECONDS = 1.0
SLIRP_PAUSE_SECONDS = 1.0
BOX_OOM_SCORE_ADJ = 500
"""What is in a sandbox is killed before what the platform and its people run."""


@dataclass(frozen=True)
class SharedResources:
    """What all sandboxes of a host share."""

    layout: Layout
    launcher: Launcher
    python: Python
    parents: CgroupParents
    limits: ResourceLimits
    has_network: bool
    unresponsive_seconds: float


@dataclass(frozen=True)
class SandboxParts:
    """`note` takes what works badly, and an empty text when it is well again: people see it.

    Each `run_…` returns why the process ended, and leaves nothing of it behind however it is left. They raise
    LaunchError or OSError when there is no process.
    """

    sandbox_uid: str
    identity: Identity
    kept: StoredFiles
    running: RuntimeFiles
    shared: SharedResources
    group: ControlGroup
    note: Callable[[str, str], None]
    listener: socket.socket | None = None
    """The gate's; a command has none."""
    _children: dict[str, LaunchedProcess] = field(default_factory=dict)

    def kill(self, name: str) -> None:
        """Gate or box. It is then run again by whoever keeps it."""
        if (child := self._children.get(name)) is not None:
            child.kill()

    async def run_gate(self) -> str:
        """Outside bubblewrap. Its socket is ours, so that it keeps its port and callers wait while it is restarted."""
        assert self.listener is not None
        state = self.kept.gate if self.identity.group is None else self.running.state
        child = await self.shared.launcher.launch(
            Program(
                name="gate",
                gate=[
                    "--listen-fd=3",
                    f"--box-socket={self.running.box_socket}",
                    f"--rfb-socket={self.running.rfb_socket}",
                    f"--state-dir={state}",
                    f"--trust-file={self.shared.layout.trust_file}",
                    f"--sandbox-uid={self.sandbox_uid}",
                ],
                uid=self.identity.gate,
                gid=self.identity.group,
                mounts=self._mounts(self.kept.gate, state),
                fds=[self.listener.fileno()],
            )
        )
        self._children["gate"] = child
        try:
            return how_it_ended(child, await child.wait())
        finally:
            await child.stop(grace_seconds=GATE_GRACE_SECONDS)

    async def run_screen(self) -> str:
        arguments = command_lines.vnc_arguments(
            python=self.shared.python,
            code=self.shared.layout.code / "vnc",
            etc=self.shared.layout.etc,
            sockets=self.running.rfb_socket.parent,
            x_sockets=self.running.x_sockets,
            limits=self._limit_arguments(),
        )
        async with self._confined("screen", arguments, uid=self.identity.vnc) as running:
            await running.begin()
            return how_it_ended(running.child, await running.child.wait())

    async def run_box(self) -> str:
        self.running.box_socket.unlink(missing_ok=True)  # of one that was killed: its existence says that a box is up
        home = self.kept.home if self.identity.group is None else self.running.home
        arguments = command_lines.box_arguments(
            python=self.shared.python,
            code=self.shared.layout.code / "box",
            etc=self.shared.layout.etc,
            home=home,
            sockets=self.running.box_socket.parent,
            x_sockets=self.running.x_sockets,
            limits=self._limit_arguments(),
        )
        mounts = self._mounts(self.kept.home, home)
        async with (
            self._confined("box", arguments, uid=self.identity.box, mounts=mounts) as running,
            self._connected(running.pid),
        ):
            self._children["box"] = running.child
            await running.begin()
            return how_it_ended(running.child, await running.child.wait())

    @asynccontextmanager
    async def running_command(
        self, stdio: socket.socket, paths: Sequence[Path], wanted: ResourceLimits
    ) -> AsyncIterator[LaunchedProcess]:
        """A program of others, told on `stdio` what it is. It ends when this is left."""
        home = self.kept.home if self.identity.group is None else self.running.home
        mounts = self._mounts(self.kept.home, home)
        visible = []
        for number, path in enumerate(paths):
            if self.identity.group is None:
                visible.append((path, path))
                continue
            place = self.running.root / f"path{number}"  # its user may have no way to the path itself
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
            self._confined("command", arguments, uid=self.identity.box, mounts=mounts, last_fd=stdio) as running,
            self._connected(running.pid),
        ):
            await running.begin()
            yield running.child

    def _confined(
        self,
        name: str,
        arguments: list[str],
        *,
        uid: int | None,
        mounts: list[tuple[str, str]] | None = None,
        last_fd: socket.socket | None = None,
    ) -> AbstractAsyncContextManager[ConfinedProcess]:
        return confined(
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

    @asynccontextmanager
    async def _connected(self, pid: int) -> AsyncIterator[None]:
        """A network for the box, before it runs anything. What cannot be closed is not opened: it goes without."""
        self.note("network", "")
        if not self.shared.has_network:
            yield
            return
        with ExitStack() as descriptors:
            keeping: asyncio.Task[None] | None = None
            try:
                namespaces = await network.namespaces_of(pid)
                descriptors.callback(namespaces.close)
                slirp = await self._open_network(namespaces)
                keeping = asyncio.create_task(self._keep_slirp(namespaces, slirp))
            except (NetworkError, LaunchError, OSError) as error:
                self.note("network", f"The sandbox has no network: {error}")
            try:
                yield
            finally:
                if keeping is not None:
                    keeping.cancel()
                    await asyncio.gather(keeping, return_exceptions=True)

    async def _open_network(self, namespaces: Namespaces) -> Slirp:
        """Routes and slirp at the same time: nothing is there yet that could use one without the other."""
        closing = asyncio.create_task(
            network.close_routes(self.shared.launcher, namespaces, uid=self.identity.box, gid=self.identity.group)
        )
        try:
            slirp = await self._start_slirp(namespaces)
            try:
                await closing
            except BaseException:
                await slirp.stop()
                raise
        finally:
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)
        return slirp

    async def _keep_slirp(self, namespaces: Namespaces, slirp: Slirp) -> None:
        """The routes stay in the box's namespace when slirp ends, so only slirp is started again."""
        while True:
            try:
                await slirp.child.wait()
            finally:
                await slirp.stop()
            self.note("network", "The sandbox's network is being restarted")
            while True:
                try:
                    slirp = await self._start_slirp(namespaces)
                except (NetworkError, LaunchError, OSError) as error:
                    self.note("network", f"The sandbox has no network: {error}")
                    await asyncio.sleep(SLIRP_PAUSE_SECONDS)
                else:
                    self.note("network", "")
                    break

    async def _start_slirp(self, namespaces: Namespaces) -> Slirp:
        return await network.start_slirp(
            self.shared.launcher, namespaces, uid=self.identity.box, gid=self.identity.group
        )

    def _mounts(self, source: os.PathLike[str], target: os.PathLike[str]) -> list[tuple[str, str]]:
        return [] if self.identity.group is None else [(str(source), str(target))]

    def _limit_arguments(self, wanted: ResourceLimits | None = None) -> list[str]:
        parents, wanted = self.shared.parents, wanted or self.shared.limits
        return command_lines.limit_arguments(
            processes=None if parents.bounds_processes else wanted.processes,
            data_bytes=None if parents.bounds_memory else wanted.memory_bytes,
        )


def how_it_ended(child: LaunchedProcess, code: int) -> str:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    said = f": {child.lines[-1]}" if child.lines else ""
    return f"the {child.name} {how}{said}"
