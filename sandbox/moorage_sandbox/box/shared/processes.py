"""Starts every child of the box, collects every exit status, and ends them all.

One place waits for children, for two reasons: as PID 1 of a container the box also inherits orphans, which somebody
must collect, and a second waiter elsewhere would lose its exit code to that one.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping

PR_SET_CHILD_SUBREAPER = 36

RESET_SIGNALS = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGQUIT, signal.SIGHUP)
"""Python ignores SIGPIPE; a child that inherited that would not end when its reader does."""


class ChildProcess:
    """A process that the box started itself. It leads a session of its own, so its group has its id."""

    def __init__(self, pid: int, on_exit: Callable[[], None] | None) -> None:
        self.pid = pid
        self.exit_code: int | None = None
        """As a shell would show it: 128 + n for signal n. None while it runs."""
        self._on_exit = on_exit
        self._ended = threading.Event()

    def wait(self, seconds: float) -> bool:
        """True if it ended within `seconds`."""
        return self._ended.wait(seconds)

    def signal(self, number: int) -> None:
        """Signal the process, unless it has ended."""
        if self.exit_code is None:
            send_signal(self.pid, number)

    def signal_group(self, number: int) -> None:
        """Signal the process's group, which may outlive it."""
        send_group_signal(self.pid, number)

    def end(self, grace_seconds: float) -> None:
        """SIGTERM to its group, and SIGKILL for what is left after `grace_seconds`."""
        if self.exit_code is None:
            self.signal_group(signal.SIGTERM)
            self.wait(grace_seconds)
        self.signal_group(signal.SIGKILL)
        self.wait(2)

    def ended(self, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        self.exit_code = 128 - code if code < 0 else code
        self._ended.set()
        if self._on_exit is not None:
            self._on_exit()


class ChildProcesses:
    """`reap` must be called on SIGCHLD by one thread; nothing else in the box waits for a process."""

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
        """Start `argv` in a session of its own. `fds` maps the child's descriptors to ours.

        With `terminal`, that one becomes its controlling terminal and its standard input, output and error. Raises
        OSError when the program cannot be started.
        """
        # Copies above every target, so that no dup2 in the child overwrites the source of another.
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
            # Under the lock, so that a child which ends at once is known before `reap` looks at it.
            with self._lock:
                if self._closed:
                    raise OSError("the box is being ended")
                pid = os.posix_spawn(
                    argv[0], argv, env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=RESET_SIGNALS
                )
                child = self._running[pid] = ChildProcess(pid, on_exit)
        finally:
            for source in sources:
                os.close(source)
        return child

    def reap(self) -> bool:
        """Collect every process that has ended: children, and orphans that became ours. True if none is left."""
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
                child.ended(status)

    def end_all(self, *, grace_seconds: float) -> None:
        """End every process below this one, by id; no child can be made after. For the thread that reaps."""
        with self._lock:
            self._closed = True
        for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 3.0)):
            ends = time.monotonic() + seconds
            signalled: set[int] = set()
            # Orphans become our children, so without a child there is nobody below either. What /proc shows at one
            # moment proves less: it is read while processes end and change their parents.
            while not self.reap() and time.monotonic() < ends:
                below = set(descendants(os.getpid()))
                # An interactive bash ignores SIGTERM and takes SIGHUP as its terminal going away.
                for pid in below - signalled:
                    send_signal(pid, number)
                    if number == signal.SIGTERM:
                        send_signal(pid, signal.SIGHUP)
                        send_signal(pid, signal.SIGCONT)
                signalled |= below
                signal.sigtimedwait([signal.SIGCHLD], 0.02)


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
    """Become the parent of processes below us whose own parent ends; PID 1 is that already."""
    if os.getpid() == 1:
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def descendants(root: int) -> Iterator[int]:
    """Ids of all processes below `root`, zombies left out."""
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
    """The parent's id; None for a process that has gone or is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name may hold spaces and brackets; what follows its last bracket is regular.
            state, parent = file.read().rpartition(b")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return None if state == b"Z" else int(parent)
