"""Keeps the processors of this machine busy, so that a test shows whether it depends on the machine's speed.

    PYTHONPATH=tests python -m support.load --processes 10 --seconds 600
    PYTHONPATH=tests python -m support.load --processes 10 -- python -m pytest tests/crds

With a command, the load ends when the command ends, and its exit status is the command's. Only processor time is used.
`make test-under-load` runs the suite beside it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import subprocess
import sys
import time

from moorage_common.process_options import PR_SET_PDEATHSIG, set_process_option


def main() -> int:
    parser = argparse.ArgumentParser(prog="support.load", description="Keep this machine's processors busy.")
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=6 * 3600, help="the load ends after this time at the latest")
    parser.add_argument("command", nargs="*", help="what to run beside the load, after --")
    options = parser.parse_args()
    busy = [
        multiprocessing.Process(target=compute, args=(os.getpid(), options.seconds), daemon=True)
        for _ in range(options.processes)
    ]
    for process in busy:
        process.start()
    if options.command:
        return subprocess.run(options.command, check=False).returncode
    for process in busy:
        process.join()
    return 0


def compute(parent: int, seconds: float) -> None:
    """Use one processor for `seconds`; end earlier when the process that started this one ends."""
    set_process_option(PR_SET_PDEATHSIG, signal.SIGKILL)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and os.getppid() == parent:
        sum(range(100_000))


if __name__ == "__main__":
    sys.exit(main())
