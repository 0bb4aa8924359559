"""Answers that are not whole: they are asked for again once, and nothing that was only written counts as done."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moorage_api.agent.model.half_answers import is_announcement, is_call_notation
from moorage_api.events.schemas import ErrorEvent, MessageEvent, StepEvent, ToolEvent
from support.agent import Bench, shell, shell_output
from support.llm import Finish, Plan, Request, Say, ScriptedModel, Status, Tries, Turn, Update

ARGS = {"session_id": "main", "exec_dir": "/home/ubuntu", "command": "ls"}
TEXT_CALL = json.dumps({"name": "shell_execute", "arguments": ARGS})

NOTATIONS = {
    "Hermes and Qwen": f"<tool_call>\n{TEXT_CALL}\n</tool_call>",
    "Qwen Coder": "<tool_call>\n<function=shell_execute>\n<parameter=command>ls</parameter>\n</function>\n</tool_call>",
    "Llama": '<|python_tag|>{"name": "shell_execute", "parameters": {"command": "ls"}}',
    "Llama's function": '<function=shell_execute>{"command": "ls"}</function>',
    "Mistral": f"[TOOL_CALLS][{TEXT_CALL}]",
    "DeepSeek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>shell_execute",
    "DeepSeek's newer one": '<｜DSML｜function_calls><｜DSML｜invoke name="shell_execute">',
    "Kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.shell_execute:0",
    "GLM": "<tool_call>shell_execute\n<arg_key>command</arg_key>\n<arg_value>ls</arg_value>\n</tool_call>",
    "MiniMax": '<minimax:tool_call>\n<invoke name="shell_execute">',
    "gpt-oss": '<|channel|>commentary to=functions.shell_execute <|message|>{"command": "ls"}',
    "Gemma": '```tool_code\nprint(shell_execute(command="ls"))\n```',
    "Claude's old one": '<function_calls>\n<invoke name="shell_execute">\n</invoke>\n</function_calls>',
    "ReAct": 'Thought: I look.\nAction: shell_execute\nAction Input: {"command": "ls"}',
    "plain JSON": TEXT_CALL,
    "JSON in a code block": f"```json\n{TEXT_CALL}\n```",
}


@pytest.mark.parametrize("text", NOTATIONS.values(), ids=NOTATIONS.keys())
def test_a_call_in_a_models_own_notation_is_recognised(text: str) -> None:
    assert is_call_notation(text)


ANNOUNCEMENTS = [
    "I'll create the file now.",
    "Sure, I will run the command:",
    "The file is missing. Let me create it.",
    "Okay, let's look at the page first.",
    "Ich werde die Datei jetzt anlegen.",
    "Je vais créer le fichier.",
    "我将创建文件。",
]


@pytest.mark.parametrize("text", ANNOUNCEMENTS)
def test_an_announcement_is_recognised(text: str) -> None:
    assert is_announcement(text)


@pytest.mark.parametrize(
    "text", ["Hello! How can I help?", "It is 4.", "The file has 12 lines.", "Done. Let me know if you need more."]
)
def test_a_result_is_neither_an_announcement_nor_a_call(text: str) -> None:
    assert not is_announcement(text)
    assert not is_call_notation(text)


HALF: dict[str, Say] = {
    **{name: Say(text) for name, text in NOTATIONS.items()},
    "an announcement": Say("I'll create the file now."),
    "an answer that was cut": Say("The result of this step is that", finish_reason="length"),
}


async def run(script: Any, *said: str) -> Bench:
    with ScriptedModel(script) as model:
        bench = Bench(model)
        bench.gate.answer = lambda _function, _args: shell_output("ok")
        for words in said or ("Go",):
            bench.log.say(words)
            await bench.run()
    return bench


@pytest.mark.parametrize("half", HALF.values(), ids=HALF.keys())
async def test_a_half_answer_of_a_step_is_asked_for_again(half: Say) -> None:
    bench = await run([Plan("T", "M", ["a"]), half, shell("ls"), Finish(), Say("Done")])
    assert [event.status for event in bench.log.all(StepEvent)] == ["running", "completed"]
    assert len(bench.gate.effects) == 1


@pytest.mark.parametrize("half", HALF.values(), ids=HALF.keys())
async def test_a_step_whose_answer_is_half_twice_fails_and_nothing_is_run(half: Say) -> None:
    bench = await run([Plan("T", "M", ["a"]), half, half, Update([]), Say("It did not work.")])
    assert [event.status for event in bench.log.all(StepEvent)] == ["running", "failed"]
    assert not bench.gate.effects


async def test_a_plan_that_is_only_announced_is_asked_for_again() -> None:
    bench = await run([Say("I'll create the file now."), Plan("T", "M", ["a"]), Finish(), Say("Done")])
    assert [event.message for event in bench.log.all(MessageEvent)] == ["Go", "M", "Done"]


async def test_a_final_answer_that_is_cut_twice_says_so() -> None:
    cut = Say("The result is", finish_reason="length")
    bench = await run([Plan("T", "M", ["a"]), Finish(), cut, cut])
    assert bench.log.last(MessageEvent).message.startswith("The result is\n\n[The model's answer ends here")


class TextModel:
    """Behind a server that leaves calls in the text."""

    def __init__(self, *, is_native_first: bool) -> None:
        self.is_native_first = is_native_first
        self.seen = 0

    def __call__(self, request: Request) -> Turn:
        if "tools" not in request:
            return Say("Done")
        if request["tools"][0]["function"]["name"] == "make_plan":
            plan = {"title": "T", "message": "M", "steps": ["a"]}
            if self.is_native_first:
                return Plan(**plan)  # type: ignore[arg-type]
            return Say(json.dumps({"name": "make_plan", "arguments": plan}))
        if any(message["role"] == "tool" and "ok" in message["content"] for message in request["messages"]):
            finish = {"success": True, "result": "r", "attachments": []}
            return Say(json.dumps({"name": "finish_step", "arguments": finish}))
        if request["tools"][0]["function"]["name"] == "update_plan":
            return Update([])
        self.seen += 1
        return Say(TEXT_CALL)


async def test_a_server_that_leaves_each_call_in_the_text_becomes_known_and_its_calls_are_run() -> None:
    bench = await run(TextModel(is_native_first=False))
    assert [event.function for event in bench.log.all(ToolEvent)] == ["shell_execute"] * 2
    assert bench.log.types()[-1] == "done"


async def test_a_text_is_never_a_call_when_the_server_has_sent_a_real_one() -> None:
    bench = await run([Plan("T", "M", ["a"]), Say(TEXT_CALL), Say(TEXT_CALL), Update([]), Say("It says so.")])
    assert not bench.gate.effects


async def test_an_unclear_refusal_of_a_long_request_is_tried_once_shortened() -> None:
    refused: list[int] = []

    def answer(request: Request) -> Turn:
        if len(json.dumps(request["messages"])) > 60_000:
            refused.append(1)
            return Status(500, {"error": {"message": "Internal error"}})
        return Plan("T", "That was long.", [])

    with ScriptedModel(answer) as model:
        bench = Bench(model)
        bench.log.say("words " * 12_000)
        await bench.run()
    assert bench.log.types()[-1] == "done"
    assert len(refused) == 3, "a 500 is retried twice and then not waited out"


async def test_a_refusal_that_is_not_about_the_length_leaves_the_window_as_it_was() -> None:
    with ScriptedModel(lambda _: Status(400, {"error": {"message": "we do not like you"}})) as model:
        bench = Bench(model)
        bench.log.say("words " * 12_000)
        await bench.run()
        assert len(model.requests) <= 3
    error = bench.log.last(ErrorEvent)
    assert "we do not like you" in error.error
    assert bench.log.state["shortened"]["context_tokens"] is None


async def test_a_rate_limit_never_shortens_a_request() -> None:
    with ScriptedModel(lambda _: Status(429, {"error": {"message": "too many tokens"}})) as model:
        bench = Bench(model)
        bench.log.say("words " * 12_000)
        await bench.run()
        assert len({json.dumps(request) for request in model.requests}) == 1
    assert bench.log.last(ErrorEvent).code == "llm_rate_limited"


async def test_a_history_that_the_server_refuses_is_sent_as_plain_text() -> None:
    """Nobody knows what the server dislikes about calls of earlier steps; the session goes on all the same."""

    def answer(request: Request) -> Turn:
        if any(message["role"] == "tool" for message in request["messages"]):
            return Status(400, {"error": {"message": "bad sequence"}})
        if "tools" not in request:
            return Say("Done")
        if request["tools"][0]["function"]["name"] == "make_plan":
            return Plan("T", "M", ["a"])
        return Finish()

    with ScriptedModel(answer) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
    assert bench.log.types()[-1] == "done"


async def test_trouble_is_waited_out_and_the_user_sees_it() -> None:
    trouble = Status(503, {"error": {"message": "overloaded"}})
    turn = Tries(*([trouble] * 8), Plan("T", "Hello", []))
    with ScriptedModel([turn]) as model:
        bench = Bench(model)
        bench.log.say("Go")
        bench.patience_seconds = 60
        journal = await bench.run()
    assert bench.log.types()[-1] == "done"
    waits = [event for event in journal.partials if (event.stream_id or "").startswith("waiting")]
    assert len(waits) == 8
    assert "overloaded" in waits[0].message
    assert not any("overloaded" in event.message for event in bench.log.all(MessageEvent))
