"""Starts a bubblewrap whose program waits for a signal to begin, and ends it with all of its processes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from moorage_common.processes import wait_readable
from moorage_sandbox.host.confinement import command_lines, seccomp
from moorage_sandbox.host.processes.launcher import LaunchedProcess, Launcher, LaunchError, Program

logger = logging.getLogger(__name__)

INFO_SECONDS = 5
START_SECONDS = 10
EMPTY_SECONDS = 2


@dataclass(frozen=True)
class ConfinedProcess:
    """A running bubblewrap. `pid` is the process id of its first process in the host's namespace."""

    child: LaunchedProcess
    pid: int
    start: socket.socket

    async def begin(self) -> None:
        """Let the program begin. Raises LaunchError when it has not started.

        The program first writes a byte. From then on the kernel ends it together with bubblewrap. If bubblewrap is
        killed earlier, the program waits for our byte, sees the end of the socket, and ends.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                await wait_readable(self.start.fileno())
                if self.start.recv(1):
                    self.start.send(b"!")
                    return
                await self.child.wait()
        except (TimeoutError, ConnectionError) as error:
            raise LaunchError(f"the {self.child.name} does not start: {error!r}") from error
        raise LaunchError(" ".join(["bubblewrap ended:", *self.child.lines]))


@asynccontextmanager
async def run_confined(
    launcher: Launcher, arguments: list[str], *, program: Program, last_fd: socket.socket | None = None
) -> AsyncIterator[ConfinedProcess]:
    """Run bubblewrap with `arguments`. When the block begins, its namespaces exist and its program waits for `begin`.

    After the block no process runs in them. `program` gives the users, limits and mounts. `last_fd` is passed to the
    program after bubblewrap's own descriptors.
    """
    with ExitStack() as descriptors:
        info_reader, info_writer = open_pipe(descriptors)
        ours, theirs = socket.socketpair()
        descriptors.callback(ours.close)
        descriptors.callback(theirs.close)
        fds = [info_writer.number, theirs.fileno()]
        if (filter_file := seccomp.open_filter_file()) is not None:
            descriptors.callback(os.close, filter_file)
            fds.append(filter_file)
        if last_fd is not None:
            fds.append(last_fd.fileno())
        argv = command_lines.bwrap_command(arguments, has_filter=filter_file is not None)
        child = await launcher.launch(replace(program, argv=argv, fds=fds))
        try:
            info_writer.close()
            theirs.close()
            pid = await read_info(info_reader.number, child)
            first_process = os.pidfd_open(pid)
            descriptors.callback(os.close, first_process)
        except BaseException:
            await child.stop(grace_seconds=0)
            raise
        try:
            yield ConfinedProcess(child, pid, ours)
        finally:
            await child.stop(grace_seconds=0)
            await wait_empty(first_process, program.name)


class Descriptor:
    """One end of a pipe. Closing it twice is safe."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._is_open = True

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            os.close(self.number)


def open_pipe(descriptors: ExitStack) -> tuple[Descriptor, Descriptor]:
    reader, writer = (Descriptor(number) for number in os.pipe2(os.O_CLOEXEC))
    descriptors.callback(reader.close)
    descriptors.callback(writer.close)
    return reader, writer


async def read_info(fd: int, child: LaunchedProcess) -> int:
    """Read the process id of bubblewrap's first process. Raises LaunchError when bubblewrap ends before it has one."""
    data = b""
    try:
        async with asyncio.timeout(INFO_SECONDS):
            while b"}" not in data:
                await wait_readable(fd)
                chunk = os.read(fd, 4096)
                if not chunk:
                    await child.wait()
                    raise LaunchError(" ".join(["bubblewrap ended:", *child.lines]))
                data += chunk
    except TimeoutError:
        raise LaunchError("bubblewrap does not answer") from None
    return int(json.loads(data)["child-pid"])


async def wait_empty(first_process: int, name: str) -> None:
    """Wait until no process runs in the namespaces. The first process ends after all others have ended."""
    try:
        async with asyncio.timeout(EMPTY_SECONDS):
            await wait_readable(first_process)
    except TimeoutError:
        logger.warning("Processes of a %s have not ended within %s s", name, EMPTY_SECONDS)
