"""A whole turn: plan, steps with tools, final answer, in the order that clients rely on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from moorage_api.agent.model.llm import LlmClient
from moorage_api.events.schemas import MessageEvent, PlanEvent, StepEvent, TitleEvent, ToolEvent
from moorage_api.outbound import Outbound
from support.agent import Bench, shell
from support.llm import Finish, Plan, Say, ScriptedModel, Tries, Turn

TASK: list[Turn] = [
    Plan("A listing", "I will list the files.", ["List the files", "Count them"]),
    shell("ls"),
    Finish("two files"),
    shell("ls | wc -l"),
    Finish("2", attachments=["/home/ubuntu/workspace/out.txt", "/home/ubuntu/workspace/missing.txt"]),
    Say("There are **two** files."),
]


async def test_a_fresh_chat_has_its_events_in_the_promised_order() -> None:
    with ScriptedModel(TASK) as model:
        bench = Bench(model)
        bench.attachments.sandbox["/home/ubuntu/workspace/out.txt"] = b"2\n"
        bench.log.say("How many files are there?")
        await bench.run()
    start = ["message", "title", "message", "plan"]
    step = ["step", "tool", "tool", "step"]
    assert bench.log.types() == [*start, *step, *step, "message", "plan", "done"]
    log = bench.log
    assert log.all(TitleEvent) == [TitleEvent(title="A listing")]
    assert [event.status for event in log.all(StepEvent)] == ["running", "completed"] * 2
    assert [step.status for step in log.all(PlanEvent)[0].steps] == ["pending", "pending"]
    assert [step.status for step in log.last(PlanEvent).steps] == ["completed", "completed"]
    answer = log.last(MessageEvent)
    assert (answer.role, answer.partial) == ("assistant", False)
    assert answer.message.startswith("There are **two** files.\n\nThese files could not be stored:")
    assert [file.filename for file in answer.attachments] == ["out.txt"]


async def test_tool_events_carry_our_own_ids_and_the_content_for_clients() -> None:
    with ScriptedModel(TASK) as model:
        bench = Bench(model)
        bench.log.say("How many files are there?")
        await bench.run()
    calling, called, *others = bench.log.all(ToolEvent)
    assert (calling.name, calling.function, calling.args["command"]) == ("shell", "shell_execute", "ls")
    assert (calling.status, called.status) == ("calling", "called")
    assert called.content is not None
    assert called.content["console"][0]["command"] == "ls"
    assert calling.tool_call_id == called.tool_call_id
    assert {calling.tool_call_id}.isdisjoint({event.tool_call_id for event in others})


async def test_partial_messages_of_the_answer_have_the_stream_id_of_the_stored_message() -> None:
    words = "All of the files were looked at, and here is what each of them holds."
    with ScriptedModel([Plan("T", "M", ["a"]), Finish(), Say(words)], chunk_delay_seconds=0.02) as model:
        bench = Bench(model)
        bench.log.say("Go")
        journal = await bench.run()
    answer = bench.log.last(MessageEvent)
    partials = [event for event in journal.partials if event.stream_id == answer.stream_id]
    assert partials
    assert all(words.startswith(event.message) and event.partial for event in partials)
    assert answer.message == words


@pytest.mark.parametrize(
    "text",
    ['{"message": "It is done.", "attachments": []}', '```json\n{"message": "It is done."}\n```', "  It is done.\n"],
)
async def test_an_answer_wrapped_in_json_is_unwrapped_and_has_no_partial_messages(text: str) -> None:
    with ScriptedModel([Plan("T", "M", ["a"]), Finish(), Say(text)], chunk_delay_seconds=0.02) as model:
        bench = Bench(model)
        bench.log.say("Go")
        journal = await bench.run()
    assert bench.log.last(MessageEvent).message == "It is done."
    assert not [event for event in journal.partials if "{" in event.message]


async def test_a_final_answer_that_shows_a_document_is_not_replaced_by_a_part_of_it() -> None:
    said = 'The server answers with this:\n```json\n{"message": "It works."}\n```\nEverything is fine.'
    with ScriptedModel([Plan("T", "M", ["a"]), Finish(), Say(said)]) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
    assert bench.log.last(MessageEvent).message == said


async def test_a_model_that_gives_no_answer_is_asked_again() -> None:
    with ScriptedModel([Plan("T", "M", ["a"]), Finish(), Tries(Say(""), Say("Done"))]) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
    assert bench.log.last(MessageEvent).message == "Done"


async def test_the_scripted_model_can_run_as_a_process(tmp_path: Path) -> None:
    script = [
        {"plan": {"title": "T", "message": "M", "steps": ["a"]}},
        {"tries": [{"status": 503}, {"calls": [["message_notify_user", {"text": "Soon"}]]}]},
        {"finish": {"result": "x"}},
        {"say": "Done"},
    ]
    file = tmp_path / "script.json"
    file.write_text(json.dumps({"scripts": [{"contains": "Go", "turns": script}]}))
    bench = Bench(ScriptedModel([]))
    bench.log.say("Go")
    command = [sys.executable, "-m", "support.llm", "--port", "0", "--script", str(file)]
    tests = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tests) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().removeprefix("listening on ").strip()
            async with LlmClient(url, "", "any", backoff_seconds=0.01, outbound=Outbound()) as llm:
                await bench.run(llm=llm)
        finally:
            process.terminate()
    assert [event.message for event in bench.log.all(MessageEvent)] == ["Go", "M", "Soon", "Done"]
