"""The command lines of bubblewrap. They decide which files of this machine the processes of a sandbox can see."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moorage_common import MIB
from moorage_sandbox.host.processes import readable_environment
from moorage_sandbox.protocol import DEBIAN_PYTHON, HOME, X_SOCKETS

BWRAP = "/usr/bin/bwrap"
PRLIMIT = "/usr/bin/prlimit"

BOX_SOCKETS = "/run/moorage/box"
RFB_SOCKETS = "/run/moorage/vnc"
CODE = "/opt/moorage"
DISPLAY = ":1"
UID_INSIDE = 1000

INFO_FD = 3
"""bubblewrap writes the process id of its first process to this descriptor."""
START_FD = 4
"""The confined program writes a byte to this socket and waits for a byte before it begins.

So a box does not begin before the routes of its network are set. And a program whose bubblewrap is killed early, before
the kernel would end both together, never begins.
"""
SECCOMP_FD = 5
"""bubblewrap reads the filter of system calls from this descriptor."""

TMP_BYTES = 1024 * MIB
SHM_BYTES = 512 * MIB
VNC_TMP_BYTES = 16 * MIB
OPEN_FILES = 65_536
FILE_BYTES = 8 * 1024 * MIB
"""The largest file that a command may write."""

PARENTS = ("/etc", "/home", "/opt", "/run", "/run/moorage", "/var")
SYSTEM_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")

ETC_OF_THE_HOST = (
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "chromium",
    "chromium.d",
    "debian_version",
    "fonts",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "magic.mime",
    "matplotlibrc",
    "mime.types",
    "os-release",
    "papersize",
    "protocols",
    "python3",
    "python3.11",
    "python3.12",
    "python3.13",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
    "X11",
)
"""Configuration of the software in /usr. None of it contains data about the machine or its users."""


@dataclass(frozen=True)
class Python:
    """The interpreter inside. When /usr does not hold it: its prefix, and the path that bubblewrap reads that from."""

    executable: str
    prefix: str | None = None
    source: str | None = None


def find_python(*, mounted_in: Path | None) -> Python:
    """Return Debian's Python, for which the libraries of software.txt are installed, otherwise the host's own."""
    if os.access(DEBIAN_PYTHON, os.X_OK):
        return Python(DEBIAN_PYTHON)
    executable, prefix = os.path.realpath(sys.executable), os.path.realpath(sys.base_prefix)
    return Python(
        executable, prefix=prefix, source=str(mounted_in / readable_environment.PYTHON) if mounted_in else prefix
    )


def limit_arguments(*, processes: int | None, data_bytes: int | None) -> list[str]:
    """Return a prlimit command. It runs inside, so processes are counted in the sandbox's own user namespace."""
    open_files = min(OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    arguments = [PRLIMIT, "--core=0:0", f"--nofile={open_files}:{open_files}", f"--fsize={FILE_BYTES}:{FILE_BYTES}"]
    if processes is not None:
        arguments.append(f"--nproc={processes}:{processes}")
    if data_bytes is not None:
        arguments.append(f"--data={data_bytes}:{data_bytes}")
    return [*arguments, "--"]


def module_arguments(python: Python, module: str, arguments: Sequence[str]) -> list[str]:
    """Return a command that loads a module of CODE, waits until it may begin, and calls its `main`."""
    start = (
        f"import os, sys; sys.path.insert(0, {CODE!r}); os.write({START_FD}, b'!'); from {module} import main; "
        f"os.read({START_FD}, 1) or sys.exit(1); os.close({START_FD}); main()"
    )
    return [python.executable, "-I", "-S", "-c", start, *arguments]


def system_arguments(*, etc: Path, python: Python) -> list[str]:
    """Return the mounts of a root directory that contains only the software of the machine."""
    arguments = [argument for path in PARENTS for argument in ("--perms", "0755", "--dir", path)]
    arguments += ["--ro-bind", "/usr", "/usr"]
    # The image of the box has no /usr/local either. The machine's own additions are not needed and may be private.
    arguments += ["--tmpfs", "/usr/local", "--remount-ro", "/usr/local"]
    for name in SYSTEM_LINKS:
        if os.path.islink(f"/{name}"):
            arguments += ["--symlink", os.readlink(f"/{name}").lstrip("/"), f"/{name}"]
        elif os.path.isdir(f"/{name}"):
            arguments += ["--ro-bind", f"/{name}", f"/{name}"]
    for name in ETC_OF_THE_HOST:
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for path in sorted(etc.iterdir()):
        arguments += ["--ro-bind", str(path), f"/etc/{path.name}"]
    if python.prefix is not None and python.source is not None:
        arguments += ["--ro-bind", python.source, python.prefix]
    return [*arguments, "--ro-bind-try", "/var/cache/fontconfig", "/var/cache/fontconfig"]


def namespace_arguments() -> list[str]:
    return [
        BWRAP,
        "--unshare-user",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-net",
        "--unshare-cgroup-try",
        "--uid",
        str(UID_INSIDE),
        "--gid",
        str(UID_INSIDE),
        "--hostname",
        "sandbox",
        "--cap-drop",
        "ALL",
        "--new-session",
        "--die-with-parent",
        "--clearenv",
    ]


def device_arguments(*, shm_bytes: int) -> list[str]:
    """Return the mounts of /proc, which shows only the sandbox's processes, and of a /dev without real devices."""
    return [
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--perms",
        "1777",
        "--size",
        str(shm_bytes),
        "--tmpfs",
        "/dev/shm",  # noqa: S108 - inside
        "--remount-ro",
        "/dev",
    ]


def bwrap_command(arguments: Sequence[str], *, has_filter: bool) -> list[str]:
    return [
        *namespace_arguments(),
        *("--info-fd", str(INFO_FD)),
        *(("--seccomp", str(SECCOMP_FD)) if has_filter else ()),
        *arguments,
    ]


def environment_arguments(environment: dict[str, str]) -> list[str]:
    return [argument for name, value in environment.items() for argument in ("--setenv", name, value)]


def box_arguments(
    *, python: Python, code: Path, etc: Path, home: Path, sockets: Path, x_sockets: Path, limits: Sequence[str]
) -> list[str]:
    """Return the arguments that mount what the box can see, and run the box."""
    return [
        *environment_arguments(
            {
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": HOME,
                "USER": "ubuntu",
                "LOGNAME": "ubuntu",
                "SHELL": "/bin/bash",
                "LANG": "C.UTF-8",
                "LC_ALL": "C.UTF-8",
                "DISPLAY": DISPLAY,
            }
        ),
        *system_arguments(etc=etc, python=python),
        *device_arguments(shm_bytes=SHM_BYTES),
        *("--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", "/tmp"),  # noqa: S108 - inside
        *("--symlink", "../tmp", "/var/tmp"),  # noqa: S108 - inside
        *("--ro-bind", str(x_sockets), X_SOCKETS),
        *("--bind", str(sockets), BOX_SOCKETS),
        *("--ro-bind", str(code), CODE),
        *("--bind", str(home), HOME),
        *("--remount-ro", "/"),
        *("--chdir", HOME),
        "--",
        *limits,
        *module_arguments(
            python,
            "moorage_sandbox.box.__main__",
            ["--socket", f"{BOX_SOCKETS}/box.sock", "--home", HOME, "--display", DISPLAY],
        ),
    ]


def vnc_arguments(
    *, python: Python, code: Path, etc: Path, sockets: Path, x_sockets: Path, limits: Sequence[str]
) -> list[str]:
    """Return the arguments that run Xvnc. It has no home; it shares the X socket with the box and RFB with the gate."""
    return [
        *environment_arguments({"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}),  # noqa: S108 - inside
        *system_arguments(etc=etc, python=python),
        *device_arguments(shm_bytes=SHM_BYTES),
        *("--size", str(VNC_TMP_BYTES), "--tmpfs", "/tmp"),  # noqa: S108 - inside
        *("--bind", str(x_sockets), X_SOCKETS),
        *("--bind", str(sockets), RFB_SOCKETS),
        *("--ro-bind", str(code), CODE),
        *("--remount-ro", "/"),
        *("--chdir", "/"),
        "--",
        *limits,
        *module_arguments(
            python, "moorage_sandbox.vnc", ["--display", DISPLAY, "--rfb-socket", f"{RFB_SOCKETS}/rfb.sock"]
        ),
    ]


COMMAND_START = f"""
import json, os, shutil, sys
os.write({START_FD}, b"!")
os.read({START_FD}, 1) or sys.exit(1)
stdio = max(int(name) for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{{name}}"))
def take(count):
    data = b""
    while len(data) < count:
        data += os.read(stdio, count - len(data)) or sys.exit(1)
    return data
request = json.loads(take(int.from_bytes(take(4), "big")))
os.environ.update(request["env"])
program = request["argv"][0]
if shutil.which(program) is None:
    sys.exit(f"The command {{program!r}} is not installed, or not every user may run it")
os.write(stdio, b"+")
os.dup2(stdio, 0)
os.dup2(stdio, 1)
os.closerange(3, 256)
os.execvp(program, request["argv"])
"""
"""Runs inside: waits until it may begin, reads the command from the last descriptor, and executes it.

So no secret is in an argument list, which every user of the machine can read.
"""


def command_arguments(
    *, python: Python, etc: Path, home: Path, visible: Sequence[tuple[Path, Path]], limits: Sequence[str]
) -> list[str]:
    """Return the arguments that run a stdio MCP server. It sees the machine's software and an empty home.

    It can also read the directories of `visible`: pairs of the source and the path inside.
    """
    places = [str(place) for _, place in visible]
    programs = [f"{place}{below}" for place in places for below in ("/bin", "/node_modules/.bin", "")]
    return [
        *environment_arguments(
            {
                "PATH": ":".join([*programs, "/usr/local/bin:/usr/bin:/bin"]),
                "HOME": HOME,
                "USER": "ubuntu",
                "LANG": "C.UTF-8",
                "LC_ALL": "C.UTF-8",
            }
        ),
        *system_arguments(etc=etc, python=python),
        *device_arguments(shm_bytes=SHM_BYTES),
        *("--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", "/tmp"),  # noqa: S108 - inside
        *("--bind", str(home), HOME),
        *(argument for source, place in visible for argument in ("--ro-bind", str(source), str(place))),
        *("--remount-ro", "/"),
        *("--chdir", HOME),
        "--",
        *limits,
        *(python.executable, "-I", "-S", "-c", COMMAND_START),
    ]
