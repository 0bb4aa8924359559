"""The routes of a box. They prohibit private ranges and every address of this machine."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterable
from pathlib import Path

from moorage_sandbox.host.network.namespaces import Namespaces
from moorage_sandbox.host.network.programs import NetworkError, find_program
from moorage_sandbox.host.processes.launcher import Launcher, Program

FIB_TRIE = Path("/proc/net/fib_trie")
LOCAL_ENTRY = re.compile(r"\|-- ([\d.]+)\n\s+(/\d+) host LOCAL")

SET_SECONDS = 5

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
"""Private, shared, link-local (with cloud metadata), benchmarking, multicast and reserved ranges.

Source: IANA's special-purpose registry. slirp's own network, 10.0.2.0/24, has a more specific route and stays open; in
it only 10.0.2.3 answers, with DNS.
"""

CLOSED_RANGES_V6 = ("::/0",)
"""slirp is started without IPv6."""


def find_own_ranges(trie: str | None = None) -> list[str]:
    """Every range of this machine's own addresses, the public ones too: slirp could reach what listens on them."""
    trie = FIB_TRIE.read_text() if trie is None else trie
    return sorted({"".join(match) for match in LOCAL_ENTRY.findall(trie)})


def route_commands(own: Iterable[str]) -> str:
    """Return the input of `ip -batch` that prohibits all closed ranges."""
    return "".join(f"route replace prohibit {closed}\n" for closed in (*CLOSED_RANGES, *own, *CLOSED_RANGES_V6))


async def close_routes(launcher: Launcher, namespaces: Namespaces, *, uid: int | None, gid: int | None) -> None:
    """Set the routes in the network namespace of a box. Raises NetworkError or LaunchError."""
    ip = find_program("ip", "/usr/sbin/ip", "/sbin/ip", package="iproute2")
    commands = route_commands(find_own_ranges())
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
            async with asyncio.timeout(SET_SECONDS):
                code = await child.wait()
        except TimeoutError:
            child.kill()
            raise NetworkError(f"The routes were not set within {SET_SECONDS} s") from None
    finally:
        os.close(batch)
    if code != 0:
        raise NetworkError("The routes could not be set: " + " ".join(child.lines))
