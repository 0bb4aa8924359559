"""The kernel users and groups of a sandbox's processes."""

from __future__ import annotations

import os
from dataclasses import dataclass

UIDS_PER_SANDBOX = 4


@dataclass(frozen=True)
class Identity:
    """The three users and the group of a sandbox. All are None if the host does not run as root.

    The group lets the three processes reach each other's sockets. Files belong to one user only.
    """

    gate: int | None
    box: int | None
    vnc: int | None
    group: int | None


HOST_IDENTITY = Identity(None, None, None, None)
"""The processes run as the host's own user."""


def is_root() -> bool:
    return os.geteuid() == 0


def identity_of(slot: int, *, uid_base: int) -> Identity:
    """Return the users of a slot. If the host is root each sandbox needs its own users, or it would be root too."""
    if not is_root():
        return HOST_IDENTITY
    first = uid_base + slot * UIDS_PER_SANDBOX
    return Identity(gate=first + 1, box=first + 2, vnc=first + 3, group=first)


def change_owner(path: str | os.PathLike[str], *, uid: int | None, gid: int | None, mode: int) -> None:
    """Set owner and mode of a new directory. If the host is not root, the owner stays the same."""
    if uid is not None and gid is not None:
        os.chown(path, uid, gid, follow_symlinks=False)
    os.chmod(path, mode)


def change_owner_of_all(path: str | os.PathLike[str], *, uid: int, gid: int | None) -> None:
    """Give a tree to another user, because its sandbox has a new slot. Links are changed themselves, not followed."""
    group = -1 if gid is None else gid
    os.chown(path, uid, group)
    for parent, directories, files in os.walk(path):
        for name in (*directories, *files):
            os.chown(os.path.join(parent, name), uid, group, follow_symlinks=False)
