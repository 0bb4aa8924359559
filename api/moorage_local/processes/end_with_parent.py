"""Run a program that ends when its parent ends. The arguments are PARENT SIGNAL -- COMMAND…

PARENT is the parent's pid, and SIGNAL is sent to the program when the parent dies. The request for this signal must be
made in the new process before its program starts, so this module runs first and then replaces itself by the program.
"""

from __future__ import annotations

import os
import sys

from moorage_common.process_options import PR_SET_PDEATHSIG, set_process_option


def main() -> None:
    parent, death_signal, separator, *command = sys.argv[1:]
    if separator != "--" or not command:
        sys.exit("usage: python -m moorage_local.processes.end_with_parent PARENT SIGNAL -- COMMAND…")
    try:
        set_process_option(PR_SET_PDEATHSIG, int(death_signal))
    except OSError as error:
        sys.exit(f"This process cannot be set up to end with its parent: {error.strerror}")
    if os.getppid() != int(parent):
        sys.exit("The parent ended before this process was set up")
    os.umask(0o077)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the arguments are ours
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
