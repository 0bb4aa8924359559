"""What `doctor` asks: can a gate's user read all that a gate may import? See `readable_environment`."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from moorage_sandbox.host.processes.readable_environment import GATE_MODULES, below, root_of


def main(arguments: list[str]) -> None:
    """Become the user and group given by number; print the first path that they cannot read, if there is one."""
    uid, gid = (int(argument) for argument in arguments)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    os.chdir("/")
    library = Path(os.__file__).parent
    places = [library / name for name in ("asyncio", "ctypes", "email", "encodings", "http", "lib-dynload", "logging")]
    places += [root / name for name in GATE_MODULES if (root := root_of(name)) is not None]
    for path in (*library.iterdir(), *(path for place in places for path in below(place))):
        if not os.access(path, os.R_OK, follow_symlinks=not path.is_symlink()):
            sys.exit(f"{path} is not readable")
    importlib.import_module("moorage_sandbox.gate.main")
