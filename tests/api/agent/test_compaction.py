"""A conversation longer than the model's context window: requests fit into it and keep the important messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moorage_api.agent.messages import clip, clip_content, merge_user_messages
from moorage_api.agent.model.llm import LlmClient
from moorage_api.agent.ports import AgentLimits
from moorage_api.agent.state import AgentState
from moorage_api.agent.tokens import count_tokens
from moorage_api.events.schemas import ErrorEvent
from moorage_api.outbound import Outbound
from support.agent import Bench, shell, shell_output
from support.llm import Finish, Plan, Request, Say, ScriptedModel, Status, Tries, Turn, wish

SHORTENING = "too long to keep"
WINDOW = 12_000
PATIENT = AgentLimits(max_iterations=999, max_retries=2)


def is_shortening(request: Request) -> bool:
    return SHORTENING in str(request["messages"][-1]["content"])


def is_well_formed(request: Request) -> bool:
    """Every call is followed by its result, and user messages are never consecutive."""
    waiting: list[str] = []
    before = ""
    for message in request["messages"]:
        if message["role"] == "tool":
            if not waiting or waiting.pop(0) != message["tool_call_id"]:
                return False
        elif waiting or (message["role"] == before == "user"):
            return False
        waiting += [call["id"] for call in message.get("tool_calls", ())]
        before = message["role"]
        for call in message.get("tool_calls", ()):
            json.loads(call["function"]["arguments"])
    return not waiting


class MeasuringTask:
    """A model that runs many commands with long outputs. It counts them itself, as the transcript is shortened."""

    def __init__(self, calls: int) -> None:
        self.calls = calls
        self.made = 0
        self.shortened = 0
        self.summary: Turn = Say("The user wants the moon measured. Found so far: its radius is 1737 km.")

    def __call__(self, request: Request) -> Turn:
        if is_shortening(request):
            self.shortened += 1
            return self.summary
        if wish(request) == "text":
            return Say("Done")
        if wish(request) == "make_plan":
            return Plan("The moon", "I will measure it.", ["measure", "report"])
        self.made += 1
        if self.made <= self.calls:
            return shell(f"measure {self.made}")
        return Finish()


async def work(model: ScriptedModel, *, output_chars: int) -> Bench:
    bench = Bench(model, context_tokens=WINDOW)
    bench.gate.answer = lambda _function, _args: shell_output("x" * output_chars)
    bench.log.say("Measure the moon")
    await bench.run()
    return bench


async def test_old_messages_are_summarised_and_the_plan_is_kept() -> None:
    task = MeasuringTask(calls=60)
    with ScriptedModel(task, chunk_chars=500) as model:
        bench = Bench(model, context_tokens=WINDOW, limits=PATIENT)
        bench.gate.answer = lambda _function, _args: shell_output("x" * 2_000)
        bench.log.say("Measure the moon")
        await bench.run()
        assert 1 <= task.shortened <= task.calls / 6
        assert all(is_well_formed(request) for request in model.requests)
        assert all(count_tokens(request["messages"]) < WINDOW for request in model.requests)
        beginning = str(model.requests[-1]["messages"][1]["content"])
    assert "its radius is 1737 km" in beginning
    assert "1. [running] measure" in beginning
    assert bench.log.types()[-1] == "done"


async def test_the_clipped_conversation_replaces_a_summary_that_the_model_cannot_make() -> None:
    task = MeasuringTask(calls=60)
    task.summary = Status(400, {"error": {"message": "no"}})
    with ScriptedModel(task, chunk_chars=500) as model:
        bench = Bench(model, context_tokens=WINDOW, limits=PATIENT)
        bench.gate.answer = lambda _function, _args: shell_output("x" * 2_000)
        bench.log.say("Measure the moon")
        await bench.run()
        assert task.shortened >= 1
        beginning = str(model.requests[-1]["messages"][1]["content"])
    assert "Measure the moon" in beginning
    assert bench.log.types()[-1] == "done"


async def test_one_message_larger_than_the_window_is_clipped() -> None:
    with ScriptedModel([Plan("T", "That was long.", [])]) as model:
        bench = Bench(model, context_tokens=WINDOW)
        bench.log.say("Read this: " + "words " * 100_000 + "the end")
        await bench.run()
        (request,) = model.requests
    assert count_tokens(request["messages"]) < WINDOW
    assert str(request["messages"][1]["content"]).startswith("Read this")
    assert str(request["messages"][1]["content"]).endswith("the end")
    assert bench.log.types()[-1] == "done"


async def test_requests_shrink_when_the_server_has_a_smaller_window_than_configured() -> None:
    """The refused request is sent again with less, and later requests stay small."""
    task = MeasuringTask(calls=20)
    limit = 8_000

    def answer(request: Request) -> Turn:
        if count_tokens(request["messages"]) > limit:
            return Status(400, {"error": {"message": "too long", "code": "context_length_exceeded"}})
        return task(request)

    with ScriptedModel(answer, chunk_chars=500) as model:
        bench = Bench(model, context_tokens=64_000)
        bench.gate.answer = lambda _function, _args: shell_output("x" * 4_000)
        bench.log.say("Measure the moon")
        await bench.run()
        refused = sum(count_tokens(request["messages"]) > limit for request in model.requests)
    assert bench.log.types()[-1] == "done"
    assert 1 <= refused <= 4


async def test_a_killed_runner_does_not_undo_the_shortening() -> None:
    task = MeasuringTask(calls=60)
    with ScriptedModel(task, chunk_chars=500) as model:
        bench = await work(model, output_chars=4_000)
        state = bench.log.state["shortened"]
        bench.log.say("And Mars?")
        await bench.run()
        assert is_well_formed(model.requests[-1])
    assert state["summarised_before"] > 0
    assert bench.log.state["shortened"]["summarised_before"] >= state["summarised_before"]


@pytest.mark.parametrize(("text", "limit"), [("", 10), ("short", 10), ("x" * 1000, 30)])
def test_clipping_keeps_the_beginning_and_the_end(text: str, limit: int) -> None:
    result = clip(text, limit)
    assert result.startswith(text[:20])
    assert result.endswith(text[-10:])
    assert len(result) <= max(limit, len(text[:limit])) + 60


def test_clipping_keeps_arguments_valid_json() -> None:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "c" * 5000,
        "tool_calls": [
            {
                "id": "1",
                "type": "function",
                "function": {"name": "f", "arguments": json.dumps({"a": "x" * 5000, "b": 1})},
            }
        ],
    }
    result = clip_content(message, 100)
    arguments = json.loads(result["tool_calls"][0]["function"]["arguments"])
    assert len(arguments["a"]) < 200
    assert arguments["b"] == 1
    assert len(result["content"]) < 200


def test_consecutive_user_messages_are_joined() -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
    ]
    assert merge_user_messages(messages) == [
        {"role": "user", "content": "a\n\nb"},
        {"role": "assistant", "content": "c"},
    ]


@pytest.mark.parametrize(("text", "low", "high"), [("word " * 700, 900, 1100), ("字" * 1000, 700, 1100)])
def test_tokens_are_estimated_for_any_script(text: str, low: int, high: int) -> None:
    assert low <= count_tokens({"role": "user", "content": text}) <= high


async def test_a_learned_window_applies_to_that_model_only() -> None:
    too_long = Status(400, {"error": {"message": "maximum context length is 4096 tokens", "code": None}})
    with ScriptedModel([Tries(too_long, Plan("T", "Hello", [])), Say("Done")]) as model:
        bench = Bench(model, context_tokens=WINDOW)
        bench.log.say("Hi " * 1_000)
        await bench.run()
        state = AgentState.model_validate(bench.journal().state)
        another = LlmClient(model.url, "", "another", context_tokens=WINDOW, outbound=Outbound())
        async with bench.llm() as same, another as other:
            assert state.shortened.window(same) < WINDOW
            assert state.shortened.window(other) == WINDOW


async def test_a_window_too_small_for_the_system_prompt_is_an_error_that_says_so() -> None:
    too_long = Status(400, {"error": {"message": "maximum context length is 512 tokens"}})
    with ScriptedModel(lambda _: too_long) as model:
        bench = Bench(model, context_tokens=WINDOW)
        bench.log.say("Hi")
        await bench.run()
    error = bench.log.events[-1]
    assert isinstance(error, ErrorEvent)
    assert error.code == "llm_window_full"
    assert "choose a model with a larger window" in error.error
    assert "512" in error.error
