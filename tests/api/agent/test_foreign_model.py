"""A whole turn against a model server written by others, so that our scripted model is not the only one tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moorage_api.agent.model.llm import LlmClient
from moorage_api.events.schemas import MessageEvent, ToolEvent
from moorage_api.outbound import Outbound
from support.agent import Bench
from support.aimock import aimock
from support.llm import ScriptedModel


def tool_call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


SHELL = {"session_id": "main", "exec_dir": "/home/ubuntu", "command": "ls"}

TURNS: list[dict[str, Any]] = [
    {
        "reasoning": "The user wants a list of files. I should plan.",
        "toolCalls": [tool_call("make_plan", title="Files", message="I will look.", steps=["Look"])],
    },
    {
        "content": "Looking in two ways.",
        "reasoning": "Two ways are better.",
        "toolCalls": [
            tool_call("shell_execute", **SHELL),
            tool_call("find_files", dir_path="/home/ubuntu", glob_pattern="*"),
        ],
    },
    {"toolCalls": [tool_call("finish_step", success=True, result="looked", attachments=[])]},
    {"reasoning": "Now tell.", "content": "There is **one** file: ünïcödé.txt 📄"},
]


async def test_a_turn_against_aimock_streams_calls_and_keeps_reasoning_out(tmp_path: Path) -> None:
    bench = Bench(ScriptedModel([]))
    bench.log.say("Which files are there?")
    with aimock(TURNS, tmp_path) as url:
        async with LlmClient(url, "any key", "gpt-4o", outbound=Outbound()) as llm:
            await bench.run(llm=llm)
    work = ["message", "title", "message", "plan", "step", "tool", "tool", "tool", "tool", "step"]
    assert bench.log.types() == [*work, "message", "plan", "done"]
    assert [event.function for event in bench.log.all(ToolEvent)] == ["shell_execute"] * 2 + ["find_files"] * 2
    assert bench.log.all(ToolEvent)[0].args == SHELL
    assert bench.log.last(MessageEvent).message == "There is **one** file: ünïcödé.txt 📄"
    assert "Two ways are better" not in str(bench.log.transcript)
    assert "Now tell" not in str(bench.log.transcript)
