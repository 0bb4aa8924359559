"""One bash on a pseudo-terminal. It runs one command at a time and reports when and how the command ended."""

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
from moorage_sandbox.box.shared.errors import BoxError, translate_os_errors
from moorage_sandbox.box.shared.paths import Paths
from moorage_sandbox.box.shared.processes import ChildProcess, ChildProcesses, send_group_signal
from moorage_sandbox.box.shell.command import ShellCommand
from moorage_sandbox.box.shell.kept_output import FOLDER
from moorage_sandbox.box.shell.output import shorten
from moorage_sandbox.box.shell.reader import ShellReader
from moorage_sandbox.box.shell.terminal import COLUMNS, ROWS

STARTUP = os.path.join(os.path.dirname(__file__), "startup.bash")
COMMANDS_FD = 200
REPORTS_FD = 201

MAX_COMMAND_BYTES = 256 * 1024
MAX_RECORDS = 50
MAX_RECORDS_CHARS = 512 * 1024
MAX_LINE_BYTES = 4000
"""A terminal in line mode keeps 4095 bytes of a line and discards the rest."""

KILL_STEPS = ((signal.SIGINT, 1.5), (signal.SIGTERM, 1.0), (signal.SIGKILL, 1.0))


class Shell:
    """One thread reads the terminal and the reports. Other threads wait for its news on `_changed`."""

    def __init__(self, name: str, *, children: ChildProcesses, paths: Paths, env: dict[str, str]) -> None:
        self.name = name
        self.has_ended = False
        self._paths = paths
        self._changed = threading.Condition()
        self._records: deque[ShellCommand] = deque()
        self._running: ShellCommand | None = None
        self._directory = paths.workspace
        self._last_output_at = 0.0
        self._io = threading.Lock()
        """Other threads hold this while they use a descriptor, because the reading thread closes them at the end."""
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
            # No flow control: an accidental ^S would stop the terminal forever.
            attributes[0] &= ~(termios.IXON | termios.IXOFF)
            # No post-processing: a carriage return on each line is useless here and makes output five times slower.
            attributes[1] &= ~termios.OPOST
            termios.tcsetattr(slave, termios.TCSANOW, attributes)
            self._attributes = attributes
            with translate_os_errors("bash"):
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

    # Called by the shell functions.

    @property
    def is_busy(self) -> bool:
        return self._running is not None

    def execute(self, text: str, *, directory: str, deadline: Deadline) -> dict[str, Any]:
        """Run `text` in `directory` (empty: the shell's own) and wait for its end until `deadline`."""
        encoded = text.encode()
        if len(encoded) > MAX_COMMAND_BYTES:
            raise BoxError(
                "invalid", f"The command has more than {MAX_COMMAND_BYTES} bytes. Write it to a file and run the file."
            )
        with self._changed:
            if self._running is not None:
                raise BoxError(
                    "busy",
                    f"Shell {self.name!r} still runs {self._running.text[:200]!r}. Wait for it (shell_wait_process), "
                    "answer it (shell_write_input), end it (shell_kill_process), or use another shell.",
                )
            if self.has_ended:
                raise BoxError("not_found", f"Shell {self.name!r} ended just now. Run the command again.")
            if directory:
                self._directory = directory
            self._reset_terminal()
            command = ShellCommand(
                text,
                ps1=f"ubuntu@sandbox:{self._paths.abbreviate(self._directory)}$",
                outputs=os.path.join(self._paths.home, FOLDER),
            )
            self._add(command)
            self._running = command
        message = b"%s\0%s\0%s\0" % (command.token.encode(), os.fsencode(directory), encoded)
        if not self._write(self._commands, message, deadline.within(10)):
            self._child.signal_group(signal.SIGKILL)
        return self.wait(deadline, command)

    def wait(self, deadline: Deadline, command: ShellCommand | None = None) -> dict[str, Any]:
        """Wait until the command has ended or `deadline` has passed, and return its result."""
        with self._changed:
            command = command or self._last_command()
            while command.exit_code is None and not deadline.has_expired():
                self._changed.wait(deadline.remaining())
            return command.to_result()

    def write(self, text: str, *, press_enter: bool, deadline: Deadline) -> dict[str, Any]:
        """Type `text` for the running program, and return the result after the program has reacted."""
        command = self._running
        if command is None:
            raise BoxError("invalid", f"No command runs in shell {self.name!r} to read the input. Use shell_execute.")
        data = text.encode() + (b"\r" if press_enter else b"")
        if self._in_line_mode() and max(map(len, data.splitlines()), default=0) > MAX_LINE_BYTES:
            message = f"A line of input may have at most {MAX_LINE_BYTES} bytes. Write the text to a file instead."
            raise BoxError("invalid", message)
        with self._changed:
            self._last_output_at = time.monotonic()
        if not self._write(self._master, data, deadline.within(5)):
            raise BoxError("timeout", "The program does not read its input. Only a part of the text was written.")
        self._wait_until_quiet(command, deadline.within(3))
        with self._changed:
            return command.to_result()

    def kill(self, deadline: Deadline) -> dict[str, Any]:
        """End the foreground command with stronger and stronger signals, and at last the shell itself."""
        with self._changed:
            command = self._last_command()
        # The steps are shortened if the deadline leaves less time than they take.
        hurry = min(1.0, deadline.remaining() / (1.5 * sum(seconds for _, seconds in KILL_STEPS)))
        for number, seconds in KILL_STEPS:
            ends = Deadline(seconds * hurry)
            while command.exit_code is None and not ends.has_expired():
                # Repeated, because bash starts the next command of a list when one ends.
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
        """Kill bash and the foreground process group."""
        send_group_signal(self._foreground(), signal.SIGKILL)
        self._child.signal_group(signal.SIGKILL)

    def read(self) -> dict[str, Any]:
        with self._changed:
            return self._last_command().to_result()

    def view(self) -> dict[str, Any]:
        """Return the last commands with their output, as a person would see them in a terminal."""
        with self._changed:
            records = [{"ps1": it.ps1, "command": it.text, "output": it.render()[0]} for it in self._records]
        transcript = "\n".join(f"{it['ps1']} {it['command']}\n{it['output']}".rstrip("\n") for it in records)
        return {"output": shorten(transcript, head=0, tail=64 * 1024)[0], "console_records": records}

    # Internal.

    def _last_command(self) -> ShellCommand:
        if not self._records:
            raise BoxError("not_found", f"No command has run in shell {self.name!r} yet.")
        return self._records[-1]

    def _add(self, command: ShellCommand) -> None:
        if self._records:
            self._records[-1].output.close()
        self._records.append(command)
        while len(self._records) > 1 and (
            len(self._records) > MAX_RECORDS
            or sum(len(it.text) + len(it.render()[0]) for it in self._records) > MAX_RECORDS_CHARS
        ):
            self._records.popleft()

    def _foreground(self) -> int:
        with self._io:
            return self._child.pid if self.has_ended else os.tcgetpgrp(self._master) or self._child.pid

    def _reset_terminal(self) -> None:
        """Restore the terminal's settings, because the last program may have left it without echo or in raw mode."""
        with self._io:
            if not self.has_ended:
                termios.tcsetattr(self._master, termios.TCSANOW, self._attributes)

    def _in_line_mode(self) -> bool:
        with self._io:
            return not self.has_ended and bool(termios.tcgetattr(self._master)[3] & termios.ICANON)

    def _write(self, fd: int, data: bytes, deadline: Deadline) -> bool:
        """Write `data`. False if not all of it was written in time, or if the shell has ended."""
        poller = select.poll()
        poller.register(fd, select.POLLOUT)
        left = memoryview(data)
        while left:
            if not poller.poll(deadline.remaining() * 1000):
                return False
            with self._io:
                try:
                    if self.has_ended:
                        return False
                    written = os.write(fd, left[:512])
                except BlockingIOError:
                    written = 0
                except OSError:
                    return False
            left = left[written:]
            if not written:
                # The pipe has room, but less than the kernel writes at once.
                time.sleep(0.005)
        return True

    def _wait_until_quiet(self, command: ShellCommand, deadline: Deadline) -> None:
        """Wait until the program has ended, or has printed something and then nothing for a moment."""
        quiet_seconds, silent_seconds = 0.15, 0.5
        typed_at = self._last_output_at
        with self._changed:
            while command.exit_code is None and not deadline.has_expired():
                since = time.monotonic() - self._last_output_at
                left = (quiet_seconds if self._last_output_at > typed_at else silent_seconds) - since
                if left <= 0:
                    return
                # Polled, because output does not notify `_changed`: each piece would cost a switch of threads.
                self._changed.wait(deadline.remaining(at_most=min(left, 0.03)))

    def _follow(self) -> None:
        ShellReader(terminal=self._master, reports=self._reports, listener=self).follow(self._wake, self._child)
        self._finish_shell()

    # Called by the reader.

    def running_token(self) -> str | None:
        command = self._running
        return command.token if command is not None else None

    def on_output(self, data: bytes) -> None:
        with self._changed:
            self._last_output_at = time.monotonic()
            if self._records:
                self._records[-1].output.append(data)

    def on_command_ended(self, token: str, status: int, directory: str) -> None:
        with self._changed:
            if self._running is not None and self._running.token == token:
                self._running.exit_code = status
                self._running = None
                self._directory = directory
                self._changed.notify_all()

    def _finish_shell(self) -> None:
        with self._io:
            self.has_ended = True
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
