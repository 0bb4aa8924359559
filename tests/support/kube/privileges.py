"""Being root, and the Debian packages that a node is made of."""

import os
import shutil
import subprocess

from support.kube.errors import UnavailableError
from support.kube.progress import Progress

# Program -> the Debian package that has it. The plugins of containernetworking-plugins are not on the path.
PROGRAMS = {
    "buildah": "buildah",
    "conntrack": "conntrack",
    "containerd": "containerd",
    "ip": "iproute2",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "mount": "mount",
    "nsenter": "util-linux",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INSTALL_TIMEOUT_SECONDS = 900


def as_root(*command: str) -> list[str]:
    """Run `command` as root. Raises UnavailableError where that would have to ask for a password."""
    if os.geteuid() == 0:
        return list(command)
    if shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0:
        return ["sudo", "-n", "--preserve-env=PYTHONPATH,PATH", *command]
    raise UnavailableError("a node needs root, or sudo without a password")


def missing_packages() -> list[str]:
    return sorted({package for program, package in PROGRAMS.items() if shutil.which(program, path=SEARCH_PATH) is None})


def install_packages(*, say: Progress) -> None:
    """Install what is missing with apt. Raises UnavailableError where that fails."""
    if not (missing := missing_packages()):
        return
    if shutil.which("apt-get") is None:
        raise UnavailableError(f"these are not installed, and there is no apt-get to do it: {' '.join(missing)}")
    say(f"installing {' '.join(missing)}")
    apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=600"]
    for step in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
        done = subprocess.run(as_root(*apt, *step), capture_output=True, text=True, timeout=INSTALL_TIMEOUT_SECONDS)
        if done.returncode:
            raise UnavailableError(f"apt-get {step[0]} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    if missing := missing_packages():
        raise UnavailableError(f"still missing after apt-get: {' '.join(missing)}")
