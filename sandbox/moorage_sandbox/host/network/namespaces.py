"""The namespaces of a box, which its routes and its slirp4netns are set up in."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

from moorage_sandbox.host.network.programs import NetworkError

NS_GET_USERNS = 0xB701
"""linux/nsfs.h: the user namespace that owns the namespace of a descriptor."""

MAPPED_SECONDS = 5
MAPPED_PAUSE_SECONDS = 0.002


@dataclass(frozen=True)
class Namespaces:
    """Descriptors of a box's network namespace, and of the user namespace whose root may change it.

    No process in the box is that root.
    """

    user: int
    net: int

    def close(self) -> None:
        os.close(self.user)
        os.close(self.net)


async def open_namespaces(pid: int) -> Namespaces:
    """Open the namespaces of a box's first process. Raises NetworkError, or OSError when the process has ended."""
    deadline = time.monotonic() + MAPPED_SECONDS
    while not has_user_mapping(pid):
        if time.monotonic() > deadline:
            raise NetworkError(f"bubblewrap did not set up its users within {MAPPED_SECONDS} s")
        await asyncio.sleep(MAPPED_PAUSE_SECONDS)
    net = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        user = fcntl.ioctl(net, NS_GET_USERNS)
    except OSError:
        os.close(net)
        raise
    os.set_inheritable(user, False)
    return Namespaces(user=user, net=net)


def has_user_mapping(pid: int) -> bool:
    """Whether bubblewrap has written its user mapping. It reports its process id earlier than that."""
    return bool(Path(f"/proc/{pid}/gid_map").read_text())
