"""The host's client of the fork server: starts processes, learns when they end, and keeps their last output."""

from __future__ import annotations

import asyncio
import contextvars
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

logger = logging.getLogger(__name__)

READY_SECONDS = 20
LAUNCH_SECONDS = 5
KEPT_LINES = 20
LINE_BYTES = 400
READ_BYTES = 65_536
READ_PAUSE_SECONDS = 0.05
LOGGED_LINES = 200
"""How many lines of a process are logged. The output of a sandbox must not fill the host's log."""


class LaunchError(Exception):
    """A process could not be started. The text is for people."""


@dataclass(frozen=True)
class Program:
    """What to run and as which user: either `argv` (beginning with an absolute path) or `gate`, the gate's arguments.

    `fds` become descriptors 3, 4, … in their order. `join_fds` are such numbers: the process joins the user namespace
    of the first and the network namespace of the second, if any. For `mounts` and `own_tun` see
    `fork_server.mount_privately` and `fork_server.mount_own_tun`.
    The output of a chatty program is logged only at DEBUG.
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
    """A running process. `lines` are the last lines that it wrote. They are logged in the context of its creation."""

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
        """Send a signal through the pidfd, which can never refer to another process that got the same id."""
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
            self._add_lines(os.read(self._output, READ_BYTES))
        asyncio.get_running_loop().remove_reader(self._output)
        os.close(self._output)
        os.close(self._handle)
        self._ended.set_result(code)

    def watch_handle(self) -> None:
        """Watch the pidfd for the end of the process, because the fork server has ended and reports nothing."""
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
            loop.call_later(READ_PAUSE_SECONDS, self._resume_reading)
        self._add_lines(data)

    def _add_lines(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-LINE_BYTES:]
        for line in lines[-LOGGED_LINES:]:
            self._keep_line(line[:LINE_BYTES].decode("utf-8", "replace").rstrip())

    def _resume_reading(self) -> None:
        """Read again after a pause, so that a process which writes without end is slowed down."""
        if self.is_running:
            asyncio.get_running_loop().add_reader(self._output, self._read)

    def _keep_line(self, line: str) -> None:
        if not line:
            return
        line = "".join(character if character.isprintable() else "?" for character in line)
        self.lines.append(line)
        self._logged += 1
        if self._logged <= LOGGED_LINES:
            logger.log(self._level, "%s: %s", self.name, line)
        elif self._logged == LOGGED_LINES + 1:
            logger.log(self._level, "%s: has written %d lines; the rest is not logged", self.name, LOGGED_LINES)


class Launcher:
    """Starts processes through the fork server. A fork server that ended is started again; its children ended with it.

    `mounted_in`: if the host is root, the directory in which the processes see Python and the gate's packages.
    """

    def __init__(self, *, mounted_in: Path | None) -> None:
        self._mounted_in = mounted_in
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[LaunchedProcess]] = {}
        self._requests: dict[int, tuple[Program, int, contextvars.Context]] = {}
        self._children: dict[int, LaunchedProcess] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._connection: socket.socket | None = None
        self._ready: asyncio.Future[None] | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Start the fork server. Raises LaunchError if it does not start, for example without the gate's packages."""
        async with self._starting:
            if self._connection is None:
                await self._spawn()
        assert self._ready is not None
        try:
            async with asyncio.timeout(READY_SECONDS):
                await asyncio.shield(self._ready)
        except TimeoutError as error:
            raise LaunchError(f"The fork server did not start within {READY_SECONDS} s") from error

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *readable_environment.module_command(self._mounted_in, readable_environment.FORK_SERVER),
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
        """Start a program. The caller keeps and closes `program.fds`. Raises LaunchError."""
        await self.start()
        assert self._connection is not None
        number = next(self._numbers)
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        answer: asyncio.Future[LaunchedProcess] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._requests[number] = (program, read_end, contextvars.copy_context())
        try:
            fork_server.send(self._connection, to_request(program, number), [write_end, *program.fds])
            async with asyncio.timeout(LAUNCH_SECONDS):
                return await answer
        except (OSError, TimeoutError) as error:
            raise LaunchError(f"{program.name} could not be started: {error!r}") from error
        finally:
            os.close(write_end)

    async def close(self) -> None:
        """End the fork server and all of its children."""
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
            self._handle_message(json.loads(data), fds)

    def _handle_message(self, message: dict[str, Any], fds: list[int]) -> None:
        if "ready" in message:
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
        elif "ended" in message:
            if child := self._children.pop(message["ended"], None):
                child.set_ended(message["code"])
        elif "error" in message:
            _, output, _ = self._requests.pop(message["id"])
            os.close(output)
            answer = self._waiting.pop(message["id"])
            if not answer.done():
                answer.set_exception(LaunchError(message["error"]))
        else:
            program, output, context = self._requests.pop(message["id"])
            child = context.run(
                LaunchedProcess, program.name, message["pid"], fds[0], output, is_chatty=program.is_chatty
            )
            self._children[child.pid] = child
            answer = self._waiting.pop(message["id"])
            if answer.done():  # the caller no longer waits for it
                child.kill()
            else:
                answer.set_result(child)

    def _disconnect(self) -> None:
        assert self._connection is not None
        asyncio.get_running_loop().remove_reader(self._connection)
        self._connection.close()
        self._connection = None
        error = LaunchError("The fork server ended; the host's log has its last output")
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


def to_request(program: Program, number: int) -> dict[str, Any]:
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
