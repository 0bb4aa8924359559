"""Reads from a shell: the output on its terminal, and its reports of commands that have ended."""

from __future__ import annotations

import os
import select
import time
from typing import Protocol

from moorage_sandbox.box.shared.processes import ChildProcess

MARKER_SECONDS = 1.0
"""How long to wait for the marker in the output after the report. It is missing if a command broke the terminal."""


class ShellListener(Protocol):
    """What the reader calls in its shell."""

    def running_token(self) -> str | None: ...

    def on_output(self, data: bytes) -> None: ...

    def on_command_ended(self, token: str, status: int, directory: str) -> None: ...


class ShellReader:
    """Assembles the reports and the markers in the output, which arrive in pieces."""

    def __init__(self, *, terminal: int, reports: int, listener: ShellListener) -> None:
        self._terminal = terminal
        self._reports = reports
        self._listener = listener
        self._partial = b""
        self._recent = b""
        self._report: tuple[str, int, str] | None = None
        self._reported_at = 0.0
        self._marker_seen = False

    def follow(self, wake: int, child: ChildProcess) -> None:
        """Read until `child` has ended. Its end closes the other side of `wake`."""
        poller = select.poll()
        for fd in (self._terminal, self._reports, wake):
            poller.register(fd, select.POLLIN)
        while child.exit_code is None:
            for fd, _ in poller.poll(self._timeout_ms()):
                is_open = True
                if fd == self._terminal:
                    is_open = self._read_terminal()
                elif fd == self._reports:
                    is_open = self._read_reports()
                if not is_open:
                    poller.unregister(fd)
            self._settle()
        self._read_rest()

    def _timeout_ms(self) -> float | None:
        if self._report is None:
            return None
        return max(0.0, self._reported_at + MARKER_SECONDS - time.monotonic()) * 1000

    def _read_terminal(self) -> bool:
        """Read once. False when no process has the terminal open any more."""
        try:
            data = os.read(self._terminal, 65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        token = self._listener.running_token()
        if token is not None and not self._marker_seen:
            recent = self._recent + data
            self._marker_seen = b"\x1b]777;%s\x07" % token.encode() in recent
            self._recent = recent[-64:]
        self._listener.on_output(data)
        return bool(data)

    def _read_reports(self) -> bool:
        data = os.read(self._reports, 65536)
        *whole, self._partial = (self._partial + data).split(b"\0")
        for token, status, directory in zip(whole[0::3], whole[1::3], whole[2::3], strict=False):
            # A command may have written other data into the pipe. It is ignored.
            if token.decode("ascii", "replace") == self._listener.running_token() and status.isdigit():
                self._report = (token.decode(), int(status), os.fsdecode(directory))
                self._reported_at = time.monotonic()
        if len(whole) % 3:
            self._partial = b"\0".join([*whole[-(len(whole) % 3) :], self._partial])
        return bool(data)

    def _settle(self) -> None:
        """Report the end of the command once both its report and its marker have arrived."""
        if self._report is not None and (self._marker_seen or self._timeout_ms() == 0):
            report, self._report, self._marker_seen, self._recent = self._report, None, False, b""
            self._listener.on_command_ended(*report)

    def _read_rest(self) -> None:
        """Read the last output of bash. Background processes may write without end, so the time is limited."""
        ends = time.monotonic() + 0.2
        poller = select.poll()
        poller.register(self._terminal, select.POLLIN)
        while time.monotonic() < ends and poller.poll(20) and self._read_terminal():
            continue
