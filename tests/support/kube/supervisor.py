"""Runs the processes of a node in separate namespaces, so that the end of one process ends and removes everything.

Two processes run this module, both as root and with only the standard library:

- `outer` creates the cgroup, starts `inner` in new network, mount and process namespaces, connects them to the host by
  one veth pair, waits for the end, and removes what the kernel does not remove: the cgroups and the node's directory.
- `inner` is process 1 of the namespace. It reads commands from standard input, one JSON object a line, and reports
  on standard output. When its input ends, because the test ended or was killed, it exits. Then the kernel ends every
  process in the namespace and removes its mounts, links, routes and packet filter rules.
"""

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

CGROUPS = Path("/sys/fs/cgroup")
HOST_LINK_PREFIX = "mnode"


def write_line(event: str, **fields: Any) -> None:
    """Report one event to the test. If the test is gone, the clean-up continues."""
    with suppress(BrokenPipeError):
        sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
        sys.stdout.flush()


def ip(*arguments: str, namespace_of: int | None = None) -> None:
    enter = ["nsenter", "--target", str(namespace_of), "--net"] if namespace_of else []
    subprocess.run([*enter, "ip", *arguments], check=True, stdout=subprocess.DEVNULL)


# --- cgroups


def hierarchies() -> list[Path]:
    """The directories in which a cgroup must be created: every version 1 controller, or the version 2 tree."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return sorted({p.resolve() for p in CGROUPS.iterdir() if p.is_dir() and (p / "cgroup.procs").exists()})


def make_cgroup(name: str) -> None:
    for hierarchy in hierarchies():
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        for file in (
            "cpuset.cpus",
            "cpuset.mems",
        ):  # version 1: they are empty in a new group, and then no process can enter it
            if (group / file).exists() and not (group / "cgroup.controllers").exists():
                (group / file).write_text((hierarchy / file).read_text())
        with suppress(OSError):
            controllers = (group / "cgroup.controllers").read_text().split()
            (group / "cgroup.subtree_control").write_text(" ".join(f"+{c}" for c in controllers))


def remove_cgroup(name: str, *, within_seconds: float = 10) -> None:
    deadline = time.monotonic() + within_seconds
    left = [hierarchy / name for hierarchy in hierarchies()]
    while left := [group for group in left if group.exists() and not remove_tree_of_groups(group)]:
        if time.monotonic() > deadline:
            write_line("warning", message=f"cgroups are still in use: {', '.join(map(str, left))}")
            return
        time.sleep(0.05)


def remove_tree_of_groups(top: Path) -> bool:
    for directory, _, _ in os.walk(top, topdown=False):
        with suppress(OSError):
            os.rmdir(directory)
    return not top.exists()


# --- outer


def started_at(pid: int) -> str | None:
    """The start time of a process, which distinguishes it from a later one with the same id. None if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def leftovers(parent: Path, prefix: str) -> Iterator[Path]:
    """The directories of nodes whose `outer` process was killed before it could clean up."""
    for directory in parent.glob(f"{prefix}*"):
        with suppress(OSError, ValueError):
            pid, start = (directory / "keeper").read_text().split()
            if started_at(int(pid)) != start:
                yield directory


def outer(directory: Path) -> int:
    """Keep the namespaces of the node in `directory` until the input ends; then remove everything."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda *_: None)  # A Ctrl-C reaches the test too, and the test ends us by closing the pipe.
    plan = json.loads((directory / "plan.json").read_text())
    prefix = directory.name.rpartition("-")[0] + "-"
    for stale in leftovers(directory.parent, prefix):
        remove_cgroup(stale.name)
        shutil.rmtree(stale, ignore_errors=True)
    (directory / "keeper").write_text(f"{os.getpid()} {started_at(os.getpid())}\n")
    make_cgroup(directory.name)
    namespaces = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--propagation", "private"]
    me = [sys.executable, "-m", __spec__.name, "inner", str(directory)]
    held = subprocess.Popen([*namespaces, "--mount-proc", *me], start_new_session=True)
    try:
        connect(held.pid, plan["network"])
        (directory / "connected").touch()
        return held.wait()
    finally:
        held.kill()
        held.wait()
        remove_cgroup(directory.name)
        shutil.rmtree(directory, ignore_errors=True)
        write_line("gone")


def connect(pid: int, network: dict[str, Any]) -> None:
    """Connect the namespace of `pid` to the host by one link and one route. The kernel removes both with it."""
    own, deadline = os.readlink("/proc/self/ns/net"), time.monotonic() + 120
    while os.readlink(f"/proc/{pid}/ns/net") == own:
        if time.monotonic() > deadline:
            raise TimeoutError("unshare did not make a network namespace in 10 s")
        time.sleep(0.005)
    host_link = f"{HOST_LINK_PREFIX}{network['number']}"
    ip("link", "add", host_link, "type", "veth", "peer", "name", "node0", "netns", str(pid))
    ip("address", "add", f"{network['host_address']}/30", "dev", host_link)
    ip("link", "set", host_link, "up")
    ip("link", "set", "lo", "up", namespace_of=pid)
    ip("address", "add", f"{network['node_address']}/30", "dev", "node0", namespace_of=pid)
    ip("link", "set", "node0", "up", namespace_of=pid)
    ip("route", "add", network["pods"], "via", network["node_address"])


# --- inner

KUBELET_PARAMETERS = {
    "kernel/keys/root_maxbytes": 25_000_000,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
}
"""Source: kubernetes, pkg/kubelet/cm/container_manager_linux.go, setupKernelTunables."""


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def arrange_mounts(directory: Path) -> None:
    """Give the node its own /run, /var/lib and /var/log, and prevent changes to the kernel parameters of the host.

    The kubelet sets some parameters and refuses to run if it cannot. It reads them first, so we show it the values
    that it wants.
    """
    for own, place in (("var-lib", "/var/lib"), ("var-log", "/var/log")):
        (directory / own).mkdir(exist_ok=True)
        mount("--bind", str(directory / own), place)
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for parameters in ("/proc/sys/kernel", "/proc/sys/vm"):
        mount("--bind", parameters, parameters)
        mount("-o", "remount,bind,ro", parameters)
    for name, value in KUBELET_PARAMETERS.items():
        copy = Path("/run/kernel-parameters", name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(f"{value}\n")
        mount("--bind", str(copy), f"/proc/sys/{name}")
    mount("--make-rshared", "/")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


class Inner:
    """Starts and ends processes on command (one JSON object in each line), and reaps orphans."""

    def __init__(self, directory: Path) -> None:
        self._logs = directory / "logs"
        self._names: dict[int, str] = {}

    def start(self, name: str, argv: list[str], environment: dict[str, str]) -> None:
        log = str(self._logs / f"{name}.log")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        pid = os.posix_spawnp(
            argv[0],
            argv,
            {**os.environ, **environment},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM],
        )
        self._names[pid] = name

    def end(self, name: str, number: int) -> None:
        for pid, other in self._names.items():
            if other == name:
                os.killpg(pid, number)

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if name := self._names.pop(pid, None):
                write_line("exited", name=name, status=os.waitstatus_to_exitcode(status))

    def follow_order(self, line: bytes) -> None:
        order = json.loads(line)
        try:
            if order["do"] == "start":
                self.start(order["name"], order["argv"], order.get("environment", {}))
            else:
                self.end(order["name"], order["signal"])
        except OSError as error:
            write_line("failed", name=order["name"], message=str(error))

    def run(self) -> None:
        wake, woken = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        selector = selectors.DefaultSelector()
        selector.register(0, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        rest = b""
        while True:
            for key, _ in selector.select():
                if key.fd == wake:
                    os.read(wake, 4096)
                    continue
                if not (got := os.read(0, 65536)):
                    return
                *lines, rest = (rest + got).split(b"\n")
                for line in lines:
                    self.follow_order(line)
            self.reap()


def inner(directory: Path) -> int:
    deadline = time.monotonic() + 120
    while not (directory / "connected").exists():
        if time.monotonic() > deadline:
            write_line("failed", name="network", message="the host did not connect the node in 15 s")
            return 1
        time.sleep(0.005)
    arrange_mounts(directory)
    write_line("up")
    Inner(directory).run()
    return 0


if __name__ == "__main__":
    role, place = sys.argv[1:]
    sys.exit({"outer": outer, "inner": inner}[role](Path(place)))
