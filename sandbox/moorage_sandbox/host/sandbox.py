"""One sandbox: keeps its gate, its box and its screen running until it is told to stop."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from moorage_sandbox.host import confinement, layout, limits, network
from moorage_sandbox.host.confinement import Python
from moorage_sandbox.host.descriptors import readable
from moorage_sandbox.host.identities import Identity
from moorage_sandbox.host.launching import Child, Launcher, LaunchError, Program
from moorage_sandbox.host.layout import Kept, Layout, Record, Running
from moorage_sandbox.host.limits import Group, Limits, Parents
from moorage_sandbox.host.network import Namespaces, NetworkError, Slirp

log = logging.getLogger(__name__)

BACKOFF_SECONDS = (0.0, 0.2, 0.5, 1.0, 2.0)
"""Before the first, second, … restart in a row."""
LONGEST_BACKOFF_SECONDS = 30.0
STEADY_SECONDS = 10.0
"""A process that lived so long did not fail at its start: counting begins anew."""
INFO_SECONDS = 5
READY_SECONDS = 20
PROBE_SECONDS = 2
PROBE_PAUSE_SECONDS = 0.005
GATE_GRACE_SECONDS = 1.0
BACKLOG = 256


class Phase(StrEnum):
    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"


class SandboxFailedError(Exception):
    """A sandbox cannot run. The text is for people."""


@dataclass(frozen=True)
class Surroundings:
    """What all sandboxes of a host share."""

    layout: Layout
    launcher: Launcher
    python: Python
    parents: Parents
    limits: Limits
    has_network: bool


class Sandbox:
    """`record`, `kept` and `running` say who and where it is. Its listening socket lives as long as it does, so a gate
    that is restarted keeps its port, and callers that come meanwhile wait instead of failing."""

    def __init__(self, record: Record, identity: Identity, surroundings: Surroundings) -> None:
        self.record = record
        self._identity = identity
        self._shared = surroundings
        self._kept: Kept = surroundings.layout.kept(record.session_id)
        self._running: Running = surroundings.layout.running(record.slot)
        self._listener: socket.socket | None = None
        self._group: Group | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()
        self._lost.set()
        self._failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._notes: dict[str, str] = {}
        self._children: dict[str, Child] = {}

    @property
    def url(self) -> str:
        assert self._listener is not None
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def phase(self) -> Phase:
        if self._failed.done():
            return Phase.FAILED
        return Phase.READY if self._ready.is_set() else Phase.STARTING

    @property
    def reason(self) -> str:
        """Why it failed, or what does not work although it runs; empty when all is well."""
        return self._failed.result() if self._failed.done() else "; ".join(self._notes.values())

    def start(self) -> None:
        """Raises OSError when its directories or limits cannot be made."""
        layout.make_kept(self._kept, self._identity)
        layout.make_running(self._running, self._identity)
        parents = self._shared.parents
        self._group = limits.make_group(parents, self._group_name(), self._shared.limits)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self._tasks = [
            asyncio.create_task(self._keep("gate", self._run_gate, is_essential=True)),
            asyncio.create_task(self._keep("box", self._run_box, is_essential=True)),
            asyncio.create_task(self._keep("screen", self._run_vnc, is_essential=False)),
            asyncio.create_task(self._watch_readiness()),
        ]

    async def wait_ready(self) -> None:
        """Gate and box answer. Raises SandboxFailedError, also when it takes too long."""
        waiter = asyncio.ensure_future(self._ready.wait())
        futures: set[asyncio.Future[Any]] = {waiter, self._failed}
        try:
            await asyncio.wait(futures, timeout=READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
        if self._failed.done():
            raise SandboxFailedError(self._failed.result())
        if not self._ready.is_set():
            raise SandboxFailedError(f"The sandbox did not answer within {READY_SECONDS} s")

    async def stop(self) -> None:
        """End every process, then what they ran in. Safe to call twice."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._group is not None:
            await self._group.remove()
        if self._listener is not None:
            self._listener.close()
        if not self._failed.done():
            self._failed.set_result("The sandbox was ended")
        layout.remove_running(self._running)

    def _group_name(self) -> str:
        return f"moorage-{self._shared.layout.name}-{self.record.slot}"

    async def _keep(self, name: str, run: Callable[[], Awaitable[str]], *, is_essential: bool) -> None:
        """Run it, and again when it ended. `run` returns, or raises LaunchError or OSError with, the reason."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                reason = await run()
            except (LaunchError, NetworkError, OSError, TimeoutError) as error:
                reason = f"the {name} did not start: {error}"
            if is_essential:
                self._ready.clear()
                self._lost.set()
            if self._failed.done():
                return
            if time.monotonic() - began > STEADY_SECONDS:
                failures = 0
            log.warning("Sandbox %s: %s", self.record.session_id, reason)
            if failures < len(BACKOFF_SECONDS):
                pause = BACKOFF_SECONDS[failures]
            elif is_essential:
                self._fail(reason)
                return
            else:
                self._notes[name] = reason
                pause = LONGEST_BACKOFF_SECONDS
            failures += 1
            await asyncio.sleep(pause)

    def _fail(self, reason: str) -> None:
        if not self._failed.done():
            self._failed.set_result(reason[:1].upper() + reason[1:])
        for child in self._children.values():
            child.kill()

    async def _run_gate(self) -> str:
        assert self._listener is not None
        state = self._kept.gate if self._identity.group is None else self._running.state
        return await self._run(
            Program(
                name="gate",
                gate=[
                    "--listen-fd=3",
                    f"--box-socket={self._running.box_socket}",
                    f"--rfb-socket={self._running.rfb_socket}",
                    f"--state-dir={state}",
                    f"--trust-file={self._shared.layout.trust_file}",
                    f"--sandbox-uid={self.record.uid}",
                ],
                uid=self._identity.gate,
                gid=self._identity.group,
                mounts=self._mount(self._kept.gate, state),
                fds=[self._listener.fileno()],
            ),
            grace_seconds=GATE_GRACE_SECONDS,
        )

    async def _run_vnc(self) -> str:
        command = confinement.vnc_command(
            python=self._shared.python,
            code=self._shared.layout.code / "vnc",
            etc=self._shared.layout.etc,
            sockets=self._running.rfb_socket.parent,
            x_sockets=self._running.x_sockets,
            limits=self._limit_arguments(),
        )
        return await self._run(self._confined("screen", command, uid=self._identity.vnc))

    async def _run_box(self) -> str:
        home = self._kept.home if self._identity.group is None else self._running.home
        command = confinement.box_command(
            python=self._shared.python,
            code=self._shared.layout.code / "box",
            etc=self._shared.layout.etc,
            home=home,
            sockets=self._running.box_socket.parent,
            x_sockets=self._running.x_sockets,
            limits=self._limit_arguments(),
        )
        with ExitStack() as descriptors:
            info_reader, info_writer = os.pipe2(os.O_CLOEXEC)
            block_reader, block_writer = os.pipe2(os.O_CLOEXEC)
            for fd in (info_reader, block_reader, block_writer):
                descriptors.callback(os.close, fd)
            with ExitStack() as handed_over:
                handed_over.callback(os.close, info_writer)
                program = self._confined(
                    "box",
                    command,
                    uid=self._identity.box,
                    mounts=self._mount(self._kept.home, home),
                    fds=[info_writer, block_reader],
                    oom_score_adj=500,
                )
                child = await self._shared.launcher.launch(program)
            self._children["box"] = child
            slirp: asyncio.Task[None] | None = None
            try:
                pid = await read_info(info_reader, child)
                namespaces = network.namespaces_of(pid)
                descriptors.callback(namespaces.close)
                slirp = await self._connect(namespaces)
                os.write(block_writer, b"\n")
                return ended("box", await child.wait(), child)
            finally:
                await child.stop(grace_seconds=0)
                if slirp is not None:
                    slirp.cancel()
                    await asyncio.gather(slirp, return_exceptions=True)

    async def _connect(self, namespaces: Namespaces) -> asyncio.Task[None] | None:
        """Give a box its network, before it runs anything. What cannot be closed is not opened: it goes without."""
        self._notes.pop("network", None)
        if not self._shared.has_network:
            return None
        owner = {"uid": self._identity.box, "gid": self._identity.group}
        try:
            await network.close_routes(self._shared.launcher, namespaces, **owner)
            first = await network.start_slirp(self._shared.launcher, namespaces, **owner)
        except (NetworkError, LaunchError, OSError, TimeoutError) as error:
            self._notes["network"] = f"The sandbox has no network: {error}"
            log.warning("Sandbox %s: %s", self.record.session_id, self._notes["network"])
            return None
        return asyncio.create_task(self._keep_network(namespaces, first))

    async def _keep_network(self, namespaces: Namespaces, slirp: Slirp) -> None:
        """The routes stay in the box's namespace when slirp ends, so only slirp is started again."""
        failures = 0
        while True:
            try:
                await slirp.child.wait()
            finally:
                await slirp.stop()
            while True:
                await asyncio.sleep(BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)])
                failures += 1
                try:
                    slirp = await network.start_slirp(
                        self._shared.launcher, namespaces, uid=self._identity.box, gid=self._identity.group
                    )
                except (NetworkError, LaunchError, OSError) as error:
                    self._notes["network"] = f"The sandbox has no network: {error}"
                else:
                    self._notes.pop("network", None)
                    break

    async def _run(self, program: Program, *, grace_seconds: float = 0) -> str:
        child = await self._shared.launcher.launch(program)
        self._children[program.name] = child
        try:
            return ended(program.name, await child.wait(), child)
        finally:
            await child.stop(grace_seconds=grace_seconds)

    def _confined(
        self,
        name: str,
        command: list[str],
        *,
        uid: int | None,
        mounts: list[tuple[str, str]] | None = None,
        fds: list[int] | None = None,
        oom_score_adj: int | None = None,
    ) -> Program:
        assert self._group is not None
        return Program(
            name=name,
            argv=command,
            uid=uid,
            gid=self._identity.group,
            cgroup_files=self._group.join_files,
            oom_score_adj=oom_score_adj,
            mounts=mounts or [],
            fds=fds or [],
        )

    def _mount(self, source: os.PathLike[str], target: os.PathLike[str]) -> list[tuple[str, str]]:
        return [] if self._identity.group is None else [(str(source), str(target))]

    def _limit_arguments(self) -> list[str]:
        parents, wanted = self._shared.parents, self._shared.limits
        return confinement.limit_arguments(
            processes=None if parents.bounds_processes else wanted.processes,
            data_bytes=None if parents.bounds_memory else wanted.memory_bytes,
        )

    async def _watch_readiness(self) -> None:
        """Set readiness when gate and box answer; `_keep` takes it away when one of them ends."""
        while True:
            await self._lost.wait()
            self._lost.clear()
            while not await is_ready(self.url):  # noqa: ASYNC110 - another process's readiness
                await asyncio.sleep(PROBE_PAUSE_SECONDS)
            if not self._lost.is_set():
                self._ready.set()


def ended(name: str, code: int, child: Child) -> str:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    said = f": {child.lines[-1]}" if child.lines else ""
    return f"the {name} {how}{said}"


async def read_info(fd: int, child: Child) -> int:
    """The process id of bubblewrap's first process. Raises LaunchError when there will be none."""
    data = b""
    try:
        async with asyncio.timeout(INFO_SECONDS):
            while b"}" not in data:
                await readable(fd)
                chunk = os.read(fd, 4096)
                if not chunk:
                    break
                data += chunk
    except TimeoutError:
        raise LaunchError("bubblewrap does not answer") from None
    try:
        return int(json.loads(data)["child-pid"])
    except (ValueError, KeyError):
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await child.wait()
        raise LaunchError("bubblewrap ended: " + " ".join(child.lines)) from None


async def is_ready(url: str) -> bool:
    """Whether the gate says that the box answers. A gate that is starting keeps us waiting in its socket's queue."""
    host, _, port = url.removeprefix("http://").partition(":")
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n")
                status = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return False
    return status.split(b" ")[1:2] == [b"200"]
