"""A sandbox's way out: slirp4netns to public addresses, and routes that close every other."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from moorage_common.processes import wait_readable
from moorage_sandbox.host.processes.fork_server import TUN
from moorage_sandbox.host.processes.launcher import LaunchedProcess, Launcher, Program

FIB_TRIE = Path("/proc/net/fib_trie")
LOCAL_ENTRY = re.compile(r"\|-- ([\d.]+)\n\s+(/\d+) host LOCAL")

NS_GET_USERNS = 0xB701
"""linux/nsfs.h: the user namespace that owns the one behind a descriptor."""

READY_SECONDS = 5
MAPPED_PAUSE_SECONDS = 0.002

CLOSED_RANGES = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
"""Private, shared, link-local (and with it metadata), benchmarking, multicast, reserved: IANA's special-purpose
registry. slirp's own net, 10.0.2.0/24, is more specific and stays: 10.0.2.3 answers DNS, nothing else answers."""

CLOSED_RANGES_V6 = ("::/0",)
"""slirp is started without IPv6."""


class NetworkError(Exception):
    """A sandbox has no network. The text is for people."""


@dataclass(frozen=True)
class Namespaces:
    """Of a box: its network namespace and the user namespace whose root may change it. Nobody inside is that root."""

    user: int
    net: int

    def close(self) -> None:
        os.close(self.user)
        os.close(self.net)


async def namespaces_of(pid: int) -> Namespaces:
    """Raises NetworkError, or OSError when the process has ended."""
    deadline = time.monotonic() + READY_SECONDS
    while not has_users(pid):
        if time.monotonic() > deadline:
            raise NetworkError("bubblewrap does not set up its users")
        await asyncio.sleep(MAPPED_PAUSE_SECONDS)
    net = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        user = fcntl.ioctl(net, NS_GET_USERNS)
    except OSError:
        os.close(net)
        raise
    os.set_inheritable(user, False)
    return Namespaces(user=user, net=net)


def has_users(pid: int) -> bool:
    """bubblewrap tells its id before it has written this; until then nobody is root of the user namespace."""
    return bool(Path(f"/proc/{pid}/gid_map").read_text())


def own_addresses(trie: str | None = None) -> list[str]:
    """Every range that is this machine itself, public addresses included: slirp would reach what listens on them."""
    trie = FIB_TRIE.read_text() if trie is None else trie
    return sorted({"".join(match) for match in LOCAL_ENTRY.findall(trie)})


def route_commands(own: Iterable[str]) -> str:
    """Input of `ip -batch`."""
    return "".join(f"route replace prohibit {closed}\n" for closed in (*CLOSED_RANGES, *own, *CLOSED_RANGES_V6))


def tool(name: str, *places: str, package: str) -> str:
    found = shutil.which(name) or next((place for place in places if os.access(place, os.X_OK)), None)
    if found is None:
        raise NetworkError(f"{name} is missing (apt-get install {package})")
    return found


async def close_routes(launcher: Launcher, namespaces: Namespaces, *, uid: int | None, gid: int | None) -> None:
    """Raises NetworkError or LaunchError."""
    ip = tool("ip", "/usr/sbin/ip", "/sbin/ip", package="iproute2")
    commands = route_commands(own_addresses())
    batch = os.memfd_create("routes", os.MFD_CLOEXEC)
    try:
        os.write(batch, commands.encode())
        os.lseek(batch, 0, os.SEEK_SET)
        child = await launcher.launch(
            Program(
                name="routes",
                is_chatty=True,
                argv=[ip, "-batch", "/proc/self/fd/5"],
                uid=uid,
                gid=gid,
                fds=[namespaces.user, namespaces.net, batch],
                join_fds=(3, 4),
            )
        )
        try:
            async with asyncio.timeout(READY_SECONDS):
                code = await child.wait()
        except TimeoutError:
            child.kill()
            raise NetworkError("The routes were not set in time") from None
    finally:
        os.close(batch)
    if code != 0:
        raise NetworkError("The routes were not set: " + " ".join(child.lines))


def is_everybodys(device: str) -> bool:
    try:
        return os.stat(device).st_mode & 0o006 == 0o006
    except FileNotFoundError:
        return True  # slirp4netns says so itself


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
    """Up with its interface configured. Raises NetworkError or LaunchError."""
    program = tool("slirp4netns", package="slirp4netns")
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
                own_tun=uid is not None and not is_everybodys(TUN),
            )
        )
        theirs.close()  # so that its end is seen when it ends
        abandoned.callback(child.kill)
        try:
            async with asyncio.timeout(READY_SECONDS):
                await wait_readable(ready_reader)
        except TimeoutError:
            raise NetworkError("slirp4netns does not answer") from None
        if not os.read(ready_reader, 1):
            raise NetworkError("slirp4netns ended: " + " ".join(child.lines))
        abandoned.pop_all()
        return Slirp(child, exit_writer)
