"""Who a sandbox's processes are to the kernel."""

from __future__ import annotations

import os
from dataclasses import dataclass

UIDS_PER_SANDBOX = 4


@dataclass(frozen=True)
class Identity:
    """Three users and one group of a sandbox, or all None when the host is an ordinary user and so are they.

    The group is what lets the three reach each other's sockets; files are their users' alone.
    """

    gate: int | None
    box: int | None
    vnc: int | None
    group: int | None


NOBODY_ELSE = Identity(None, None, None, None)


def is_root() -> bool:
    return os.geteuid() == 0


def identity_of(slot: int, *, uid_base: int) -> Identity:
    """A bubblewrap that root starts is root to the kernel whatever it shows inside, so as root each gets its own."""
    if not is_root():
        return NOBODY_ELSE
    first = uid_base + slot * UIDS_PER_SANDBOX
    return Identity(gate=first + 1, box=first + 2, vnc=first + 3, group=first)


def give(path: str | os.PathLike[str], *, uid: int | None, gid: int | None, mode: int) -> None:
    """Set owner and mode of a directory just made. As an ordinary user there is nobody to give it to."""
    if uid is not None and gid is not None:
        os.chown(path, uid, gid, follow_symlinks=False)
    os.chmod(path, mode)


def give_all(path: str | os.PathLike[str], *, uid: int, gid: int | None) -> None:
    """A tree that nobody uses, to another user: its sandbox has a new number. Links are given, not followed."""
    group = -1 if gid is None else gid
    os.chown(path, uid, group)
    for parent, directories, files in os.walk(path):
        for name in (*directories, *files):
            os.chown(os.path.join(parent, name), uid, group, follow_symlinks=False)
