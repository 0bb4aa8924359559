"""Starts every child process of the box, collects every exit status, and ends all processes.

Only this module waits for child processes. As PID 1 of a container the box also inherits orphans, and it must collect
them. A second place that waits would sometimes find that its exit code was already collected here.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from moorage_sandbox.box.shared.deadline import Deadline

RESET_SIGNALS = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGQUIT, signal.SIGHUP)
"""Python ignores SIGPIPE. A child process that inherits this does not end when the reader of its output ends."""


class ChildProcess:
    """A process that the box started. It leads its own session, so its process group has the same id."""

    def __init__(self, pid: int, on_exit: Callable[[], None] | None) -> None:
        self.pid = pid
        self.exit_code: int | None = None
        """The exit code as a shell reports it: 128 + n for signal n. None while the process runs."""
        self._on_exit = on_exit
        self._ended = threading.Event()

    def wait(self, seconds: float) -> bool:
        """Wait at most `seconds`. True if the process has ended."""
        return self._ended.wait(seconds)

    def signal(self, number: int) -> None:
        """Signal the process, unless it has ended."""
        if self.exit_code is None:
            send_signal(self.pid, number)

    def signal_group(self, number: int) -> None:
        """Signal the process's group, which may outlive it."""
        send_group_signal(self.pid, number)

    def end(self, grace_seconds: float) -> None:
        """Send SIGTERM to its process group, then SIGKILL when `grace_seconds` are over."""
        if self.exit_code is None:
            self.signal_group(signal.SIGTERM)
            self.wait(grace_seconds)
        self.signal_group(signal.SIGKILL)
        self.wait(2)

    def set_exit_status(self, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        self.exit_code = 128 - code if code < 0 else code
        self._ended.set()
        if self._on_exit is not None:
            self._on_exit()


class ChildProcesses:
    """All child processes. One thread must call `reap` on SIGCHLD; no other code in the box waits for a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, ChildProcess] = {}
        self._closed = False

    def spawn(
        self,
        argv: list[str],
        *,
        env: Mapping[str, str],
        fds: Mapping[int, int],
        terminal: str | None = None,
        on_exit: Callable[[], None] | None = None,
    ) -> ChildProcess:
        """Start `argv` in a new session. `fds` maps descriptors of the child to descriptors of the box.

        The device `terminal`, if given, becomes the controlling terminal and standard input, output and error. Raises
        OSError when the program cannot be started.
        """
        # The copies have higher numbers than every target, so no dup2 in the child overwrites another source.
        floor = max([2, *fds]) + 1
        sources: list[int] = []
        actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = []
        try:
            for target, source in fds.items():
                sources.append(fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, floor))
                actions.append((os.POSIX_SPAWN_DUP2, sources[-1], target))
            if terminal is not None:
                actions.append((os.POSIX_SPAWN_OPEN, 0, terminal, os.O_RDWR, 0))
                actions += [(os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
            # The lock is held, so a child that ends at once is registered before `reap` collects it.
            with self._lock:
                if self._closed:
                    raise OSError("the box is shutting down")
                pid = os.posix_spawn(
                    argv[0], argv, env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=RESET_SIGNALS
                )
                child = self._running[pid] = ChildProcess(pid, on_exit)
        finally:
            for source in sources:
                os.close(source)
        return child

    def reap(self) -> bool:
        """Collect every child or adopted orphan that has ended. True if no child process is left."""
        while True:
            with self._lock:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    return True
                if pid == 0:
                    return False
                child = self._running.pop(pid, None)
            if child is not None:
                child.set_exit_status(status)

    def end_all(self, *, grace_seconds: float) -> None:
        """End every descendant process; afterwards no child can be started. Only for the thread that reaps."""
        with self._lock:
            self._closed = True
        for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 3.0)):
            ends = time.monotonic() + seconds
            signalled: set[int] = set()
            # Orphans become our children, so when no child is left, no descendant is left. A walk of /proc cannot
            # prove this, because processes end and change their parents while it is read.
            while not self.reap() and time.monotonic() < ends:
                below = set(descendants(os.getpid()))
                # An interactive bash ignores SIGTERM, but ends on SIGHUP.
                for pid in below - signalled:
                    send_signal(pid, number)
                    if number == signal.SIGTERM:
                        send_signal(pid, signal.SIGHUP)
                        send_signal(pid, signal.SIGCONT)
                signalled |= below
                signal.sigtimedwait([signal.SIGCHLD], 0.02)


def read_output(fd: int, deadline: Deadline) -> bytes | None:
    """Read until the other side closes. None if it does not close in time."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    data = bytearray()
    while poller.poll(deadline.remaining() * 1000):
        block = os.read(fd, 65536)
        if not block:
            return bytes(data)
        data += block
    return None


def send_signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def send_group_signal(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends. PID 1 already is."""
    if os.getpid() == 1:
        return
    from moorage_common.process_options import PR_SET_CHILD_SUBREAPER, set_process_option  # a pod need not load ctypes

    set_process_option(PR_SET_CHILD_SUBREAPER, 1)


def descendants(root: int) -> Iterator[int]:
    """Ids of all descendants of `root`, without zombies."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (parent := _parent(int(entry))) is not None:
            children.setdefault(parent, []).append(int(entry))
    waiting = [root]
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            waiting.append(pid)
            yield pid


def _parent(pid: int) -> int | None:
    """The id of the parent. None if the process has ended, also if it is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name may contain spaces and brackets. The fields after the last bracket are regular.
            state, parent = file.read().rpartition(b")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return None if state == b"Z" else int(parent)
