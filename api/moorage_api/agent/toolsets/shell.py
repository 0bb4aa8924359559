"""Named shells in the sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from moorage_api.agent.ports import Attachments, Gate, ToolCall
from moorage_api.agent.toolsets.function_schema import flag, function, number, text
from moorage_api.agent.toolsets.sandbox import SandboxToolset

EXECUTE_SECONDS = 60.0
WAIT_SECONDS = 30
MAX_WAIT_SECONDS = 600

SHELL = text("Any name for the shell; a new name opens a new shell. Each shell runs one command at a time")

FUNCTIONS = [
    function(
        "shell_execute",
        "Run a command in a shell. Returns the output when the command ends. After one minute it returns the output so "
        "far, and the command keeps running.",
        {
            "session_id": SHELL,
            "exec_dir": text("Absolute path of the directory to run in, such as /home/ubuntu/workspace"),
            "command": text("The command line, for bash"),
        },
        is_remembered=True,
    ),
    function(
        "shell_read_output",
        "Show the output of a shell, while its command runs or after it has ended.",
        {"session_id": SHELL},
        read_only=True,
        is_remembered=True,
    ),
    function(
        "shell_wait_process",
        "Wait until the command in a shell ends or the given time has passed, then show its output.",
        {"session_id": SHELL},
        {"seconds": number(f"Longest time to wait: {WAIT_SECONDS} if left out, {MAX_WAIT_SECONDS} at most")},
        read_only=True,
        is_remembered=True,
    ),
    function(
        "shell_write_input",
        "Type text into the program that runs in a shell.",
        {
            "session_id": SHELL,
            "input_text": text("What to type"),
            "press_enter": flag("Whether to press Enter afterwards"),
        },
        is_remembered=True,
    ),
    function(
        "shell_kill_process",
        "End the program that runs in a shell.",
        {"session_id": SHELL},
        is_remembered=True,
    ),
]


class ShellToolset(SandboxToolset):
    default_timeout = 20.0
    timeouts: Mapping[str, float] = {"shell_execute": EXECUTE_SECONDS}

    def __init__(self, gate: Gate, attachments: Attachments) -> None:
        super().__init__(gate, attachments, FUNCTIONS)

    @property
    def name(self) -> Literal["shell"]:
        return "shell"

    def _timeout(self, call: ToolCall) -> float:
        if call.function == "shell_wait_process":
            return float(min(max(call.args.get("seconds", WAIT_SECONDS), 1), MAX_WAIT_SECONDS) + 10)
        return super()._timeout(call)

    def _render_for_model(self, call: ToolCall, result: Mapping[str, Any]) -> str:
        output = str(result.get("output", ""))
        if (path := result.get("output_file")) and result.get("truncated"):
            output += f"\n[the whole output is in {path}; read the part you need with read_file or search_in_file]"
        if result.get("status") == "running":
            return f"{output}\n[still running]"
        if result.get("exit_code") is not None:
            return f"{output}\n[exit code {result['exit_code']}]"
        return output or "[no output]"

    def _whole_in(self, call: ToolCall, result: Mapping[str, Any]) -> str:
        return str(result.get("output_file") or "")

    async def _event_content(self, call: ToolCall, result: Mapping[str, Any]) -> dict[str, Any]:
        records = []
        stored = {}
        for record in result.get("console_records") or ():
            output, key = await self._store_if_long(str(record.get("output", "")))
            records.append({**record, "output": output})
            if key is not None:
                stored["output_key"] = key
        return {"console": records, **stored}
