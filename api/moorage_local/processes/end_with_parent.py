"""Run a program that ends when its parent ends. The arguments are PARENT SIGNAL -- COMMAND…

PARENT is the parent's pid, and SIGNAL is sent to the program when the parent dies. The request for this signal must be
made in the new process before its program starts, so this module runs first and then replaces itself by the program.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, death_signal, separator, *command = sys.argv[1:]
    if separator != "--" or not command:
        sys.exit("usage: python -m moorage_local.processes.end_with_parent PARENT SIGNAL -- COMMAND…")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(parent):
        sys.exit("The parent ended before this process was set up")
    os.umask(0o077)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the arguments are ours
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
