"""The trial of `doctor`: whether a gate's user can read everything that a gate imports. See `readable_environment`."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from moorage_sandbox.host.processes.readable_environment import GATE_MODULES, find_root, walk_tree


def main(arguments: list[str]) -> None:
    """Change to the given user and group, and exit with the first path that they cannot read, if there is one."""
    uid, gid = (int(argument) for argument in arguments)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    os.chdir("/")
    library = Path(os.__file__).parent
    places = [library / name for name in ("asyncio", "ctypes", "email", "encodings", "http", "lib-dynload", "logging")]
    places += [root / name for name in GATE_MODULES if (root := find_root(name)) is not None]
    for path in (*library.iterdir(), *(path for place in places for path in walk_tree(place))):
        if not os.access(path, os.R_OK, follow_symlinks=not path.is_symlink()):
            sys.exit(f"{path} is not readable")
    importlib.import_module("moorage_sandbox.gate.main")
