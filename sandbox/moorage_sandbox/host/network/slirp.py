"""Runs slirp4netns, which carries the packets of a box to the network of the host."""

from __future__ import annotations

import os
from contextlib import ExitStack

from moorage_common.processes import wait_readable
from moorage_sandbox.host.network.namespaces import Namespaces
from moorage_sandbox.host.network.programs import NetworkError, find_program
from moorage_sandbox.host.processes.fork_server import TUN
from moorage_sandbox.host.processes.launcher import LaunchedProcess, Launcher, Program

READY_SECONDS = 5


class Slirp:
    """A running slirp4netns. It ends by itself when the host's end of its exit pipe closes."""

    def __init__(self, child: LaunchedProcess, exit_pipe: int) -> None:
        self.child = child
        self._exit_pipe = exit_pipe

    async def stop(self) -> None:
        if self._exit_pipe >= 0:
            os.close(self._exit_pipe)
            self._exit_pipe = -1
        await self.child.stop(grace_seconds=0)


async def start_slirp(launcher: Launcher, namespaces: Namespaces, *, uid: int | None, gid: int | None) -> Slirp:
    """Start slirp4netns and wait until the box's interface is configured. Raises NetworkError or LaunchError."""
    program = find_program("slirp4netns", package="slirp4netns")
    with ExitStack() as ours:
        ready_reader, ready_writer = os.pipe2(os.O_CLOEXEC)
        exit_reader, exit_writer = os.pipe2(os.O_CLOEXEC)
        for fd in (ready_reader, exit_reader):
            ours.callback(os.close, fd)
        theirs = ours.enter_context(ExitStack())
        theirs.callback(os.close, ready_writer)
        abandoned = ours.enter_context(ExitStack())
        abandoned.callback(os.close, exit_writer)
        child = await launcher.launch(
            Program(
                name="network",
                is_chatty=True,
                argv=[
                    program,
                    "--configure",
                    "--mtu=65520",
                    "--disable-host-loopback",
                    "--enable-sandbox",
                    "--enable-seccomp",
                    "--netns-type=path",
                    "--ready-fd=5",
                    "--exit-fd=6",
                    "/proc/self/fd/4",
                    "tap0",
                ],
                uid=uid,
                gid=gid,
                fds=[namespaces.user, namespaces.net, ready_writer, exit_reader],
                join_fds=(3, None),
                own_tun=uid is not None and not is_open_to_all(TUN),
            )
        )
        theirs.close()  # otherwise the pipe stays open when slirp4netns ends
        abandoned.callback(child.kill)
        if not await wait_readable(ready_reader, timeout_seconds=READY_SECONDS):
            raise NetworkError(f"slirp4netns was not ready within {READY_SECONDS} s")
        if not os.read(ready_reader, 1):
            raise NetworkError("slirp4netns ended: " + " ".join(child.lines))
        abandoned.pop_all()
        return Slirp(child, exit_writer)


def is_open_to_all(device: str) -> bool:
    try:
        return os.stat(device).st_mode & 0o006 == 0o006
    except FileNotFoundError:
        return True  # slirp4netns reports the missing device
