"""Plans: when the model is asked for one, which answers are accepted, and how a new plan changes the steps."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from moorage_api.agent import prompts
from moorage_api.agent.ports import AgentLimits
from moorage_api.events.schemas import ErrorEvent, MessageEvent, PlanEvent, StepEvent, TitleEvent
from support.agent import Bench, shell
from support.llm import Call, Calls, Finish, Hang, Plan, Request, Say, ScriptedModel, Turn, Update, wish
from support.waiting import HANG_SECONDS


def count_planning_requests(model: ScriptedModel) -> int:
    return sum(wish(request) in ("make_plan", "update_plan") for request in model.requests)


async def test_a_question_that_needs_no_tools_is_answered_at_once() -> None:
    with ScriptedModel([Plan("Greeting", "Hello! What can I do?", [])]) as model:
        bench = Bench(model)
        bench.log.say("Hi")
        await bench.run()
    assert bench.log.types() == ["message", "title", "message", "done"]
    assert len(model.requests) == 1
    assert not bench.gate.effects


ANSWERS: dict[str, Turn] = {
    "plain text": Say("It is 4."),
    "JSON in plain text": Say(json.dumps({"title": "Sum", "message": "It is 4.", "steps": []})),
    "JSON in a fence": Say('```json\n{"title": "Sum", "message": "It is 4.", "steps": []}\n```'),
    "a call in a tag": Say('<tool_call>{"name": "make_plan", "arguments": {"message": "It is 4."}}</tool_call>'),
    "thoughts first": Say("<think>2 + 2…</think>It is 4."),
    "no steps at all": Calls(Call("make_plan", {"message": "It is 4."})),
}


@pytest.mark.parametrize("turn", ANSWERS.values(), ids=ANSWERS.keys())
async def test_an_answer_without_steps_is_accepted_in_every_form(turn: Turn) -> None:
    with ScriptedModel([turn]) as model:
        bench = Bench(model)
        bench.log.say("What is 2 + 2?")
        await bench.run()
    assert bench.log.types() == ["message", "title", "message", "done"]
    assert bench.log.last(MessageEvent).message == "It is 4."
    assert bench.log.last(TitleEvent).title in ("Sum", "What is 2 + 2?")


STEPS: dict[str, Any] = {
    "texts": ["Look", "Tell"],
    "objects": [{"id": 1, "description": "Look"}, {"step": "Tell"}],
    "lines": "Look\nTell",
    "with empty ones": ["Look", "", None, "Tell", {}],
}


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS.keys())
async def test_steps_are_accepted_in_every_form(steps: Any) -> None:
    plan = Calls(Call("make_plan", {"title": "T", "message": "M", "steps": steps}))
    with ScriptedModel([plan, Finish(), Finish(), Say("Done")]) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
    assert [step.description for step in bench.log.last(PlanEvent).steps] == ["Look", "Tell"]


async def test_the_planning_request_names_the_function_that_must_be_called() -> None:
    with ScriptedModel([Plan("T", "M", [])]) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
    (request,) = model.requests
    assert request["tool_choice"] == {"type": "function", "function": {"name": "make_plan"}}


PLANNED = {"title": "T", "message": "M", "steps": ["a"]}


@pytest.mark.parametrize("function", ["make_plan", "update_plan"])
async def test_a_plan_during_a_step_is_refused_and_the_step_goes_on(function: str) -> None:
    turns: list[Turn] = [Plan("T", "M", ["a"]), Call(function, PLANNED), Finish(), Say("Done")]
    with ScriptedModel(turns) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
        assert "the plan is made" in str(model.requests[2]["messages"][-1]["content"])
    assert bench.log.types()[-1] == "done"
    assert len(bench.log.last(PlanEvent).steps) == 1


async def test_a_task_needs_one_planning_request_if_no_step_fails() -> None:
    turns: list[Turn] = [Plan("T", "M", ["a", "b", "c"]), Finish(), Finish(), Finish(), Say("Done")]
    with ScriptedModel(turns) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
        assert count_planning_requests(model) == 1
        assert len(model.requests) == 5


async def test_a_failed_step_makes_a_new_plan_for_what_is_left() -> None:
    turns: list[Turn] = [
        Plan("T", "M", ["a", "b", "c"]),
        Finish(),
        Finish("no luck", success=False),
        Update(["another b", "c"], "I try differently."),
        Finish(),
        Finish(),
        Say("Done"),
    ]
    with ScriptedModel(turns) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
        assert count_planning_requests(model) == 2
    first, second, last = bench.log.all(PlanEvent)
    assert [(step.description, step.status) for step in second.steps] == [
        ("a", "completed"),
        ("b", "failed"),
        ("another b", "pending"),
        ("c", "pending"),
    ]
    assert second.steps[3].id == first.steps[2].id, "a step that stays keeps its id"
    assert [step.status for step in last.steps] == ["completed", "failed", "completed", "completed"]
    assert len({step.id for step in last.steps}) == 4
    assert "I try differently." in [event.message for event in bench.log.all(MessageEvent)]


async def test_an_empty_plan_after_a_failure_leads_to_the_final_answer() -> None:
    turns: list[Turn] = [Plan("T", "M", ["a", "b"]), Finish("no", success=False), Update([]), Say("It can't be done.")]
    with ScriptedModel(turns) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
    assert bench.log.last(MessageEvent).message == "It can't be done."
    assert [step.status for step in bench.log.last(PlanEvent).steps] == ["failed"]
    assert bench.log.types()[-1] == "done"


async def test_a_second_task_gets_a_plan_of_its_own_with_new_ids_and_the_old_title() -> None:
    turns: list[Turn] = [Plan("T", "M", ["a"]), Finish(), Say("Done"), Plan("U", "N", ["a"]), Finish(), Say("Done too")]
    with ScriptedModel(turns) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
        bench.log.say("Once more")
        await bench.run()
    plans = bench.log.all(PlanEvent)
    assert len(plans) == 4
    assert plans[0].steps[0].id != plans[2].steps[0].id
    assert [event.title for event in bench.log.all(TitleEvent)] == ["T"]
    stream_ids = [event.stream_id for event in bench.log.all(MessageEvent) if event.role == "assistant"]
    assert len(set(stream_ids)) == 4


def contains(request: Request, words: str) -> bool:
    return any(words in str(message["content"]) for message in request["messages"])


async def test_a_new_message_during_a_tool_call_leads_to_a_new_plan_and_the_step_continues() -> None:
    turns: list[Turn] = [
        Plan("T", "M", ["a", "b"]),
        Calls(shell("one"), shell("two")),
        Update(["a", "c"], "I will do that too."),
        Finish(),
        Finish(),
        Say("Done"),
    ]
    with ScriptedModel(turns) as model:
        bench = Bench(model)
        bench.log.say("Go")
        journal = bench.journal()

        def speak(_key: str, when: str) -> None:
            if when == "after" and len(bench.gate.ledger) == 1:
                bench.log.say("Also this")
                journal.look()

        bench.gate.on_call = speak
        await bench.run(journal)
        assert count_planning_requests(model) == 2
    assert len(bench.gate.effects) == 1, "the second call was not run"
    steps = [(event.description, event.status) for event in bench.log.all(StepEvent)]
    assert steps == [("a", "running"), ("a", "completed"), ("c", "running"), ("c", "completed")]
    ids = {event.id for event in bench.log.all(StepEvent) if event.description == "a"}
    assert len(ids) == 1


async def test_a_new_message_interrupts_a_request_to_the_model() -> None:
    def answer(request: Request) -> Turn:
        if not contains(request, "Forget it"):
            return Plan("T", "M", ["a", "b"]) if len(request["messages"]) == 2 else Hang()
        return Say("As you wish.") if wish(request) == "text" else Update([])

    with ScriptedModel(answer) as model:
        bench = Bench(model)
        bench.log.say("Go")
        journal = bench.journal()
        running = asyncio.create_task(bench.run(journal))
        await model.wait_for_requests(2)
        bench.log.say("Forget it")
        journal.look()
        await asyncio.wait_for(running, HANG_SECONDS)
    steps = [(event.description, event.status) for event in bench.log.all(StepEvent)]
    assert steps == [("a", "running"), ("a", "failed")]
    assert bench.log.last(MessageEvent).message == "As you wish."


async def test_a_new_message_before_the_first_plan_becomes_part_of_the_task() -> None:
    def answer(request: Request) -> Turn:
        return Plan("T", "Both, then.", []) if contains(request, "And that") else Hang()

    with ScriptedModel(answer) as model:
        bench = Bench(model)
        bench.log.say("This")
        journal = bench.journal()
        running = asyncio.create_task(bench.run(journal))
        await model.wait_for_requests(1)
        bench.log.say("And that")
        journal.look()
        await asyncio.wait_for(running, HANG_SECONDS)
    assert bench.log.types() == ["message", "message", "title", "message", "done"]


async def test_a_signal_for_a_message_already_read_interrupts_nothing() -> None:
    """The task that renews the lease may have read the row just before the message was consumed."""
    with ScriptedModel([Plan("T", "M", ["a"]), shell("one"), Finish(), Say("Done")]) as model:
        bench = Bench(model)
        bench.log.say("Go")
        journal = bench.journal()

        async def send_old_signals() -> None:
            while not journal.finished:
                journal.signal_late()
                await asyncio.sleep(0)

        signals = asyncio.create_task(send_old_signals())
        await asyncio.wait_for(bench.run(journal), HANG_SECONDS)
        await signals
        assert len(model.requests) == 4
    assert bench.log.types()[-1] == "done"


async def test_partial_messages_of_a_plan_have_the_stream_id_of_the_stored_message() -> None:
    words = "I will look at each of the files in turn and tell you what is in them."
    with ScriptedModel([Plan("T", words, [])], chunk_delay_seconds=0.02) as model:
        bench = Bench(model)
        bench.log.say("Go")
        journal = await bench.run()
    stored = bench.log.last(MessageEvent)
    assert journal.partials
    assert all(words.startswith(event.message) and event.partial for event in journal.partials)
    assert {event.stream_id for event in journal.partials} == {stored.stream_id}
    assert not stored.partial


MUST_PLAN = prompts.MUST_PLAN.format(name="make_plan")
USELESS: dict[str, Turn] = {
    "another function": Calls(Call("shell_execute", {})),
    "arguments that are no JSON": Calls(Call("make_plan", arguments="{steps: oops")),
    "steps that are no list": Calls(Call("make_plan", {"title": "T", "message": "M", "steps": 5})),
    "nothing": Say(""),
    "neither steps nor message": Calls(Call("make_plan", {"title": "T"})),
}


@pytest.mark.parametrize("turn", USELESS.values(), ids=USELESS.keys())
async def test_a_model_that_makes_no_plan_is_asked_again_until_the_limit_ends_the_run(turn: Turn) -> None:
    with ScriptedModel(lambda _request: turn) as model:
        bench = Bench(model, limits=AgentLimits(max_retries=2))
        bench.log.say("Go")
        await bench.run()
        assert sum(MUST_PLAN in str(request["messages"][-1]["content"]) for request in model.requests[-2:]) == 2
        assert len(model.requests) <= 3 + 2, "a server that ignores `tool_choice` is asked twice"
    assert bench.log.last(ErrorEvent).code == "llm_failed"
    assert bench.log.types() == ["message", "error"]


async def test_words_instead_of_a_new_plan_keep_the_steps_that_are_left() -> None:
    """Some models answer a message during the work with words, however often they are asked for a plan."""
    thanks = Say("You are welcome, I go on.")
    script: list[Turn] = [Plan("T", "M", ["a", "b"]), shell("ls"), thanks, thanks, Finish(), Finish(), Say("Done")]
    with ScriptedModel(script) as model:
        bench = Bench(model)
        bench.log.say("Go")
        journal = bench.journal()

        def thank(_key: str, when: str) -> None:
            if when == "before":
                bench.log.say("Thanks!")
                journal.look()

        bench.gate.on_call = thank
        await bench.run(journal)
    assert bench.log.types()[-1] == "done"
    assert [step.status for step in bench.log.last(PlanEvent).steps] == ["completed", "completed"]
    assert any(event.message == thanks.text for event in bench.log.all(MessageEvent))
