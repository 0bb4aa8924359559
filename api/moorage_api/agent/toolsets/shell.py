"""Named shells in the sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

from moorage_api.agent.ports import Attachments, Gate, ToolCall
from moorage_api.agent.toolsets.sandboxed import Sandboxed
from moorage_api.agent.toolsets.schema import flag, function, number, text

EXECUTE_SECONDS = 60.0
WAIT_SECONDS = 30
MAX_WAIT_SECONDS = 600
KILL_SECONDS = 3.0

SHELL = text("Name of the shell, any you like; a new name opens a new shell. One command at a time runs in each")

FUNCTIONS = [
    function(
        "shell_execute",
        "Run a command in a shell. Answers with its output when it ends, or after a minute with what there is by then "
        "while it goes on running.",
        {
            "session_id": SHELL,
            "exec_dir": text("Absolute path of the directory to run in, such as /home/ubuntu/workspace"),
            "command": text("The command line, for bash"),
        },
        is_remembered=True,
    ),
    function(
        "shell_read_output",
        "Show what a shell has printed, while its command runs or after.",
        {"session_id": SHELL},
        read_only=True,
        is_remembered=True,
    ),
    function(
        "shell_wait_process",
        "Wait until the command in a shell ends, but not longer than so many seconds, and show its output.",
        {"session_id": SHELL},
        {"seconds": number(f"Longest wait, {WAIT_SECONDS} if left out, {MAX_WAIT_SECONDS} at most")},
        read_only=True,
        is_remembered=True,
    ),
    function(
        "shell_write_input",
        "Type into the program that runs in a shell.",
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


class ShellToolset(Sandboxed):
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

    def _told(self, call: ToolCall, result: Mapping[str, Any]) -> str:
        output = str(result.get("output", ""))
        if result.get("status") == "running":
            return f"{output}\n[still running]"
        if result.get("exit_code") is not None:
            return f"{output}\n[exit code {result['exit_code']}]"
        return output or "[no output]"

    async def _shown(self, call: ToolCall, result: Mapping[str, Any]) -> dict[str, Any]:
        records = []
        stored = {}
        for record in result.get("console_records") or ():
            output, key = await self._short(str(record.get("output", "")))
            records.append({**record, "output": output})
            if key is not None:
                stored["output_key"] = key
        return {"console": records, **stored}


async def kill_stopped(gate: Gate, function: str, args: Mapping[str, Any], *, key: str) -> None:
    """End what a stopped call has left running in its shell, if that can be done soon."""
    if function not in ("shell_execute", "shell_wait_process", "shell_write_input"):
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(KILL_SECONDS):
            await gate.call(
                key,
                "shell_kill_process",
                {"session_id": args.get("session_id", "")},
                timeout_seconds=KILL_SECONDS,
                read_only=True,  # ending what has ended does no harm
            )
