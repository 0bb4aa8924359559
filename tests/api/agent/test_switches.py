"""Tools that are switched off during a run, and more tools than the model's limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from moorage_api.agent import prompts
from moorage_api.agent.ports import AgentLimits, Function, Switches, ToolCall, ToolResult
from moorage_api.agent.toolsets.function_schema import function
from support.agent import Bench, MemorySwitches, shell
from support.llm import Call, Calls, Finish, Plan, Request, Say, ScriptedModel, Turn, play_script

BUILT_IN = 29


@dataclass
class SwitchedToolset:
    """A toolset of servers, each with some tools: `a_0`, `a_1`, …"""

    switches: Switches
    servers: dict[str, int]
    called: list[str] = field(default_factory=list)

    @property
    def name(self) -> Literal["mcp"]:
        return "mcp"

    def functions(self) -> Sequence[Function]:
        return [
            function(f"{server}_{number}", "Does it.", {}, read_only=True)
            for server, count in self.servers.items()
            for number in range(count)
            if self.switches.is_on("mcp", server)
        ]

    async def call(self, call: ToolCall) -> ToolResult:
        self.called.append(call.function)
        return ToolResult("succeeded", "It is done.", {"result": "It is done."})


def offered_names(request: Request) -> list[str]:
    return [tool["function"]["name"] for tool in request["tools"]]


def bench_with(model: ScriptedModel, servers: dict[str, int], **options: Any) -> tuple[Bench, SwitchedToolset]:
    switches = options.pop("switches", MemorySwitches())
    remote = SwitchedToolset(switches, servers)
    bench = Bench(model, more_toolsets=[remote], switches=switches, **options)
    bench.log.say("Go")
    return bench, remote


TURNS: list[Turn] = [Plan("T", "I will.", ["Do it"]), Call("a_0"), Calls(Call("a_0"), Call("b_0"), Call("a_1"))]


async def test_a_tool_that_is_switched_off_is_refused_and_no_longer_offered_after_the_next_message() -> None:
    switches = MemorySwitches()

    def choose(request: Request) -> Turn:
        turns = [*TURNS, Finish("done"), Say("That was it."), Plan("T", "Hello", [])]
        if sum(message["role"] == "assistant" for message in request["messages"]) == 2:
            switches.off.add(("mcp", "a"))  # while the model answers
        return play_script(turns)(request)

    with ScriptedModel(choose) as model:
        bench, remote = bench_with(model, {"a": 2, "b": 1}, switches=switches)
        await bench.run()
        bench.log.say("Hi")
        await bench.run()
    assert bench.log.types()[-1] == "done"
    assert remote.called == ["a_0", "b_0"]
    before, during, after = (set(offered_names(model.requests[place])) & {"a_0", "a_1", "b_0"} for place in (2, 4, 5))
    assert (before, during, after) == ({"a_0", "a_1", "b_0"}, {"a_0", "a_1", "b_0"}, {"b_0"})
    results = [message["content"] for message in bench.log.transcript if message["role"] == "tool"]
    assert results.count(prompts.SWITCHED_OFF) == 2
    assert results[2:5] == [prompts.SWITCHED_OFF, "It is done.", prompts.SWITCHED_OFF]


async def test_finish_step_beside_a_refused_call_is_refused() -> None:
    switches = MemorySwitches()
    calls = Calls(Call("a_0"), Call("finish_step", {"success": True, "result": "done"}))
    turns: list[Turn] = [Plan("T", "I will.", ["Do it"]), calls, Finish("done"), Say("That was it.")]

    def choose(request: Request) -> Turn:
        switches.off.add(("mcp", "a"))  # while the model answers
        return play_script(turns)(request)

    with ScriptedModel(choose) as model:
        bench, remote = bench_with(model, {"a": 1}, switches=switches)
        await bench.run()
    assert remote.called == []
    results = [message["content"] for message in bench.log.transcript if message["role"] == "tool"]
    assert results[1:3] == [prompts.SWITCHED_OFF, prompts.FINISH_AFTER_FAILURE]


async def test_switches_are_read_once_for_each_message_and_each_remote_call() -> None:
    turns: list[Turn] = [Plan("T", "I will.", ["Do it"]), Call("a_0"), shell("ls"), Finish("done"), Say("That was it.")]
    with ScriptedModel(turns) as model:
        bench, _ = bench_with(model, {"a": 1})
        await bench.run()
    assert bench.switches.refreshes == 1 + 1, "the message, and the call of a_0"


async def test_switches_are_not_read_without_switchable_tools() -> None:
    with ScriptedModel([Plan("T", "I will.", ["Do it"]), shell("ls"), Finish("done"), Say("That was it.")]) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
    assert bench.switches.refreshes == 0


@pytest.mark.parametrize("most", [32, 128])
async def test_functions_beyond_the_limit_are_named_in_the_system_prompt(most: int) -> None:
    turns = [Plan("T", "I will.", ["Do it"]), Finish("done"), Say("That was it.")]
    limits = AgentLimits(max_functions=most)
    with ScriptedModel(turns) as model:
        bench, _ = bench_with(model, {"a": 150, "b": 1}, limits=limits)
        await bench.run()
    names = offered_names(model.requests[1])
    assert (len(names), len(set(names))) == (most, most)
    assert names[BUILT_IN:] == [f"a_{number}" for number in range(most - BUILT_IN)]
    system = model.requests[1]["messages"][0]["content"]
    assert f"- {151 - (most - BUILT_IN)} tools are not offered to you" in system
    assert f" a_{most - BUILT_IN}," in system
    assert model.requests[0]["messages"][0]["content"] == system, (
        "the system prompt must not change, or the provider's cache is lost"
    )


async def test_the_system_prompt_names_no_functions_if_all_fit() -> None:
    with ScriptedModel([Plan("T", "I will.", ["Do it"]), Finish("done"), Say("That was it.")]) as model:
        bench, _ = bench_with(model, {"a": 128 - BUILT_IN})
        await bench.run()
    assert len(offered_names(model.requests[1])) == 128
    assert "not offered" not in model.requests[1]["messages"][0]["content"]
