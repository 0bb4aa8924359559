"""The host's side of the launcher: asks for processes, hears when they end, keeps the last of what they said."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moorage_sandbox.host.processes import fork_server, readable_environment

log = logging.getLogger(__name__)

READY_SECONDS = 20
LAUNCH_SECONDS = 5
KEPT_LINES = 20
LINE_BYTES = 400
READ_BYTES = 65_536
READ_PAUSE_SECONDS = 0.05
LOGGED_LINES = 200
"""A process may log so many lines in its life; what a command in a sandbox writes must not fill the host's log."""


class LaunchError(Exception):
    """A process could not be started. The text is for people."""


@dataclass(frozen=True)
class Program:
    """What to run, and as whom. Either `argv` (an absolute path first) or `gate`, the gate's arguments.

    `fds` arrive as descriptors 3, 4, … in their order. `join_fds` are such numbers: join the user namespace
    behind the first and the network namespace behind the second, if any. `mounts` and `own_tun`: see
    `launcher.mount_privately` and `launcher.show_tun`.
    What a chatty program says is kept for when it fails, but logged for debugging only.
    """

    name: str
    argv: Sequence[str] = ()
    gate: Sequence[str] | None = None
    is_chatty: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    uid: int | None = None
    gid: int | None = None
    cgroup_files: Sequence[str] = ()
    oom_score_adj: int | None = None
    mounts: Sequence[tuple[str, str]] = ()
    fds: Sequence[int] = ()
    join_fds: tuple[int, int | None] | None = None
    own_tun: bool = False


class LaunchedProcess:
    """A running process. `lines` are the last it wrote."""

    def __init__(self, name: str, pid: int, handle: int, output: int, *, is_chatty: bool) -> None:
        self.name = name
        self._level = logging.DEBUG if is_chatty else logging.INFO
        self.pid = pid
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._handle = handle
        self._output = output
        self._logged = 0
        self._rest = b""
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        os.set_blocking(output, False)
        asyncio.get_running_loop().add_reader(output, self._read)

    @property
    def is_running(self) -> bool:
        return not self._ended.done()

    async def wait(self) -> int:
        """The exit code, or minus the signal."""
        return await asyncio.shield(self._ended)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """By the handle, which can never mean another process that got the same id."""
        if self.is_running:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    async def stop(self, *, grace_seconds: float) -> None:
        if grace_seconds:
            self.kill(signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    await self.wait()
        self.kill()
        await self.wait()

    def set_ended(self, code: int) -> None:
        if self._ended.done():
            return
        with suppress(BlockingIOError):
            self._take_lines(os.read(self._output, READ_BYTES))
        asyncio.get_running_loop().remove_reader(self._output)
        os.close(self._output)
        os.close(self._handle)
        self._ended.set_result(code)

    def watch_handle(self) -> None:
        """Find out about the end without the launcher, which has gone."""
        if self.is_running:
            asyncio.get_running_loop().add_reader(self._handle, self._handle_is_readable)

    def _handle_is_readable(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        self.set_ended(-signal.SIGKILL)

    def _read(self) -> None:
        data = os.read(self._output, READ_BYTES)
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._output)
        if data:
            loop.call_later(READ_PAUSE_SECONDS, self._read_on)
        self._take_lines(data)

    def _take_lines(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-LINE_BYTES:]
        for line in lines[-LOGGED_LINES:]:
            self._keep(line[:LINE_BYTES].decode("utf-8", "replace").rstrip())

    def _read_on(self) -> None:
        """After a pause: who writes without end is slowed down, not served."""
        if self.is_running:
            asyncio.get_running_loop().add_reader(self._output, self._read)

    def _keep(self, line: str) -> None:
        if not line:
            return
        line = "".join(character if character.isprintable() else "?" for character in line)
        self.lines.append(line)
        self._logged += 1
        if self._logged <= LOGGED_LINES:
            log.log(self._level, "%s: %s", self.name, line)
        elif self._logged == LOGGED_LINES + 1:
            log.log(self._level, "%s: says more than is logged", self.name)


class Launcher:
    """Starts the launcher process, and starts it anew when it died; its children are gone then too.

    `shown_in`: as root, the directory in which it and its children see Python and the gate's packages.
    """

    def __init__(self, *, shown_in: Path | None) -> None:
        self._shown_in = shown_in
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[LaunchedProcess]] = {}
        self._requests: dict[int, tuple[Program, int]] = {}
        self._children: dict[int, LaunchedProcess] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._connection: socket.socket | None = None
        self._ready: asyncio.Future[None] | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Raises LaunchError when the launcher does not come up: the gate's packages are missing, most likely."""
        async with self._starting:
            if self._connection is None:
                await self._spawn()
        assert self._ready is not None
        try:
            async with asyncio.timeout(READY_SECONDS):
                await asyncio.shield(self._ready)
        except TimeoutError as error:
            raise LaunchError("The launcher does not answer") from error

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *readable_environment.command(self._shown_in, readable_environment.FORK_SERVER),
                str(theirs.fileno()),
                str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        self._connection = ours
        loop.add_reader(ours, self._read)

    async def launch(self, program: Program) -> LaunchedProcess:
        """Raises LaunchError. `program.fds` stay the caller's."""
        await self.start()
        assert self._connection is not None
        number = next(self._numbers)
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        answer: asyncio.Future[LaunchedProcess] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._requests[number] = (program, read_end)
        try:
            fork_server.send(self._connection, request_of(program, number), [write_end, *program.fds])
            async with asyncio.timeout(LAUNCH_SECONDS):
                return await answer
        except (OSError, TimeoutError) as error:
            raise LaunchError(f"{program.name} could not be started: {error!r}") from error
        finally:
            os.close(write_end)

    async def close(self) -> None:
        """End the launcher and with it whatever still runs."""
        if self._connection is not None:
            self._disconnect()
        if self._process is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._process.wait()
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()

    def _read(self) -> None:
        while self._connection is not None:
            try:
                data, fds = fork_server.receive(self._connection)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                self._disconnect()
                return
            self._take(json.loads(data), fds)

    def _take(self, message: dict[str, Any], fds: list[int]) -> None:
        if "ready" in message:
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
        elif "ended" in message:
            if child := self._children.pop(message["ended"], None):
                child.set_ended(message["code"])
        elif "error" in message:
            _, output = self._requests.pop(message["id"])
            os.close(output)
            answer = self._waiting.pop(message["id"])
            if not answer.done():
                answer.set_exception(LaunchError(message["error"]))
        else:
            program, output = self._requests.pop(message["id"])
            child = LaunchedProcess(program.name, message["pid"], fds[0], output, is_chatty=program.is_chatty)
            self._children[child.pid] = child
            answer = self._waiting.pop(message["id"])
            if answer.done():  # nobody waits for it any more
                child.kill()
            else:
                answer.set_result(child)

    def _disconnect(self) -> None:
        assert self._connection is not None
        asyncio.get_running_loop().remove_reader(self._connection)
        self._connection.close()
        self._connection = None
        error = LaunchError("The launcher ended")
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)
        for number, answer in self._waiting.items():
            os.close(self._requests.pop(number)[1])
            if not answer.done():
                answer.set_exception(error)
        self._waiting.clear()
        for child in self._children.values():
            child.watch_handle()
        self._children.clear()


def request_of(program: Program, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "name": program.name,
        "argv": list(program.argv),
        "gate": None if program.gate is None else list(program.gate),
        "env": dict(program.env),
        "uid": program.uid,
        "gid": program.gid,
        "cgroup_files": list(program.cgroup_files),
        "oom_score_adj": program.oom_score_adj,
        "mounts": [list(mount) for mount in program.mounts],
        "join_fds": program.join_fds,
        "own_tun": program.own_tun,
    }
