"""The limits of a sandbox. The machine and the sandbox survive commands that want more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage_sandbox.host.confinement.limits import CgroupParents, ResourceLimits, find_parents, make_group
from support.sandbox_host import ACCOUNTS, Inside, sandbox_host, still_running

PROCESSES = 60
MEMORY_MIB = 256


@pytest.fixture(scope="module", params=ACCOUNTS)
def small(request: pytest.FixtureRequest) -> Iterator[Inside]:
    """A sandbox with low limits."""
    options = [f"--memory-mib={MEMORY_MIB}", f"--processes={PROCESSES}"]
    with sandbox_host(request.param, *options) as host:
        host.start()
        yield host.put()


def test_a_process_that_wants_too_much_memory_is_refused_or_killed(small: Inside) -> None:
    code = """
blocks = []
for size in range(16, 1024, 16):
    blocks.append(b"x" * 2**24)
print("took", size)
"""
    assert "took" not in small.python(code)
    assert small.run("echo alive").strip() == "alive"
    assert small.host.put(small.session_id).boot_id == small.boot_id


def test_processes_are_bounded(small: Inside) -> None:
    code = """
import os, signal
children = []
try:
    while len(children) < 1000:
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except OSError as error:
    print(type(error).__name__, end=" ")
print(len(children))
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""
    error, count = small.python(code).split()
    assert error == "BlockingIOError"
    assert 10 < int(count) < PROCESSES
    assert small.run("echo alive").strip() == "alive"


def test_temporary_file_systems_are_bounded(small: Inside) -> None:
    sizes = small.run("df --output=size --block-size=1M /tmp /dev/shm | tail -n +2").split()
    assert sizes == ["1024", "512"]


def test_no_core_is_dumped(small: Inside) -> None:
    assert small.run("ulimit -c; ulimit -H -c").split() == ["0", "0"]


def test_a_fork_bomb_stays_in_its_sandbox_and_ends_with_it(small: Inside) -> None:
    host = small.host
    bombed = host.put()
    command = "bomb() { bomb | bomb & }; bomb; sleep 1; echo over"
    bombed.call("shell_execute", {"session_id": "bomb", "exec_dir": "/tmp", "command": command})
    processes = host.processes_of(bombed, "bash")
    assert 10 < len(processes) <= PROCESSES
    assert small.run("echo alive").strip() == "alive"
    assert host.request("DELETE", f"/v1/sandboxes/{bombed.session_id}").status_code == 204
    assert host.processes_of(small, "bash")
    assert still_running(processes) == {}


LIMITS = ResourceLimits(memory_bytes=2**30, processes=100, cpus=1.5)


def test_version_2_groups_hold_all_limits(tmp_path: Path) -> None:
    directory = tmp_path / "one"
    directory.mkdir()
    for name in ("memory.swap.max", "cpu.max"):
        (directory / name).touch()
    group = make_group(CgroupParents(v2=tmp_path), "one", LIMITS)
    assert group.join_files == [str(directory / "cgroup.procs")]
    written = {path.name: path.read_text() for path in directory.iterdir()}
    assert written == {
        "memory.max": "1073741824",
        "memory.swap.max": "0",
        "pids.max": "100",
        "cpu.max": "150000 100000",
    }


def test_version_1_groups_hold_all_limits(tmp_path: Path) -> None:
    parents = {name: tmp_path / name for name in ("memory", "pids", "cpu")}
    for parent in parents.values():
        parent.mkdir()
    group = make_group(CgroupParents(v1=parents), "one", LIMITS)
    assert group.join_files == [str(parent / "one" / "cgroup.procs") for parent in parents.values()]
    written = {path.name: path.read_text() for path in tmp_path.glob("*/one/*")}
    assert written == {
        "memory.limit_in_bytes": "1073741824",
        "pids.max": "100",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "150000",
    }


def test_a_machine_without_writable_groups_has_no_parents(tmp_path: Path) -> None:
    mounts = f"30 20 0:27 / {tmp_path} rw - cgroup2 cgroup2 rw\n31 20 0:28 / /proc rw - proc proc rw\n"
    assert find_parents(membership="0::/\n", mounts=mounts) == CgroupParents()


def test_version_1_parents_are_the_groups_that_the_host_is_in(tmp_path: Path) -> None:
    own = tmp_path / "memory" / "user"
    own.mkdir(parents=True)
    (tmp_path / "pids").mkdir()
    mounts = (
        f"30 20 0:27 / {tmp_path}/memory rw - cgroup cgroup rw,memory\n"
        f"31 20 0:28 /docker/x {tmp_path}/pids rw - cgroup cgroup rw,pids\n"
    )
    parents = find_parents(membership="4:memory:/user\n8:pids:/docker/x\n0::/\n", mounts=mounts)
    assert parents == CgroupParents(v1={"memory": own, "pids": tmp_path / "pids"})
