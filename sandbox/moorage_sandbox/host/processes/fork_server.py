"""The process that starts all others: single-threaded, so that it may fork, and with the gate's modules loaded.

Every process of a sandbox is its child and dies with it (PR_SET_PDEATHSIG). When the host ends, however it was killed,
the connection to it closes; the launcher then ends all of them, and itself. It adopts what they leave behind: a
bubblewrap that is killed while it starts has a child that waits for it for ever.

A gate is forked from the loaded modules, which saves the 0.3 s that importing them takes; everything else is executed.
One message a request on a SEQPACKET socket; file descriptors travel with it.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import stat
import sys
from contextlib import suppress
from types import ModuleType
from typing import Any, NoReturn

MESSAGE_BYTES = 128 * 1024
MAX_FDS = 16
FIRST_FD = 3
"""Descriptors of a request arrive in the child as 3, 4, … in their order; the first of all is its stdout and stderr."""

TUN = "/dev/net/tun"
TUN_NUMBER = (10, 200)
"""Source: Documentation/admin-guide/devices.txt."""

GATE_MODULE = "moorage_sandbox.gate.main"

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def die_with(parent: int) -> None:
    """End when `parent` ends, or now if it has. Must come after the last change of user, which clears the wish."""
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != parent:
        os._exit(1)


def enter_mount_namespace() -> None:
    """What is mounted from now on, this process and its children see alone."""
    check(libc.unshare(CLONE_NEWNS), "unshare")
    check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount")


def bind(source: str, target: str, *, flags: int = MS_BIND) -> None:
    check(libc.mount(os.fsencode(source), os.fsencode(target), None, flags, None), f"mount {source} at {target}")


def mount_privately(mounts: list[list[str]]) -> None:
    """Show directories at places that the sandbox's user can reach, seen by this process and its children alone.

    The user has no way through the data directory, and bubblewrap resolves what it binds as that user.
    """
    enter_mount_namespace()
    for source, target in mounts:
        bind(source, target)


def show_tun() -> None:
    """Put a network tap that everybody may open at its usual place, seen by this process and its children alone.

    With udev it is one (mode 0666, 50-udev-default.rules); machines and containers without it may have root's alone.
    """
    enter_mount_namespace()
    place = os.path.dirname(TUN)
    check(libc.mount(b"tmpfs", place.encode(), b"tmpfs", MS_NOSUID | MS_NOEXEC, b"mode=755,size=64k"), f"mount {place}")
    os.mknod(TUN, stat.S_IFCHR, os.makedev(*TUN_NUMBER))
    os.chmod(TUN, 0o666)  # noqa: S103 - as udev makes it; who uses it needs a network namespace of their own


def join_namespaces(user_fd: int, net_fd: int | None) -> None:
    """Be root of a user namespace of ours, which is what its network asks for."""
    check(libc.setns(user_fd, CLONE_NEWUSER), "setns")
    if net_fd is not None:
        check(libc.setns(net_fd, CLONE_NEWNET), "setns")


def place_fds(fds: list[int]) -> None:
    """Make `fds` the process's only ones: the first as 1 and 2, the rest from FIRST_FD on."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(high[0], 1)
    os.dup2(high[0], 2)
    for index, fd in enumerate(high[1:]):
        os.dup2(fd, FIRST_FD + index)
    os.closerange(FIRST_FD + len(high) - 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def become(request: dict[str, Any], fds: list[int], *, parent: int) -> None:
    """Everything between fork and the program: order matters, as each step takes away what the one before needed."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if request["gate"] is None:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # which Python ignores, and other programs rely on
    for path in request["cgroup_files"]:
        with open(path, "w") as file:
            file.write("0")
    place_fds(fds)
    if request["oom_score_adj"] is not None:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(request["oom_score_adj"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if request["mounts"]:
        mount_privately(request["mounts"])
    if request["own_tun"]:
        show_tun()
    if request["uid"] is not None:
        os.setgroups([])
        os.setresgid(request["gid"], request["gid"], request["gid"])
        os.setresuid(request["uid"], request["uid"], request["uid"])
    if request["join_fds"] is not None:
        join_namespaces(*request["join_fds"])
    os.umask(0o022 if request["gate"] is None else 0o077)
    os.chdir("/")
    die_with(parent)


def run_child(request: dict[str, Any], fds: list[int], *, parent: int, gate: ModuleType) -> NoReturn:
    code = 1
    try:
        become(request, fds, parent=parent)
        if request["gate"] is None:
            os.execve(request["argv"][0], request["argv"], request["env"])  # noqa: S606 - no shell is the point
        check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
        gate.run(gate.parse(request["gate"]))
        code = 0
    except BaseException as error:  # noqa: BLE001 - the outermost frame of this process
        os.write(2, f"{request['name']} did not run: {error!r}\n".encode())
    os._exit(code)


class ForkServer:
    """The request loop. `parent` is the host's process id."""

    def __init__(self, connection: socket.socket, *, gate: ModuleType) -> None:
        self._connection = connection
        self._gate = gate
        self._pid = os.getpid()
        self._children: set[int] = set()

    def serve(self) -> None:
        """Until the host closes its end. Then nothing that was started here is left."""
        try:
            self._serve()
        except ConnectionError:
            return  # it closed it while we spoke
        finally:
            end_all()

    def _serve(self) -> None:
        woken_reader, woken_writer = socket.socketpair()
        woken_reader.setblocking(False)
        woken_writer.setblocking(False)
        signal.set_wakeup_fd(woken_writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # it is the wake-up that matters
        poller = select.poll()
        poller.register(self._connection, select.POLLIN)
        poller.register(woken_reader, select.POLLIN)
        self._send({"ready": True})
        while True:
            for fd, _ in poller.poll():
                if fd == woken_reader.fileno():
                    with suppress(BlockingIOError):
                        woken_reader.recv(4096)
                elif not self._answer():
                    return
            self._report_ended()

    def _answer(self) -> bool:
        data, fds = receive(self._connection)
        if not data:
            return False
        request = json.loads(data)
        try:
            pid = os.fork()
        except OSError as error:
            self._send({"id": request["id"], "error": str(error)})
            return True
        if pid == 0:
            run_child(request, fds, parent=self._pid, gate=self._gate)
        self._children.add(pid)
        for fd in fds:
            os.close(fd)
        handle = os.pidfd_open(pid)
        self._send({"id": request["id"], "pid": pid}, [handle])
        os.close(handle)
        return True

    def _report_ended(self) -> None:
        while (ended := reap()) is not None:
            pid, code = ended
            if pid in self._children:
                self._children.remove(pid)
                if code < 0:  # only who was killed leaves others behind
                    for orphan in children_of(self._pid) - self._children:
                        os.kill(orphan, signal.SIGKILL)
                self._send({"ended": pid, "code": code})

    def _send(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        send(self._connection, message, fds or [])


def reap() -> tuple[int, int] | None:
    """A child that has ended, with its exit code or minus its signal. None when there is none (now)."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


def children_of(parent: int) -> set[int]:
    """With those that were adopted. Zombies are among them."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat") as file:
                # The second field is the program's name in brackets, and may hold anything.
                if int(file.read().rpartition(")")[2].split()[1]) == parent:
                    found.add(int(name))
    return found


def end_all() -> None:
    """Kill every child, and those that they leave to us, until there is none."""
    while True:
        for child in children_of(os.getpid()):
            os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def send(connection: socket.socket, message: dict[str, Any], fds: list[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    connection.sendmsg([json.dumps(message).encode()], rights)


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """One message and the descriptors that came with it; nothing at all when the other side has gone."""
    data, ancillary, _, _ = connection.recvmsg(
        MESSAGE_BYTES, socket.CMSG_LEN(MAX_FDS * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
    )
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, list(fds)


def main(arguments: list[str]) -> None:
    connection = socket.socket(fileno=int(arguments[0]))
    die_with(int(arguments[1]))
    os.setsid()  # a terminal's Ctrl-C is the host's to act on
    gate = importlib.import_module(GATE_MODULE)
    gc.freeze()
    check(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")
    check(libc.prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0), "prctl")  # from now on there may be something to end first
    ForkServer(connection, gate=gate).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
