"""The parts of a box, and the dispatch of each function to its part."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from moorage_sandbox.box.arguments import check_arguments
from moorage_sandbox.box.environment import command_environment
from moorage_sandbox.box.files.functions import Files
from moorage_sandbox.box.files.writing import remove_unfinished
from moorage_sandbox.box.shared.deadline import Deadline
from moorage_sandbox.box.shared.paths import Paths
from moorage_sandbox.box.shared.processes import ChildProcesses
from moorage_sandbox.box.shell.named_shells import Shells
from moorage_sandbox.box.skills import Skills
from moorage_sandbox.protocol import BROWSER_FUNCTIONS, SHELL_FUNCTIONS

if TYPE_CHECKING:
    from moorage_sandbox.box.browser.browser import Browser


class Box:
    def __init__(self, *, home: str, display: str) -> None:
        self.boot_id = os.urandom(16).hex()
        self.paths = Paths(home)
        self.children = ChildProcesses()
        self._env = command_environment(home=self.paths.home, display=display)
        self.shells = Shells(children=self.children, paths=self.paths, env=self._env)
        self._files = Files(children=self.children, paths=self.paths)
        self.skills = Skills(self.paths.skills)
        self._browser: Browser | None = None
        self._browser_lock = threading.Lock()

    def run(self, function: str, args: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        """Run one of the sandbox functions. Raises BoxError for every error that the caller can act on."""
        values = check_arguments(function, args)
        part: object = self._files
        if function in SHELL_FUNCTIONS:
            part = self.shells
        elif function in BROWSER_FUNCTIONS:
            part = self._get_browser()
        result: dict[str, Any] = getattr(part, function)(Deadline(timeout_seconds), **values)
        return result

    def end(self) -> None:
        """End every process and remove unfinished files. Only the thread that reaps processes may call this."""
        self.children.end_all(grace_seconds=1.0)
        remove_unfinished()

    def _get_browser(self) -> Browser:
        with self._browser_lock:
            if self._browser is None:
                from moorage_sandbox.box.browser.browser import Browser

                self._browser = Browser(children=self.children, paths=self.paths, env=self._env)
            return self._browser
