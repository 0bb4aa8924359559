"""A process without root, started by tests that may run as root."""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path

import moorage_sandbox
from moorage_sandbox.host.processes.fork_server import TUN
from support.worker import WORKER

ORDINARY_UID = 64_300 + WORKER
"""No account has this id. When root runs the tests, the host for ordinary users runs as this user."""


def own_tun(*, mode: str) -> str:
    """Shell that gives a mount namespace its own network tap."""
    return f"mount -t tmpfs tmpfs {os.path.dirname(TUN)}\nmknod -m {mode} {TUN} c 10 200\n"


def as_ordinary_user(command: list[str], directory: Path) -> tuple[list[str], dict[str, str]]:
    """`command`, a Python module with arguments, run without root by a root that is in the way.

    The interpreter, the packages and our sources may be where only root can go, so they are mounted below
    `directory` for this process alone.
    """
    sources = {
        "python": Path(sys.base_prefix),
        "packages": Path(site.getsitepackages()[0]),
        "sandbox": Path(moorage_sandbox.__file__).parent.parent,
    }
    script = "set -e\n"
    for name, source in sources.items():
        (directory / name).mkdir(exist_ok=True)
        script += f"mount --bind '{source}' '{directory / name}'\n"
    if os.stat(TUN).st_mode & 0o006 != 0o006:  # a machine without udev: what `doctor` asks for, for this host alone
        script += own_tun(mode="0666")
    user = f"--reuid={ORDINARY_UID} --regid={ORDINARY_UID} --clear-groups"
    python = directory / "python" / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    script += f'exec setpriv {user} --pdeathsig=KILL --inh-caps=-all --bounding-set=-all "{python}" -m "$@"\n'
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{directory}/sandbox:{directory}/packages",
        "LD_LIBRARY_PATH": f"{directory}/python/lib",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(directory),
    }
    return ["unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh", *command], environment
