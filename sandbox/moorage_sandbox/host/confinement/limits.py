"""Limits what a sandbox may use: by a control group where the host can make one, otherwise by resource limits.

A control group limits a sandbox as a whole. Resource limits limit the number of processes, and the memory of each
process separately. They use RLIMIT_DATA, because Chromium reserves more address space than RLIMIT_AS would allow.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from moorage_sandbox.host.confinement.identities import is_root

PERIOD_US = 100_000
V1_CONTROLLERS = ("memory", "pids", "cpu")
REMOVE_SECONDS = 2
REMOVE_PAUSE_SECONDS = 0.01


@dataclass(frozen=True)
class ResourceLimits:
    memory_bytes: int
    processes: int
    cpus: float


@dataclass(frozen=True)
class CgroupParents:
    """The directories in which the host can make groups: `v2` with all controllers, or `v1` by controller."""

    v2: Path | None = None
    v1: dict[str, Path] = field(default_factory=dict)

    @property
    def bounds_memory(self) -> bool:
        return self.v2 is not None or "memory" in self.v1

    @property
    def bounds_processes(self) -> bool:
        return self.v2 is not None or "pids" in self.v1

    @property
    def bounds_cpu(self) -> bool:
        return self.v2 is not None or "cpu" in self.v1


class ControlGroup:
    """The control group, or groups, of one sandbox."""

    def __init__(self, directories: list[Path]) -> None:
        self._directories = directories

    @property
    def join_files(self) -> list[str]:
        """A process that writes 0 to each of these files joins the group, with all processes that it starts."""
        return [str(directory / "cgroup.procs") for directory in self._directories]

    async def remove(self) -> None:
        """Kill the processes that are left in the group and remove it. It must be empty before it can be removed."""
        for directory in self._directories:
            kill_members(directory)
        with suppress(TimeoutError):
            async with asyncio.timeout(REMOVE_SECONDS):
                while not self._try_remove():  # noqa: ASYNC110 - the kernel sends no event
                    await asyncio.sleep(REMOVE_PAUSE_SECONDS)

    def _try_remove(self) -> bool:
        for directory in list(self._directories):
            try:
                directory.rmdir()
            except FileNotFoundError:
                self._directories.remove(directory)
            except OSError:
                kill_members(directory)
                return False
            else:
                self._directories.remove(directory)
        return True


def kill_members(directory: Path) -> None:
    with suppress(OSError):
        for pid in (directory / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)


def make_group(parents: CgroupParents, name: str, limits: ResourceLimits) -> ControlGroup:
    """Make a control group with limits. Raises OSError when the kernel refuses one."""
    if parents.v2 is not None:
        directory = parents.v2 / name
        directory.mkdir(exist_ok=True)
        write_control_file(directory / "memory.max", limits.memory_bytes)
        if (directory / "memory.swap.max").exists():
            write_control_file(directory / "memory.swap.max", 0)
        write_control_file(directory / "pids.max", limits.processes)
        if (directory / "cpu.max").exists():
            write_control_file(directory / "cpu.max", f"{int(limits.cpus * PERIOD_US)} {PERIOD_US}")
        return ControlGroup([directory])
    directories = []
    for controller, parent in parents.v1.items():
        directory = parent / name
        directory.mkdir(exist_ok=True)
        directories.append(directory)
        if controller == "memory":
            write_control_file(directory / "memory.limit_in_bytes", limits.memory_bytes)
            if (directory / "memory.memsw.limit_in_bytes").exists():
                write_control_file(directory / "memory.memsw.limit_in_bytes", limits.memory_bytes)
        elif controller == "pids":
            write_control_file(directory / "pids.max", limits.processes)
        elif controller == "cpu":
            write_control_file(directory / "cpu.cfs_period_us", PERIOD_US)
            write_control_file(directory / "cpu.cfs_quota_us", int(limits.cpus * PERIOD_US))
    return ControlGroup(directories)


def write_control_file(path: Path, value: int | str) -> None:
    path.write_text(str(value))


def find_parents(*, membership: str | None = None, mounts: str | None = None) -> CgroupParents:
    """Find where the host can make groups, from /proc/self/cgroup and /proc/self/mountinfo."""
    membership = Path("/proc/self/cgroup").read_text() if membership is None else membership
    mounts = Path("/proc/self/mountinfo").read_text() if mounts is None else mounts
    own = {controllers: path for _, controllers, path in (line.split(":", 2) for line in membership.splitlines())}
    v1: dict[str, Path] = {}
    v2 = None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, point = before.split(" ")[3:5]
        if kind == "cgroup2" and "" in own:
            v2 = v2 or find_v2_parent(directory_of(Path(point), root, own[""]), Path(point))
        elif kind == "cgroup":
            for controller in V1_CONTROLLERS:
                path = next((path for names, path in own.items() if controller in names.split(",")), None)
                if controller in options.split(",") and path is not None:
                    directory = directory_of(Path(point), root, path)
                    if os.access(directory, os.W_OK):
                        v1[controller] = directory
    return CgroupParents(v2=v2) if v2 is not None else CgroupParents(v1=v1)


def directory_of(point: Path, root: str, path: str) -> Path:
    """Return the directory of the host's own group. In a container the mount may begin at that group."""
    directory = point / os.path.relpath(path, root)
    return directory if ".." not in directory.parts and directory.is_dir() else point


def find_v2_parent(own: Path, top: Path) -> Path | None:
    """Return a directory whose children can have the memory and pids controllers, or None.

    A group that contains processes cannot give controllers to its children (the kernel's rule "no internal processes").
    So root makes its groups at the top, beside those of the service manager. Another user needs a delegated group; the
    platform's own processes in it are moved to a child group.
    """
    parent = top if is_root() else own
    if not os.access(parent, os.W_OK) or not has_controllers(parent / "cgroup.controllers"):
        return None
    try:
        if not is_root():
            leaf = parent / "moorage-platform"
            leaf.mkdir(exist_ok=True)
            for pid in (parent / "cgroup.procs").read_text().split():
                write_control_file(leaf / "cgroup.procs", pid)
        if not has_controllers(parent / "cgroup.subtree_control"):
            write_control_file(parent / "cgroup.subtree_control", "+memory +pids +cpu")
    except OSError:
        return None
    return parent


def has_controllers(path: Path) -> bool:
    try:
        return {"memory", "pids"} <= set(path.read_text().split())
    except OSError:
        return False


async def remove_leftovers(parents: CgroupParents, prefix: str) -> None:
    """Remove the groups of a host that was killed. Their processes ended with it."""
    directories = [parents.v2] if parents.v2 is not None else list(parents.v1.values())
    for parent in directories:
        for directory in parent.glob(f"{prefix}*"):
            await ControlGroup([directory]).remove()
