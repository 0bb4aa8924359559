"""A command of a shell, with its output and exit code."""

from __future__ import annotations

import os
from typing import Any

from moorage_sandbox.box.shell.kept_output import KeptOutput
from moorage_sandbox.box.shell.output import Output


class ShellCommand:
    """`exit_code` is None while the command runs. `token` is unique: its report and its marker contain it."""

    def __init__(self, text: str, *, ps1: str, outputs: str) -> None:
        """`outputs` is the directory of the files that hold long outputs."""
        self.text = text
        self.ps1 = ps1
        self.token = os.urandom(8).hex()
        self.output = Output(KeptOutput(outputs, self.token))
        self.exit_code: int | None = None
        self.note = ""

    def render(self) -> tuple[str, bool]:
        text, truncated = self.output.render()
        text = text.strip("\n")
        return f"{text}\n{self.note}".strip("\n") if self.note else text, truncated

    def to_result(self) -> dict[str, Any]:
        running = self.exit_code is None
        output, truncated = self.render()
        result: dict[str, Any] = {"output": output, "status": "running" if running else "exited"}
        if not running:
            result["exit_code"] = self.exit_code
        if truncated:
            result["truncated"] = True
        if (path := self.output.kept_file()) is not None:
            result["output_file"] = path
        result["console_records"] = [{"ps1": self.ps1, "command": self.text, "output": output}]
        return result
