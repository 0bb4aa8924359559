"""Finds the processes of a running platform that a test kills."""

from __future__ import annotations

import contextlib
import signal

import psutil


def gates(host_pid: int) -> list[psutil.Process]:
    """The gates: the only descendants of the host that listen on a port."""
    return [process for process in _below(host_pid) if _listens(process) and _is_launcher(process.parent())]


def boxes(host_pid: int) -> list[psutil.Process]:
    """The box processes in the sandboxes."""
    return [
        process
        for process in _below(host_pid)
        if any("moorage_sandbox.box" in part for part in process.cmdline()) and "bwrap" not in process.name()
    ]


def talks_to(pid: int, port: int | None) -> bool:
    """Whether the process has a connection to this port."""
    connections = psutil.Process(pid).net_connections("tcp")
    return any(one.raddr and one.raddr.port == port and one.status == psutil.CONN_ESTABLISHED for one in connections)


def kill(processes: list[psutil.Process]) -> int:
    """Send SIGKILL to all of them and return their number."""
    killed = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
            killed += 1
    return killed


def _below(pid: int) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.cmdline()
            found.append(process)
    return found


def _listens(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return any(one.status == psutil.CONN_LISTEN for one in process.net_connections("tcp"))
    return False


def _is_launcher(process: psutil.Process | None) -> bool:
    return process is not None and any("processes.fork_server" in part for part in process.cmdline())
