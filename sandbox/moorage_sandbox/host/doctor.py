"""Checks whether this machine can run sandboxes, and names the command that installs what is missing."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import moorage_sandbox
from moorage_common import OLDEST_PYTHON
from moorage_sandbox.host.confinement import command_lines, limits
from moorage_sandbox.host.confinement.identities import identity_of, is_root
from moorage_sandbox.host.processes import readable_environment
from moorage_sandbox.host.processes.fork_server import TUN
from moorage_sandbox.host.settings import HostSettings

TRIAL_SECONDS = 10
OLDEST_BWRAP = (0, 7)
SOFTWARE_FILE = Path(moorage_sandbox.__file__).parent.parent / "software.txt"

ROOT_CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "KILL": 5, "SETGID": 6, "SETUID": 7, "SYS_ADMIN": 21}
"""The capabilities that a host running as root needs, to give each sandbox its own users (linux/capability.h)."""

RUNTIME_PARENTS = ("/run", "/tmp")  # noqa: S108 - a directory of our own is made in it
"""Directories that every user can enter."""

APPARMOR_RESTRICTION = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
USERNS_SWITCHES = {
    Path("/proc/sys/kernel/unprivileged_userns_clone"): "kernel.unprivileged_userns_clone=1",
    Path("/proc/sys/user/max_user_namespaces"): "user.max_user_namespaces=10000",
}
APPARMOR_PROFILE = (
    "abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile bwrap /usr/bin/bwrap flags=(unconfined) {\\n  userns,\\n}\\n"
)


@dataclass(frozen=True)
class SandboxCheck:
    """One check. Without a `required` thing no sandbox runs; without another, it lacks something.

    `fix` is the command that repairs it, or empty.
    """

    name: str
    ok: bool
    detail: str
    fix: str
    required: bool


def run_checks(*, software_file: Path = SOFTWARE_FILE) -> list[SandboxCheck]:
    """Run all checks, in the order in which problems should be fixed. Starts short processes, but changes nothing."""
    return [
        check_bubblewrap(),
        check_program("prlimit", package="util-linux", required=True, purpose="sets limits inside the sandbox"),
        check_python(),
        check_gate_packages(),
        check_root_capabilities(),
        check_gate_can_read(),
        check_user_namespaces(),
        check_control_groups(),
        check_program("slirp4netns", package="slirp4netns", purpose="without it sandboxes have no network"),
        check_program("ip", package="iproute2", purpose="without it sandboxes have no network"),
        check_tun_device(),
        check_screen(),
        check_program("chromium", package="chromium", purpose="the browser"),
        check_cjk_fonts(),
        check_software(software_file),
    ]


def as_root(command: str) -> str:
    return command if is_root() else f"sudo {command}"


def install_command(*packages: str) -> str:
    return as_root("apt-get install --yes --no-install-recommends " + " ".join(packages))


def find_program(name: str) -> str | None:
    """Find a program, also in the directories for administrators that a user's PATH may not contain."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


def output_of(*command: str) -> str:
    """Return what a command prints, or "" if it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TRIAL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def check_program(name: str, *, package: str, purpose: str, required: bool = False) -> SandboxCheck:
    path = find_program(name)
    return SandboxCheck(
        name, ok=path is not None, detail=path or f"missing: {purpose}", fix=install_command(package), required=required
    )


def check_bubblewrap() -> SandboxCheck:
    version = re.search(r"(\d+)\.(\d+)", output_of(command_lines.BWRAP, "--version"))
    oldest = ".".join(map(str, OLDEST_BWRAP))
    ok = version is not None and (int(version[1]), int(version[2])) >= OLDEST_BWRAP
    detail = f"version {version[0]}, {oldest} or newer is needed" if version else f"{command_lines.BWRAP} is missing"
    return SandboxCheck("bubblewrap", ok=ok, detail=detail, fix=install_command("bubblewrap"), required=True)


def check_python() -> SandboxCheck:
    python = command_lines.find_python(mounted_in=None)
    version = re.search(r"(\d+)\.(\d+)", output_of(python.executable, "--version"))
    new_enough = version is not None and (int(version[1]), int(version[2])) >= OLDEST_PYTHON
    oldest = ".".join(map(str, OLDEST_PYTHON))
    detail = f"{python.executable} is {version[0] if version else 'unusable'}, {oldest} or newer is needed"
    return SandboxCheck(
        "python in the sandbox", ok=new_enough, detail=detail, fix=install_command("python3"), required=True
    )


def check_gate_packages() -> SandboxCheck:
    missing = [name for name in readable_environment.GATE_MODULES if importlib.util.find_spec(name) is None]
    detail = "missing: " + ", ".join(missing) if missing else "installed"
    return SandboxCheck(
        "the gate's packages", ok=not missing, detail=detail, fix="pip install 'moorage[gate]'", required=True
    )


def check_root_capabilities() -> SandboxCheck:
    name = "own users for sandboxes"
    if not is_root():
        detail = "the host is an ordinary user: sandboxes run as that user and are separated by namespaces"
        return SandboxCheck(name, ok=True, detail=detail, fix="", required=True)
    effective = int(re.findall(r"CapEff:\s*(\w+)", Path("/proc/self/status").read_text())[0], 16)
    missing = [capability for capability, number in ROOT_CAPABILITIES.items() if not effective >> number & 1]
    detail = "root without " + ", ".join(missing) if missing else "the host is root and gives each sandbox its own"
    fix = "run the sandbox host as an ordinary user, or give the container these capabilities"
    return SandboxCheck(name, ok=not missing, detail=detail, fix=fix, required=True)


def check_gate_can_read() -> SandboxCheck:
    """Start the fork server as a gate's user. Only a trial shows whether that user can read the gate's modules."""
    name = "files of the gate"
    identity = identity_of(0, uid_base=HostSettings.uid_base)
    if identity.group is None:
        return SandboxCheck(name, ok=True, detail="the gate runs as this user", fix="", required=True)
    parent = next((path for path in RUNTIME_PARENTS if os.access(path, os.W_OK)), None)
    with tempfile.TemporaryDirectory(prefix="moorage-doctor-", dir=parent) as directory:
        Path(directory).chmod(0o711)
        users = (str(identity.gate), str(identity.group))
        command = readable_environment.module_command(
            Path(directory, "environment"), readable_environment.TRIAL, *users
        )
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TRIAL_SECONDS, check=False)
            failure = (done.stderr.strip().splitlines() or ["no output"])[-1] if done.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            failure = str(error)
    if not failure:
        return SandboxCheck(name, ok=True, detail="the sandboxes' users can read them", fix="", required=True)
    detail = f"a gate's own kernel user cannot read what it imports: {failure}"
    fix = f"chmod --recursive o+rX {shlex.quote(sys.prefix)} {shlex.quote(sys.base_prefix)}"
    return SandboxCheck(name, ok=False, detail=detail, fix=fix, required=True)


def check_user_namespaces() -> SandboxCheck:
    """Start a bubblewrap as a sandbox's user. Only a trial shows whether the kernel allows it."""
    command = [*command_lines.namespace_arguments(), "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    identity = identity_of(0, uid_base=HostSettings.uid_base)
    groups: list[int] | None = None if identity.group is None else []
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TRIAL_SECONDS,
            check=False,
            cwd="/",
            user=identity.box,
            group=identity.group,
            extra_groups=groups,
        )
        failure = done.stderr.strip() if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        failure = str(error)
    if not failure:
        return SandboxCheck("user namespaces", ok=True, detail="bubblewrap runs", fix="", required=True)
    return SandboxCheck(
        "user namespaces", ok=False, detail=f"bubblewrap fails: {failure}", fix=fix_for_user_namespaces(), required=True
    )


def fix_for_user_namespaces() -> str:
    """Return the command that allows user namespaces: for Ubuntu's AppArmor rule, or for a switch of the kernel."""
    if read_switch(APPARMOR_RESTRICTION) == "1":
        return (
            f"printf '{APPARMOR_PROFILE}' | {as_root('tee /etc/apparmor.d/bwrap')} && "
            f"{as_root('apparmor_parser -r /etc/apparmor.d/bwrap')}"
        )
    for path, setting in USERNS_SWITCHES.items():
        if read_switch(path) == "0":
            return as_root(f"sysctl -w {setting}")
    return "start the container with seccomp and AppArmor unconfined, so that it allows user namespaces"


def read_switch(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def check_control_groups() -> SandboxCheck:
    parents = limits.find_parents()
    bounded = {"memory": parents.bounds_memory, "processes": parents.bounds_processes, "cpu": parents.bounds_cpu}
    by_group = [name for name, is_bounded in bounded.items() if is_bounded]
    without = {
        "memory": "memory is limited only for each process (RLIMIT_DATA), not in total",
        "processes": "processes are limited by RLIMIT_NPROC",
        "cpu": "cpu is not limited",
    }
    parts = ["limited by control group: " + ", ".join(by_group)] if by_group else ["no control group can be made"]
    parts += [text for name, text in without.items() if not bounded[name]]
    fix = "" if is_root() else "systemd-run --user --scope --property=Delegate=yes moorage up"
    return SandboxCheck("limits", ok=all(bounded.values()), detail="; ".join(parts), fix=fix, required=False)


def check_tun_device() -> SandboxCheck:
    try:
        os.close(os.open(TUN, os.O_RDWR))
    except OSError as error:
        fix = as_root(f"chmod 0666 {TUN}") if isinstance(error, PermissionError) else as_root("modprobe tun")
        detail = f"{error.strerror}: sandboxes have no network"
        return SandboxCheck(TUN, ok=False, detail=detail, fix=fix, required=False)
    return SandboxCheck(TUN, ok=True, detail="usable", fix="", required=False)


def check_screen() -> SandboxCheck:
    found = find_program("Xtigervnc") or find_program("Xvnc")
    fix = install_command("tigervnc-standalone-server", "xkb-data", "x11-xkb-utils")
    if found is not None and find_program("xkbcomp") is None:
        return SandboxCheck("Xvnc", ok=False, detail="xkbcomp, which Xvnc needs, is missing", fix=fix, required=False)
    detail = found or "missing: without it there is no screen, and the browser does not start"
    return SandboxCheck("Xvnc", ok=found is not None, detail=detail, fix=fix, required=False)


def check_cjk_fonts() -> SandboxCheck:
    found = output_of("fc-list", ":lang=zh", "family").strip()
    detail = found.splitlines()[0] if found else "missing: Chinese, Japanese and Korean text is drawn as empty boxes"
    return SandboxCheck(
        "CJK fonts", ok=bool(found), detail=detail, fix=install_command("fontconfig", "fonts-noto-cjk"), required=False
    )


def check_software(file: Path) -> SandboxCheck:
    """Check the packages that the box image has. Commands in a sandbox of this machine use those of the machine."""
    name = "software of the sandbox"
    try:
        wanted = parse_packages(file.read_text())
    except OSError as error:
        return SandboxCheck(name, ok=False, detail=f"{file.name}: {error.strerror}", fix="", required=False)
    listed = output_of("dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *wanted)
    installed = {line.split()[0] for line in listed.splitlines() if line.endswith(" installed")}
    missing = [package for package in wanted if package not in installed]
    if not missing:
        return SandboxCheck(name, ok=True, detail=f"{len(wanted)} packages installed", fix="", required=False)
    return SandboxCheck(
        name, ok=False, detail="missing: " + " ".join(missing), fix=install_command(*missing), required=False
    )


def parse_packages(text: str) -> list[str]:
    """Parse software.txt: one package a line; text after "#" is a comment."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def main(arguments: list[str]) -> int:
    """Run and print all checks. The exit code is 1 if a required thing is missing."""
    parser = argparse.ArgumentParser(prog="moorage_sandbox.host doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="for programs")
    given = parser.parse_args(arguments)
    found = run_checks()
    if given.json:
        print(json.dumps([asdict(check) for check in found], indent=2))
    else:
        print_checks(found, print)
    return 0 if all(check.ok or not check.required for check in found) else 1


def print_checks(found: list[SandboxCheck], write: Callable[[str], None]) -> None:
    for check in found:
        state = "ok" if check.ok else "MISSING" if check.required else "warning"
        write(f"{state:8}{check.name}: {check.detail}")
        if not check.ok and check.fix:
            write(f"{'':8}fix: {check.fix}")
