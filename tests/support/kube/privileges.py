"""Running commands as root, and installing the Debian packages that a node needs."""

import os
import shutil
import subprocess
from pathlib import Path

from support.kube.errors import UnavailableError
from support.kube.progress import Progress

SETUP = Path(__file__).resolve().parents[2] / "cluster" / "setup"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INSTALL_TIMEOUT_SECONDS = 900


def as_root(*command: str) -> list[str]:
    """The command line that runs `command` as root. Raises UnavailableError if sudo needs a password."""
    if os.geteuid() == 0:
        return list(command)
    if shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0:
        return ["sudo", "-n", "--preserve-env=PYTHONPATH,PATH", *command]
    raise UnavailableError("a node needs root, or sudo without a password")


def install_packages(*, say: Progress) -> None:
    """Install missing packages with apt. Raises UnavailableError if that fails."""
    as_root("true")
    done = subprocess.run([SETUP], stderr=subprocess.PIPE, text=True, timeout=INSTALL_TIMEOUT_SECONDS)
    for line in done.stderr.splitlines():
        say(line)
    if done.returncode:
        raise UnavailableError(done.stderr.strip()[-500:] or f"{SETUP.name} ended with {done.returncode}")
