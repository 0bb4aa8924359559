"""The user answers a question of the agent, or stops the run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moorage_api.events.schemas import DoneEvent, MessageEvent, PlanEvent, StepEvent, ToolEvent
from support.agent import Bench, shell
from support.llm import Call, Calls, Finish, Hang, Plan, Say, ScriptedModel, Status, Turn
from support.waiting import HANG_SECONDS

PLAN = Plan("T", "M", ["a", "b"])


async def test_a_question_ends_the_turn_and_the_users_answer_is_its_result() -> None:
    ask = Call("message_ask_user", {"text": "Which?", "attachments": ["/home/ubuntu/a.png"]})
    turns: list[Turn] = [PLAN, Calls(shell("one"), ask, shell("two")), Finish(), Finish(), Say("Done")]
    with ScriptedModel(turns) as model:
        bench = Bench(model)
        bench.attachments.sandbox["/home/ubuntu/a.png"] = b"png"
        bench.log.say("Go")
        await bench.run()
        assert bench.log.types()[-4:] == ["tool", "message", "tool", "wait"]
        question = bench.log.last(MessageEvent)
        assert (question.message, [file.filename for file in question.attachments]) == ("Which?", ["a.png"])
        bench.log.say("The blue one")
        await bench.run()
        results = [message["content"] for message in model.requests[2]["messages"] if message["role"] == "tool"]
    assert "The blue one" in results
    assert len(bench.gate.effects) == 1, "the call after the question was not run"
    steps = [(event.description, event.status) for event in bench.log.all(StepEvent)]
    assert steps == [("a", "running"), ("a", "completed"), ("b", "running"), ("b", "completed")]
    assert bench.log.types()[-3:] == ["message", "plan", "done"]


async def test_clients_see_that_a_question_suggests_a_takeover_of_the_browser() -> None:
    ask = Call("message_ask_user", {"text": "Please log in", "suggest_user_takeover": "browser"})
    with ScriptedModel([PLAN, ask]) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
    event = bench.log.last(ToolEvent)
    assert (event.name, event.function) == ("message", "message_ask_user")
    assert event.args["suggest_user_takeover"] == "browser"


async def test_a_notification_is_a_message_and_the_work_continues() -> None:
    tell = Call("message_notify_user", {"text": "Half way"})
    with ScriptedModel([PLAN, tell, Finish(), Finish(), Say("Done")]) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
    assert "Half way" in [event.message for event in bench.log.all(MessageEvent)]
    assert not bench.log.all(ToolEvent)


async def run_and_stop(bench: Bench, ready: asyncio.Event | None = None, *, requests: int = 0) -> None:
    """Start a run, stop it when `ready` is set or after that many model requests, and wait until it ends."""
    journal = bench.journal()
    running = asyncio.create_task(bench.run(journal))
    if ready is not None:
        await asyncio.wait_for(ready.wait(), HANG_SECONDS)
    else:
        await bench.model.wait_for_requests(requests)
    bench.log.stop_requested = True
    journal.look()
    await asyncio.wait_for(running, HANG_SECONDS)


@pytest.mark.parametrize("requests", [1, 2])
async def test_a_stop_during_a_model_request_ends_the_turn(requests: int) -> None:
    turns: list[Turn] = [Hang()] if requests == 1 else [PLAN, Hang()]
    with ScriptedModel(turns) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await run_and_stop(bench, requests=requests)
    ends = {1: ["message", "done"], 2: ["plan", "step", "step", "plan", "done"]}
    assert bench.log.types()[-len(ends[requests]) :] == ends[requests]
    if requests == 2:
        assert [step.status for step in bench.log.last(PlanEvent).steps] == ["failed", "pending"]


async def test_a_stop_does_not_wait_for_a_tool_and_kills_its_program() -> None:
    with ScriptedModel([PLAN, Calls(shell("sleep 1000"), shell("ls"))]) as model:
        bench = Bench(model)
        bench.gate.hangs_on = "shell_execute"
        bench.log.say("Go")
        await run_and_stop(bench, bench.gate.entered)
    assert bench.log.types()[-6:] == ["step", "tool", "tool", "step", "plan", "done"]
    assert bench.log.last(ToolEvent).status == "called"
    assert bench.log.last(StepEvent).status == "failed"
    assert [effect.split()[0] for effect in bench.gate.effects] == ["shell_execute", "shell_kill_process"]


async def test_a_stop_takes_a_bounded_time_when_the_sandbox_does_not_answer() -> None:
    with ScriptedModel([PLAN, shell("sleep 1000")]) as model:
        bench = Bench(model)
        bench.gate.hangs_on = "shell_"
        bench.log.say("Go")
        journal = bench.journal()
        running = asyncio.create_task(bench.run(journal))
        await asyncio.wait_for(bench.gate.entered.wait(), HANG_SECONDS)
        bench.log.stop_requested = True
        journal.look()
        await asyncio.wait_for(running, HANG_SECONDS)
    assert bench.log.types()[-1] == "done"


async def test_a_run_stopped_before_it_started_sends_no_model_request() -> None:
    with ScriptedModel([]) as model:
        bench = Bench(model)
        bench.log.say("Go")
        bench.log.stop_requested = True
        await bench.run()
        assert not model.requests
    assert bench.log.types() == ["message", "done"]


async def test_after_a_stop_the_model_learns_what_was_stopped() -> None:
    def answer(request: dict[str, Any]) -> Turn:
        if "What now" in str(request["messages"][-1]["content"]):
            return Plan("T", "You stopped me.", [])
        return PLAN if len(request["messages"]) == 2 else shell("sleep 1000")

    with ScriptedModel(answer) as model:
        bench = Bench(model)
        bench.gate.hangs_on = "shell_execute"
        bench.log.say("Go")
        await run_and_stop(bench, bench.gate.entered)
        bench.log.say("What now?")
        await bench.run()
        texts = " ".join(str(message["content"]) for message in model.requests[-1]["messages"])
    assert "The user stopped the work here" in texts
    assert "The user stopped the work while this call ran" in texts
    assert bench.log.last(MessageEvent).message == "You stopped me."


async def test_a_message_sent_right_after_a_stop_is_answered() -> None:
    def answer(request: dict[str, Any]) -> Turn:
        if "Something else" in str(request["messages"]):
            return Plan("T", "Gladly.", [])
        return Hang()

    with ScriptedModel(answer) as model:
        bench = Bench(model)
        bench.log.say("Go")
        journal = bench.journal()
        running = asyncio.create_task(bench.run(journal))
        await model.wait_for_requests(1)
        bench.log.stop_requested = True
        journal.look()
        bench.log.say("Something else")  # the journal's signals still say: stop
        await asyncio.wait_for(running, HANG_SECONDS)
    assert bench.log.last(MessageEvent).message == "Gladly."
    assert len(bench.log.all(DoneEvent)) == 1


async def test_the_next_turn_knows_the_message_that_was_stopped() -> None:
    with ScriptedModel([Plan("T", "Yes.", [])]) as model:
        bench = Bench(model)
        bench.log.say("My name is Ada")
        bench.log.stop_requested = True
        await bench.run()
        bench.log.say("Hello")
        await bench.run()
        assert "My name is Ada" in str(model.requests[0]["messages"])


@pytest.mark.parametrize("is_stop", [True, False], ids=["a stop", "a new message"])
async def test_a_wait_for_the_models_server_ends_at_once_with(is_stop: bool) -> None:
    busy = Status(429, {"error": {"message": "slow down"}}, {"Retry-After": "3000"})
    with ScriptedModel(lambda request: Say("Hi") if "Hello?" in str(request["messages"]) else busy) as model:
        bench = Bench(model)
        bench.patience_seconds = 3_600
        bench.log.say("Go")
        journal = bench.journal()
        running = asyncio.create_task(bench.run(journal))
        await model.wait_for_requests(1)
        if is_stop:
            bench.log.stop_requested = True
        else:
            bench.log.say("Hello?")
        journal.look()
        await asyncio.wait_for(running, HANG_SECONDS)
    assert bench.log.types()[-1] == "done"
