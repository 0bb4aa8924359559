"""One bash on a pseudo-terminal: runs a command at a time and knows when it ended and how."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import termios
import threading
import time
from collections import deque
from typing import Any

from moorage_sandbox.box.shared.deadline import Deadline
from moorage_sandbox.box.shared.errors import BoxError, explained
from moorage_sandbox.box.shared.paths import Paths
from moorage_sandbox.box.shared.processes import ChildProcess, ChildProcesses, send_group_signal
from moorage_sandbox.box.shell.command import ShellCommand
from moorage_sandbox.box.shell.output import shortened
from moorage_sandbox.box.shell.reader import ShellReader
from moorage_sandbox.box.shell.terminal import COLUMNS, ROWS

STARTUP = os.path.join(os.path.dirname(__file__), "startup.bash")
COMMANDS_FD = 200
REPORTS_FD = 201

MAX_COMMAND_BYTES = 256 * 1024
MAX_RECORDS = 50
MAX_RECORDS_CHARACTERS = 512 * 1024
MAX_LINE_BYTES = 4000
"""A terminal in line mode keeps 4095 bytes of a line and drops the rest."""

KILL_STEPS = ((signal.SIGINT, 1.5), (signal.SIGTERM, 1.0), (signal.SIGKILL, 1.0))


class Shell:
    """One thread reads the terminal and the reports; everything else waits for it on `_changed`."""

    def __init__(self, name: str, *, children: ChildProcesses, paths: Paths, env: dict[str, str]) -> None:
        self.name = name
        self.ended = False
        self._paths = paths
        self._changed = threading.Condition()
        self._records: deque[ShellCommand] = deque()
        self._running: ShellCommand | None = None
        self._directory = paths.workspace
        self._last_output_at = 0.0
        self._io = threading.Lock()
        """Held for each use of a descriptor from outside the reading thread, which closes them at the end."""
        self._start(children, env)

    def _start(self, children: ChildProcesses, env: dict[str, str]) -> None:
        master, slave = os.openpty()
        commands_read, self._commands = os.pipe()
        self._reports, reports_write = os.pipe()
        self._wake, wake_write = os.pipe()
        self._master = master
        try:
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
            attributes = termios.tcgetattr(slave)
            # Without flow control: a stray ^S would stop the terminal for good.
            attributes[0] &= ~(termios.IXON | termios.IXOFF)
            # Without post-processing: a carriage return at each line helps nobody here and costs five times the time.
            attributes[1] &= ~termios.OPOST
            termios.tcsetattr(slave, termios.TCSANOW, attributes)
            self._attributes = attributes
            with explained("bash"):
                self._child: ChildProcess = children.spawn(
                    ["/bin/bash", "--noprofile", "--noediting", "--rcfile", STARTUP, "-i"],
                    env=env,
                    fds={COMMANDS_FD: commands_read, REPORTS_FD: reports_write},
                    terminal=os.ttyname(slave),
                    on_exit=lambda: os.close(wake_write),
                )
        except BaseException:
            for fd in (master, self._commands, self._reports, self._wake, wake_write):
                os.close(fd)
            raise
        finally:
            for fd in (slave, commands_read, reports_write):
                os.close(fd)
        os.set_blocking(self._commands, False)
        os.set_blocking(master, False)
        threading.Thread(target=self._follow, name=f"shell {self.name}", daemon=True).start()

    # What callers ask for.

    @property
    def busy(self) -> bool:
        return self._running is not None

    def execute(self, text: str, *, directory: str, deadline: Deadline) -> dict[str, Any]:
        """Run `text` in `directory` ("" is where the shell is) and wait for its end until `deadline`."""
        encoded = text.encode()
        if len(encoded) > MAX_COMMAND_BYTES:
            raise BoxError("invalid", "The command is too long: write it to a file and run that.")
        with self._changed:
            if self._running is not None:
                raise BoxError(
                    "busy",
                    f"Shell {self.name!r} still runs {self._running.text[:200]!r}. Wait for it (shell_wait_process), "
                    "answer it (shell_write_input), end it (shell_kill_process), or use another shell.",
                )
            if self.ended:
                raise BoxError("not_found", f"Shell {self.name!r} has just ended. Run the command again.")
            if directory:
                self._directory = directory
            self._reset_terminal()
            command = ShellCommand(text, ps1=f"ubuntu@sandbox:{self._paths.shown(self._directory)}$")
            self._add(command)
            self._running = command
        message = b"%s\0%s\0%s\0" % (command.token.encode(), os.fsencode(directory), encoded)
        if not self._write(self._commands, message, deadline.within(10)):
            self._child.signal_group(signal.SIGKILL)
        return self.wait(deadline, command)

    def wait(self, deadline: Deadline, command: ShellCommand | None = None) -> dict[str, Any]:
        """The last command's result, once it has ended or `deadline` has come."""
        with self._changed:
            command = command or self._last()
            while command.exit_code is None and not deadline.expired():
                self._changed.wait(deadline.remaining())
            return command.result()

    def write(self, text: str, *, press_enter: bool, deadline: Deadline) -> dict[str, Any]:
        """Type `text` for the running program, and answer once it has reacted."""
        command = self._running
        if command is None:
            raise BoxError("invalid", f"Nothing runs in shell {self.name!r} that could read input. Use shell_execute.")
        data = text.encode() + (b"\r" if press_enter else b"")
        if self._in_line_mode() and max(map(len, data.splitlines()), default=0) > MAX_LINE_BYTES:
            raise BoxError("invalid", f"A line of input may have {MAX_LINE_BYTES} bytes. Write it to a file instead.")
        with self._changed:
            self._last_output_at = time.monotonic()
        if not self._write(self._master, data, deadline.within(5)):
            raise BoxError("timeout", "The program does not read its input; only part of it was taken.")
        self._await_quiet(command, deadline.within(3))
        with self._changed:
            return command.result()

    def kill(self, deadline: Deadline) -> dict[str, Any]:
        """End what runs in the foreground, ever more firmly; at last the shell itself."""
        with self._changed:
            command = self._last()
        # Faster where there is less time than the steps take.
        hurry = min(1.0, deadline.remaining() / (1.5 * sum(seconds for _, seconds in KILL_STEPS)))
        for number, seconds in KILL_STEPS:
            ends = Deadline(seconds * hurry)
            while command.exit_code is None and not ends.expired():
                # Again and again: when one command of a list is ended, bash starts the next.
                group = self._foreground()
                own = group == self._child.pid
                send_group_signal(group, signal.SIGINT if own else number)
                send_group_signal(group, signal.SIGCONT)
                self.wait(ends.within(0.3), command)
        if command.exit_code is None:
            command.note = "[the command could not be ended without ending its shell]"
            self.end()
        return self.wait(deadline.within(2), command)

    def end(self) -> None:
        """End bash and the foreground group."""
        send_group_signal(self._foreground(), signal.SIGKILL)
        self._child.signal_group(signal.SIGKILL)

    def read(self) -> dict[str, Any]:
        with self._changed:
            return self._last().result()

    def view(self) -> dict[str, Any]:
        """The last commands as a person would see them in a terminal."""
        with self._changed:
            records = [{"ps1": it.ps1, "command": it.text, "output": it.shown()[0]} for it in self._records]
        transcript = "\n".join(f"{it['ps1']} {it['command']}\n{it['output']}".rstrip("\n") for it in records)
        return {"output": shortened(transcript, head=0, tail=64 * 1024)[0], "console_records": records}

    # How it works.

    def _last(self) -> ShellCommand:
        if not self._records:
            raise BoxError("not_found", f"No command has run in shell {self.name!r} yet.")
        return self._records[-1]

    def _add(self, command: ShellCommand) -> None:
        if self._records:
            self._records[-1].output.close()
        self._records.append(command)
        while len(self._records) > 1 and (
            len(self._records) > MAX_RECORDS
            or sum(len(it.text) + len(it.shown()[0]) for it in self._records) > MAX_RECORDS_CHARACTERS
        ):
            self._records.popleft()

    def _foreground(self) -> int:
        with self._io:
            return self._child.pid if self.ended else os.tcgetpgrp(self._master) or self._child.pid

    def _reset_terminal(self) -> None:
        """Undo what the last program left, so that none finds itself without echo or in raw mode."""
        with self._io:
            if not self.ended:
                termios.tcsetattr(self._master, termios.TCSANOW, self._attributes)

    def _in_line_mode(self) -> bool:
        with self._io:
            return not self.ended and bool(termios.tcgetattr(self._master)[3] & termios.ICANON)

    def _write(self, fd: int, data: bytes, deadline: Deadline) -> bool:
        """False if not all of `data` was taken in time, or the shell has ended."""
        poller = select.poll()
        poller.register(fd, select.POLLOUT)
        left = memoryview(data)
        while left:
            if not poller.poll(deadline.remaining() * 1000):
                return False
            with self._io:
                try:
                    if self.ended:
                        return False
                    written = os.write(fd, left[:512])
                except BlockingIOError:
                    written = 0
                except OSError:
                    return False
            left = left[written:]
            if not written:
                # Ready, but not for as much as must go in at once.
                time.sleep(0.005)
        return True

    def _await_quiet(self, command: ShellCommand, deadline: Deadline) -> None:
        """Until the program ended, or printed something and then nothing for a moment."""
        quiet_seconds, silent_seconds = 0.15, 0.5
        typed_at = self._last_output_at
        with self._changed:
            while command.exit_code is None and not deadline.expired():
                since = time.monotonic() - self._last_output_at
                left = (quiet_seconds if self._last_output_at > typed_at else silent_seconds) - since
                if left <= 0:
                    return
                # Output wakes nobody: with a waiter, each of its pieces would cost a switch of threads.
                self._changed.wait(deadline.remaining(at_most=min(left, 0.03)))

    def _follow(self) -> None:
        ShellReader(terminal=self._master, reports=self._reports, listener=self).follow(self._wake, self._child)
        self._finish_shell()

    # What its reader tells.

    def running_token(self) -> str | None:
        command = self._running
        return command.token if command is not None else None

    def took(self, data: bytes) -> None:
        with self._changed:
            self._last_output_at = time.monotonic()
            if self._records:
                self._records[-1].output.append(data)

    def finished(self, token: str, status: int, directory: str) -> None:
        with self._changed:
            if self._running is not None and self._running.token == token:
                self._running.exit_code = status
                self._running = None
                self._directory = directory
                self._changed.notify_all()

    def _finish_shell(self) -> None:
        with self._io:
            self.ended = True
            for fd in (self._master, self._commands, self._reports, self._wake):
                os.close(fd)
        with self._changed:
            code = self._child.exit_code
            if self._running is not None:
                self._running.exit_code = code
                note = f"[the shell ended with exit code {code}; the next command starts a new one]"
                self._running.note = f"{self._running.note}\n{note}".strip()
                self._running = None
            if self._records:
                self._records[-1].output.close()
            self._changed.notify_all()
