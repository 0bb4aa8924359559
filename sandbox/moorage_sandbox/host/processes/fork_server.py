"""The process that forks all other processes. It has one thread, so forking is safe, and has loaded the gate's modules.

Every process of a sandbox is its child and ends with it (PR_SET_PDEATHSIG). When the host ends for any reason, the
connection to the host closes, and the fork server ends all children and itself. It adopts orphans: a bubblewrap that is
killed during its start leaves a child that waits for it forever.

A gate is forked with the loaded modules, which saves the 0.3 s that importing them takes. Other programs are executed.
Each request is one message on a SEQPACKET socket, with its file descriptors.
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

from moorage_common.process_options import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    set_process_option,
)

MESSAGE_BYTES = 128 * 1024
MAX_FDS = 16
FIRST_FD = 3
"""The first descriptor of a request becomes the child's stdout and stderr. The others become 3, 4, … in their order."""

TUN = "/dev/net/tun"
TUN_NUMBER = (10, 200)
"""Source: Documentation/admin-guide/devices.txt."""

GATE_MODULE = "moorage_sandbox.gate.main"

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


def check_result(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def die_with(parent: int) -> None:
    """End this process when `parent` ends. Must be called after the last change of user, which clears the setting."""
    set_process_option(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def enter_mount_namespace() -> None:
    """From now on, only this process and its children see new mounts."""
    check_result(libc.unshare(CLONE_NEWNS), "unshare")
    check_result(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount")


def bind(source: str, target: str, *, flags: int = MS_BIND) -> None:
    check_result(libc.mount(os.fsencode(source), os.fsencode(target), None, flags, None), f"mount {source} at {target}")


def mount_privately(mounts: list[list[str]]) -> None:
    """Mount directories where the sandbox's user can reach them. Only this process and its children see the mounts.

    That user cannot enter the data directory, and bubblewrap resolves the paths that it mounts as that user.
    """
    enter_mount_namespace()
    for source, target in mounts:
        bind(source, target)


def mount_own_tun() -> None:
    """Make a /dev/net/tun that every user may open. Only this process and its children see it.

    udev gives the device this mode (0666, 50-udev-default.rules). Without udev only root may be able to open it.
    """
    enter_mount_namespace()
    place = os.path.dirname(TUN)
    check_result(
        libc.mount(b"tmpfs", place.encode(), b"tmpfs", MS_NOSUID | MS_NOEXEC, b"mode=755,size=64k"), f"mount {place}"
    )
    os.mknod(TUN, stat.S_IFCHR, os.makedev(*TUN_NUMBER))
    os.chmod(TUN, 0o666)  # noqa: S103 - the mode that udev sets; it works only in a network namespace that the user owns


def join_namespaces(user_fd: int, net_fd: int | None) -> None:
    """Join a user namespace as its root, and its network namespace. Changing that network needs this root."""
    check_result(libc.setns(user_fd, CLONE_NEWUSER), "setns")
    if net_fd is not None:
        check_result(libc.setns(net_fd, CLONE_NEWNET), "setns")


def place_fds(fds: list[int]) -> None:
    """Close all descriptors except `fds`. The first becomes 1 and 2, the others start at FIRST_FD."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(high[0], 1)
    os.dup2(high[0], 2)
    for index, fd in enumerate(high[1:]):
        os.dup2(fd, FIRST_FD + index)
    os.closerange(FIRST_FD + len(high) - 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def prepare_child(request: dict[str, Any], fds: list[int], *, parent: int) -> None:
    """Do everything between fork and the start of the program. The order matters: each step removes privileges."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if request["gate"] is None:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores SIGPIPE, and other programs need its default
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
        mount_own_tun()
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
        prepare_child(request, fds, parent=parent)
        if request["gate"] is None:
            os.execve(request["argv"][0], request["argv"], request["env"])  # noqa: S606 - no shell is the point
        set_process_option(PR_SET_NO_NEW_PRIVS, 1)
        gate.run(gate.parse(request["gate"]))
        code = 0
    except BaseException as error:  # noqa: BLE001 - the outermost frame of this process
        os.write(2, f"{request['name']} did not run: {error!r}\n".encode())
    os._exit(code)


class ForkServer:
    """The loop that serves the host's requests."""

    def __init__(self, connection: socket.socket, *, gate: ModuleType) -> None:
        self._connection = connection
        self._gate = gate
        self._pid = os.getpid()
        self._children: set[int] = set()

    def serve(self) -> None:
        """Serve until the host closes its end of the connection. Then end all children."""
        try:
            self._serve()
        except ConnectionError:
            return  # the host closed the connection while we wrote to it
        finally:
            end_all()

    def _serve(self) -> None:
        woken_reader, woken_writer = socket.socketpair()
        woken_reader.setblocking(False)
        woken_writer.setblocking(False)
        signal.set_wakeup_fd(woken_writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only the wake-up descriptor is needed
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
        while (ended := reap_child()) is not None:
            pid, code = ended
            if pid in self._children:
                self._children.remove(pid)
                if code < 0:  # only a killed process can leave orphans
                    for orphan in children_of(self._pid) - self._children:
                        os.kill(orphan, signal.SIGKILL)
                self._send({"ended": pid, "code": code})

    def _send(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        send(self._connection, message, fds or [])


def reap_child() -> tuple[int, int] | None:
    """Collect an ended child. Returns its id, and its exit code or minus its signal; None if no child has ended."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


def children_of(parent: int) -> set[int]:
    """Return the ids of all children, adopted ones and zombies included."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat") as file:
                # The second field is the program's name in brackets, which may contain any character.
                if int(file.read().rpartition(")")[2].split()[1]) == parent:
                    found.add(int(name))
    return found


def end_all() -> None:
    """Kill every child, and the orphans that they leave, until none is left."""
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
    """Receive one message and its descriptors. Both are empty when the other side has closed the connection."""
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
    os.setsid()  # Ctrl-C in a terminal must reach only the host
    gate = importlib.import_module(GATE_MODULE)
    gc.freeze()
    set_process_option(PR_SET_CHILD_SUBREAPER, 1)
    set_process_option(PR_SET_PDEATHSIG, 0)  # from now on the children must be ended first
    ForkServer(connection, gate=gate).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
