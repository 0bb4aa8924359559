"""Processes are ended and awaited by their pidfd."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from moorage_common.processes import end_process, wait_readable

IGNORES_SIGTERM = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


async def test_a_process_that_ignores_the_signal_is_killed_after_its_grace() -> None:
    with subprocess.Popen([sys.executable, "-c", IGNORES_SIGTERM], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        await end_process(process.pid, signal.SIGTERM, grace_seconds=0.1)
        assert process.wait() == -signal.SIGKILL


async def test_a_process_that_has_ended_needs_no_ending() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        await end_process(process.pid, signal.SIGTERM, grace_seconds=0.1)


async def test_waiting_ends_with_the_timeout() -> None:
    reader, writer = os.pipe()
    try:
        assert not await wait_readable(reader, timeout_seconds=0.01)
        os.write(writer, b"!")
        assert await wait_readable(reader)
    finally:
        os.close(reader)
        os.close(writer)
