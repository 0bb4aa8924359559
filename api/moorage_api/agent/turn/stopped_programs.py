"""Kill the program that a stopped call has left running in its shell."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from moorage_api.agent.ports import Gate, SandboxLostError

KILL_SECONDS = 3.0


async def kill_program_of_call(gate: Gate, function: str, args: Mapping[str, Any], *, key: str) -> None:
    """Kill the program that a stopped call has left in its shell. Gives up after KILL_SECONDS."""
    if function not in ("shell_execute", "shell_wait_process", "shell_write_input"):
        return
    with suppress(TimeoutError, SandboxLostError):
        async with asyncio.timeout(KILL_SECONDS):
            await gate.call(
                key,
                "shell_kill_process",
                {"session_id": args.get("session_id", "")},
                timeout_seconds=KILL_SECONDS,
                read_only=True,  # a second kill has no effect, so the call may be retried
            )
