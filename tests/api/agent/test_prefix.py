"""Each request of a session begins with the bytes of the one before, so that providers can answer from their cache."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import pytest

from moorage_api.agent.model.llm import LlmClient
from moorage_api.agent.ports import OFFER, AgentLimits, Function, ToolCall, ToolResult
from moorage_api.agent.toolsets.function_schema import function
from moorage_api.outbound import Outbound
from support.agent import Bench, Killed, MemorySwitches, shell, shell_output
from support.llm import Call, Calls, Finish, Plan, Request, Say, ScriptedModel, Turn, Update, wish
from support.prefix import begins_with, cacheable, is_after_summary, is_summary_request

TASK: list[Turn] = [
    Plan("Work", "I begin.", ["First", "Second"]),
    Say("I look.", calls=[shell("one"), Call("message_notify_user", {"text": "Half way"}), shell("two")]),
    Calls(Call("nope"), shell("three")),
    Finish("no luck", success=False),
    Update(["Another", "Second"]),
    shell("four"),
    Finish("done"),
    Call("message_ask_user", {"text": "Which?"}),
    Finish("done"),
    Say("All done."),
    Plan("More", "I go on.", ["Third"]),
    shell("five"),
    Finish("done"),
    Say("That too."),
]


def assert_append_only(requests: Sequence[Request]) -> None:
    for before, now in pairwise(requests):
        assert json.dumps(now.get("tools")) == json.dumps(before["tools"]), "another list of tools"
        assert list(now) == list(before) or {*now} ^ {*before} <= {"tool_choice"}
        assert begins_with(now, before), (before["messages"][-1], now["messages"][: len(before["messages"])][-1])


async def run_task(bench: Bench) -> None:
    for words in ("Do it", "The first one", "And now the third"):
        bench.log.say(words)
        await bench.run()
    assert bench.log.types()[-1] == "done", bench.log.events[-1]


async def test_all_phases_share_one_list_of_tools_and_one_beginning() -> None:
    with ScriptedModel(TASK) as model:
        await run_task(Bench(model))
        assert len(model.requests) == len(TASK)
        assert_append_only(model.requests)
        wishes = [wish(request) for request in model.requests]
    step = ["any"] * 3
    assert wishes[:5] == ["make_plan", *step, "update_plan"]
    assert wishes[9:11] == ["text", "make_plan"]


async def test_a_runner_that_takes_over_sends_the_same_beginning() -> None:
    """Runners are killed before and after records; each successor reads the transcript from the database."""
    at = 0

    def die(_number: int, _when: str) -> None:
        nonlocal at
        at += 1
        if at % 5 == 0:
            raise Killed

    with ScriptedModel(TASK) as model:
        bench = Bench(model)
        for words in ("Do it", "The first one", "And now the third"):
            bench.log.say(words)
            while bench.log.is_running:
                try:
                    await bench.run(bench.journal(die))
                except Killed:
                    continue
        assert bench.log.types()[-1] == "done"
        assert len(model.requests) > len(TASK)
        assert_append_only(model.requests)


async def test_a_stop_and_a_message_during_the_work_only_append() -> None:
    turns: list[Turn] = [
        Plan("Work", "I begin.", ["First"]),
        shell("one"),
        Plan("More", "I go on.", ["Second"]),
        shell("two"),
        Update(["Second", "Third"]),
        Finish("done"),
        Finish("done"),
        Say("Over."),
    ]
    with ScriptedModel(turns) as model:
        bench = Bench(model)
        journal = bench.journal()

        def interrupt(_key: str, when: str) -> None:
            if when == "before" and len(model.requests) == 2:
                bench.log.stop_requested = True
            if when == "before" and len(model.requests) == 4:
                bench.log.say("And the third")
            journal.look()

        bench.gate.on_call = interrupt
        for words in ("Do it", "Go on"):
            bench.log.say(words)
            journal = bench.journal()
            await bench.run(journal)
        assert bench.log.types()[-1] == "done", bench.log.events[-1]
        assert len(model.requests) == len(turns)
        assert wish(model.requests[4]) == "update_plan"
        assert_append_only(model.requests)


async def test_the_last_answer_at_a_limit_only_appends() -> None:
    def answer(request: Request) -> Turn:
        if wish(request) == "make_plan":
            return Plan("Work", "I begin.", ["First"])
        return Say("That is all.") if wish(request) == "text" else shell(f"echo {len(request['messages'])}")

    with ScriptedModel(answer) as model:
        bench = Bench(model, limits=AgentLimits(max_retries=2, max_iterations=4))
        bench.log.say("Do it")
        await bench.run()
        bench.log.say("Go on")
        await bench.run()
        assert len(model.requests) == 2 * (1 + 4 + 1)
        assert_append_only(model.requests)


class Digger:
    """A model that runs many commands with long results, in a small window."""

    def __init__(self, commands: int) -> None:
        self.commands = commands
        self.made = 0

    def __call__(self, request: Request) -> Turn:
        if is_summary_request(request):
            return Say("So far: nothing.")
        if wish(request) == "make_plan":
            return Plan("Work", "I dig.", ["Dig"])
        if wish(request) == "text":
            return Say("That is all.")
        self.made += 1
        return shell(f"dig {self.made}") if self.made <= self.commands else Finish("done")


async def dig(model: ScriptedModel, *, result_chars: int) -> None:
    bench = Bench(model, context_tokens=24_000, limits=AgentLimits(max_retries=2, max_iterations=999))
    bench.gate.answer = lambda _function, _args: shell_output("x" * result_chars)
    bench.log.say("Dig")
    await bench.run()
    assert bench.log.types()[-1] == "done", bench.log.events[-1]


async def test_a_full_window_changes_the_beginning_only_in_one_step_after_a_summary() -> None:
    with ScriptedModel(Digger(60), chunk_chars=500) as model:
        await dig(model, result_chars=4_000)
        summaries = [place for place, request in enumerate(model.requests) if is_summary_request(request)]
        assert 2 <= len(summaries) <= 12
        for place, (before, now) in enumerate(pairwise(model.requests)):
            assert json.dumps(now["tools"]) == json.dumps(before["tools"])
            if place not in summaries:
                assert begins_with(now, before), place
            else:
                assert is_after_summary(now)
        assert all(wish(model.requests[place]) == "text" for place in summaries)


async def test_a_result_that_is_too_long_is_clipped_before_it_is_sent_for_the_first_time() -> None:
    with ScriptedModel(Digger(2), chunk_chars=500) as model:
        await dig(model, result_chars=200_000)  # 12 % of the room are 5,900 characters
        assert_append_only(model.requests)
        longest = max(len(str(message["content"])) for message in model.requests[-1]["messages"][1:])
    assert 4_000 < longest < 8_000


async def test_one_exchange_that_fills_the_window_is_clipped_once() -> None:
    turns: list[Turn] = [
        Plan("Work", "I dig.", ["Dig"]),
        Calls(*(shell(f"dig {number}") for number in range(8))),
        shell("a"),
        shell("b"),
        Finish("done"),
        Say("Over."),
    ]

    def answer(request: Request) -> Turn:
        if is_summary_request(request):
            return Say("So far: nothing.")
        made = [call["function"] for message in request["messages"] for call in message.get("tool_calls", ())]
        place = len({item["arguments"] for item in made if "dig" not in item["arguments"]}) + any(
            "dig" in item["arguments"] for item in made
        )
        place += not any(item["name"] == "make_plan" for item in made) and bool(made)
        return turns[place]

    with ScriptedModel(answer, chunk_chars=500) as model:
        bench = Bench(model, context_tokens=16_000)
        bench.gate.answer = lambda _function, args: shell_output("x" * (9_000 if "dig" in args["command"] else 5))
        bench.log.say("Dig")
        await bench.run()
        assert bench.log.types()[-1] == "done", bench.log.events[-1]
        after = [
            request for request in model.requests if len(request["messages"]) > 8 and not is_summary_request(request)
        ]
        assert len(after) >= 3
        assert_append_only(after)


@dataclass
class ChangingToolset:
    """A toolset whose functions change between two messages."""

    names: list[str] = field(default_factory=lambda: ["a"])
    about: str = "Does it."
    is_reordered: bool = False

    @property
    def name(self) -> Literal["mcp"]:
        return "mcp"

    def functions(self) -> Sequence[Function]:
        made = [function(name, self.about, {}, read_only=True) for name in self.names]
        if not self.is_reordered:
            return made
        return [replace(item, parameters=dict(reversed(item.parameters.items()))) for item in made]

    async def call(self, call: ToolCall) -> ToolResult:
        return ToolResult("succeeded", "It is done.", {"result": "It is done."})


def names_of(request: Request) -> list[str]:
    return [tool["function"]["name"] for tool in request["tools"]]


async def say_with(remote: ChangingToolset, bench: Bench, words: str) -> None:
    bench.more_toolsets = [remote]
    bench.log.say(words)
    await bench.run()


HELLOS: list[Turn] = [Plan("T", "Hello", [])] * 4


async def test_a_new_tool_comes_last_with_the_next_message_and_a_removed_one_goes() -> None:
    with ScriptedModel(HELLOS) as model:
        bench = Bench(model)
        await say_with(ChangingToolset(["b", "c"]), bench, "Hi")
        await say_with(ChangingToolset(["a", "b", "c"]), bench, "Hi")
        await say_with(ChangingToolset(["a", "c"]), bench, "Hi")
        assert [names_of(request)[29:] for request in model.requests] == [["b", "c"], ["b", "c", "a"], ["c", "a"]]


async def test_a_schema_whose_keys_come_in_another_order_keeps_its_bytes() -> None:
    with ScriptedModel(HELLOS) as model:
        bench = Bench(model)
        await say_with(ChangingToolset(), bench, "Hi")
        await say_with(ChangingToolset(is_reordered=True), bench, "Hi")
        assert_append_only(model.requests)


async def test_a_tool_that_is_described_anew_is_offered_anew_with_the_next_message() -> None:
    with ScriptedModel(HELLOS) as model:
        bench = Bench(model)
        await say_with(ChangingToolset(), bench, "Hi")
        await say_with(ChangingToolset(about="Does it better."), bench, "Hi")
        assert "Does it better." in str(model.requests[1]["tools"])


async def test_a_runner_that_takes_over_offers_a_tool_that_is_gone_and_refuses_its_call() -> None:
    turns: list[Turn] = [Plan("T", "I will.", ["Do it"]), Call("a"), Call("a"), Finish("done"), Say("Over.")]
    with ScriptedModel(turns) as model:
        bench = Bench(model, more_toolsets=[ChangingToolset()], switches=MemorySwitches())

        def die(_number: int, when: str) -> None:
            if when == "after" and "It is done." in str(bench.log.transcript):
                raise Killed

        bench.log.say("Go")
        with pytest.raises(Killed):
            await bench.run(bench.journal(die))
        bench.more_toolsets = [ChangingToolset([])]
        await bench.run()
        assert bench.log.types()[-1] == "done"
        assert_append_only(model.requests)
        results = [message["content"] for message in model.requests[-1]["messages"] if message["role"] == "tool"]
    assert sum("Not run" in result for result in results) == 1
    assert OFFER not in json.dumps(model.requests)


CLAUDE = "claude-sonnet-4-5"


def marked(request: Request) -> list[int]:
    return [place for place, message in enumerate(request["messages"]) if "cache_control" in json.dumps(message)]


async def test_claude_gets_cache_marks_and_no_tool_choice_and_the_same_beginning() -> None:
    """Another `tool_choice` makes Anthropic's cache of the messages invalid, so words mask the tools there."""
    with ScriptedModel(TASK) as model:
        bench = Bench(model)
        async with LlmClient(model.url, "", CLAUDE, outbound=Outbound()) as claude:
            for words in ("Do it", "The first one", "And now the third"):
                bench.log.say(words)
                await bench.run(llm=claude)
        assert bench.log.types()[-1] == "done"
        assert not any("tool_choice" in request for request in model.requests)
        assert_append_only([cacheable(request) for request in model.requests])
        for before, now in pairwise(model.requests):
            ends = [len(request["messages"]) - 1 for request in (before, now)]
            assert marked(now) == sorted({0, *ends}), "the system prompt, the end of the request before, and the end"
        assert "Call `make_plan` now" in json.dumps(model.requests[0]["messages"])


async def test_a_tool_that_the_phase_does_not_allow_is_refused_in_words_where_tool_choice_is_not_taken() -> None:
    turns: list[Turn] = [
        shell("too early"),
        Plan("T", "I will.", ["Do it"]),
        shell("ls"),
        Finish("done"),
        shell("too late"),
        Say("Over."),
    ]
    with ScriptedModel(turns) as model:
        bench = Bench(model)
        bench.log.say("Go")
        async with LlmClient(model.url, "", CLAUDE, outbound=Outbound()) as claude:
            await bench.run(llm=claude)
        assert_append_only([cacheable(request) for request in model.requests])
    assert bench.log.types()[-1] == "done"
    assert len(bench.gate.effects) == 1


async def test_a_server_that_ignores_tool_choice_is_offered_only_what_may_be_called() -> None:
    """The model answers by the tools that it sees, as one does whose server leaves `tool_choice` out of the prompt."""
    facts: dict[str, Any] = {}

    async def store(learnt: Any) -> None:
        facts.update(learnt)

    def answer(request: Request) -> Turn:
        names = [tool["function"]["name"] for tool in request.get("tools", ())]
        if names == ["make_plan"]:
            return Plan("T", "I will.", ["Do it"])
        if not names:
            return Say("Over.")
        return Finish("done") if "It is done" in str(request["messages"]) else shell("echo It is done")

    with ScriptedModel(answer) as model:
        bench = Bench(model)
        for expected in (6, 10):
            bench.log.say("Go")
            async with LlmClient(model.url, "", "scripted", outbound=Outbound(), facts=facts, on_learnt=store) as llm:
                await bench.run(llm=llm)
            assert bench.log.types()[-1] == "done", bench.log.events[-1]
            assert len(model.requests) <= expected
    assert facts["obeys_choice"] is False
