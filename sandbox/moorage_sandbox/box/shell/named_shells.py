"""The shells of the box by name, and the five shell functions."""

from __future__ import annotations

import os
import threading
from typing import Any

from moorage_sandbox.box.shared.deadline import Deadline
from moorage_sandbox.box.shared.errors import BoxError, translate_os_errors
from moorage_sandbox.box.shared.paths import Paths
from moorage_sandbox.box.shared.processes import ChildProcesses
from moorage_sandbox.box.shell.shell import Shell

MAX_SHELLS = 20


class Shells:
    def __init__(self, *, children: ChildProcesses, paths: Paths, env: dict[str, str]) -> None:
        self._children = children
        self._paths = paths
        self._env = env
        self._lock = threading.Lock()
        self._by_name: dict[str, Shell] = {}

    def shell_execute(self, deadline: Deadline, *, session_id: str, exec_dir: str, command: str) -> dict[str, Any]:
        """Run a command. With an empty `exec_dir` the shell stays in its current directory."""
        directory = self._directory(exec_dir)
        return self._open(session_id).execute(command, directory=directory, deadline=deadline)

    def shell_read_output(self, deadline: Deadline, *, session_id: str) -> dict[str, Any]:
        return self._find_shell(session_id).read()

    def shell_wait_process(
        self, deadline: Deadline, *, session_id: str, seconds: float | None = None
    ) -> dict[str, Any]:
        return self._find_shell(session_id).wait(deadline if seconds is None else deadline.within(seconds))

    def shell_write_input(
        self, deadline: Deadline, *, session_id: str, input_text: str, press_enter: bool
    ) -> dict[str, Any]:
        return self._find_shell(session_id).write(input_text, press_enter=press_enter, deadline=deadline)

    def shell_kill_process(self, deadline: Deadline, *, session_id: str) -> dict[str, Any]:
        return self._find_shell(session_id).kill(deadline)

    def view(self, name: str) -> dict[str, Any]:
        return self._find_shell(name).view()

    def _directory(self, exec_dir: str) -> str:
        if not exec_dir:
            return ""
        directory = os.path.normpath(self._paths.resolve(exec_dir))
        if directory == self._paths.workspace:
            os.makedirs(directory, exist_ok=True)
        with translate_os_errors(exec_dir):
            if not os.path.isdir(directory):
                os.stat(directory)
                raise BoxError("not_found", f"{exec_dir} is not a directory.")
        if not os.access(directory, os.X_OK):
            raise BoxError("forbidden", f"{exec_dir}: Permission denied")
        return directory

    def _find_shell(self, name: str) -> Shell:
        with self._lock:
            shell = self._by_name.get(name)
        if shell is None:
            known = ", ".join(sorted(self._by_name)) or "none"
            message = f"There is no shell {name!r}. Existing shells: {known}. shell_execute makes a new one."
            raise BoxError("not_found", message)
        return shell

    def _open(self, name: str) -> Shell:
        """Return the shell with that name. Makes a new one if no shell has that name, or if it has ended."""
        with self._lock:
            shell = self._by_name.get(name)
            if shell is not None and not shell.has_ended:
                return shell
            if shell is None and len(self._by_name) >= MAX_SHELLS:
                self._make_room()
            self._by_name.pop(name, None)
            shell = Shell(name, children=self._children, paths=self._paths, env=self._env)
            self._by_name[name] = shell
            return shell

    def _make_room(self) -> None:
        """Remove the oldest shell that has ended. Raises `limit` if no shell has ended."""
        ended = next((name for name, shell in self._by_name.items() if shell.has_ended), None)
        if ended is None:
            idle = [name for name, shell in self._by_name.items() if not shell.is_busy]
            raise BoxError(
                "limit",
                f"There are {MAX_SHELLS} shells already. Use one of them (not busy: {', '.join(idle) or 'none'}), "
                "or run `exit` in one that is no longer needed.",
            )
        del self._by_name[ended]
