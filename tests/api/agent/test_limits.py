"""Limits of a turn: the model gives a last answer, loops are noticed, and every run ends in words."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import pytest

from moorage_api.agent.ports import AgentLimits, GateResult
from moorage_api.agent.turn.progress import count_repeats
from moorage_api.events.schemas import ErrorEvent, MessageEvent, PlanEvent, StepEvent
from support.agent import Bench, Killed, echo, shell
from support.llm import Call, Calls, Finish, Hang, Plan, Request, Say, ScriptedModel, Status, Turn, Update, wish

LIMITS = AgentLimits(max_retries=2, max_iterations=4, max_model_calls=12, max_repeats=5, max_failed_steps=3)
SUM = "This is finished: nothing."


def is_last_answer(request: Request) -> bool:
    return "Write the last answer" in str(request["messages"][-1]["content"])


class Endless:
    """A model that repeats its turns until it is asked for the last answer."""

    def __init__(self, turns: Sequence[Turn], *, steps: Sequence[str] = ("a",), last: Turn = Say(SUM)) -> None:
        self._turns = cycle(turns)
        self._steps = steps
        self._last = last
        self.number = 0

    def __call__(self, request: Request) -> Turn:
        if is_last_answer(request):
            assert wish(request) == "text"
            return self._last
        match wish(request):
            case "make_plan":
                return Plan("T", "M", list(self._steps))
            case "update_plan":
                return Update(["a"])
        self.number += 1
        turn = next(self._turns)
        return shell(f"echo {self.number}") if turn == Say("new") else turn


async def run(model: ScriptedModel, *, limits: AgentLimits = LIMITS) -> Bench:
    bench = Bench(model, limits=limits)
    bench.gate.answer = lambda function, args: (
        GateResult("failed", {}, "internal", "it broke") if args["command"] == "false" else echo(function, args)
    )
    bench.log.say("Go")
    await bench.run()
    return bench


def assert_ended(bench: Bench, code: str) -> None:
    """The turn has a last answer, then the plan with its failed step, then the error."""
    assert bench.log.types()[-3:] == ["message", "plan", "error"]
    assert bench.log.last(ErrorEvent).code == code
    assert bench.log.last(MessageEvent).message == SUM
    assert "running" not in [step.status for step in bench.log.last(PlanEvent).steps]
    assert bench.log.last(StepEvent).status == "failed"


async def test_a_step_at_its_limit_is_ended_by_a_last_answer_with_the_files_of_finished_steps() -> None:
    path = "/home/ubuntu/workspace/a.csv"
    endless = Endless([Finish(attachments=[path]), *[Say("new")] * 100], steps=["a", "b", "c"])
    with ScriptedModel(endless) as model:
        bench = Bench(model, limits=LIMITS)
        bench.attachments.sandbox[path] = b"1"
        bench.log.say("Go")
        await bench.run()
        assert len(model.requests) == 1 + 1 + 4 + 1
    assert_ended(bench, "max_iterations")
    assert "4 model turns" in bench.log.last(ErrorEvent).error
    assert [file.filename for file in bench.log.last(MessageEvent).attachments] == ["a.csv"]
    assert [step.status for step in bench.log.last(PlanEvent).steps] == ["completed", "failed", "pending"]


async def test_each_step_has_the_whole_limit() -> None:
    step: list[Turn] = [shell("a"), shell("b"), shell("c"), Finish()]
    with ScriptedModel([Plan("T", "M", ["a", "b"]), *step, *step, Say("Done")]) as model:
        bench = await run(model)
    assert bench.log.types()[-1] == "done"


async def test_a_whole_message_has_a_limit_too() -> None:
    endless = Endless([Say("new"), Say("new"), Finish()], steps=[str(number) for number in range(9)])
    with ScriptedModel(endless) as model:
        bench = await run(model)
        assert len(model.requests) == 12 + 1
    assert bench.log.types()[-3:] == ["message", "plan", "error"]
    assert "12 model turns for one message" in bench.log.last(ErrorEvent).error


async def test_the_next_message_resets_the_limits() -> None:
    with ScriptedModel(Endless([Say("new")])) as model:
        bench = await run(model)
        asked = len(model.requests)
        bench.log.say("Go on")
        await bench.run()
        assert len(model.requests) > asked + 2
    assert bench.log.last(ErrorEvent).code == "max_iterations"


@pytest.mark.parametrize("last", [shell("ls"), Say(""), Status(401)], ids=["a call", "nothing", "an error"])
async def test_a_run_without_a_last_answer_still_ends_with_the_reason(last: Turn) -> None:
    with ScriptedModel(Endless([Say("new")], last=last)) as model:
        bench = await run(model)
        assert len(model.requests) <= 1 + 4 + 2
    assert bench.log.types()[-1] == "error"
    assert bench.log.last(ErrorEvent).code == "max_iterations"
    assert "4 model turns" in bench.log.last(ErrorEvent).error


async def test_a_runner_that_dies_before_the_last_answer_is_replaced_by_one_that_asks_for_it() -> None:
    with ScriptedModel(Endless([Say("new")])) as model:
        bench = Bench(model, limits=LIMITS)
        bench.log.say("Go")

        def die(_number: int, when: str) -> None:
            if when == "after" and bench.log.state.get("ending"):
                raise Killed

        with pytest.raises(Killed):
            await bench.run(bench.journal(die))
        await bench.run()
    assert_ended(bench, "max_iterations")


async def test_a_message_that_comes_instead_of_the_last_answer_continues_the_work() -> None:
    def answer(request: Request) -> Turn:
        if "Go on" in str(request["messages"]):
            return Say("Done") if wish(request) == "text" else Update([])
        return Hang() if is_last_answer(request) else endless(request)

    endless = Endless([Say("new")])
    with ScriptedModel(answer) as model:
        bench = Bench(model, limits=LIMITS)
        bench.log.say("Go")
        journal = bench.journal()
        running = asyncio.create_task(bench.run(journal))
        await model.wait_for_requests(1 + 4 + 1)
        bench.log.say("Go on")
        journal.look()
        await running
    assert bench.log.types()[-1] == "done"


LOOPS: dict[str, list[Turn]] = {
    "the same call": [shell("ls")],
    "two calls in turn": [shell("a"), shell("b")],
    "three calls in turn": [shell("a"), shell("b"), shell("c")],
    "two calls of one answer": [Calls(shell("a"), shell("b"))],
    "the same message to the user": [Call("message_notify_user", {"text": "Soon"})],
    "a call that fails and a finish that is refused": [
        Calls(Call("finish_step", {"success": True, "result": "x"}), shell("false"))
    ],
}
PATIENT = AgentLimits(max_retries=2, max_iterations=999, max_repeats=5, max_failed_steps=3)


@pytest.mark.parametrize("turns", LOOPS.values(), ids=LOOPS.keys())
async def test_a_loop_of_calls_is_ended_in_words(turns: list[Turn]) -> None:
    with ScriptedModel(Endless(turns)) as model:
        bench = await run(model, limits=PATIENT)
        assert len(model.requests) <= 1 + 5 * len(turns) + 1
        assert "times in a row and got the same result" in str(model.requests[-1]["messages"])
    assert_ended(bench, "no_progress")
    assert "5 times in a row" in bench.log.last(ErrorEvent).error


async def test_steps_that_fail_again_and_again_end_the_run_in_words() -> None:
    with ScriptedModel(Endless([Finish(success=False)])) as model:
        bench = await run(model, limits=PATIENT)
        assert len(model.requests) == 1 + 3 + 2 + 1
    assert_ended(bench, "no_progress")
    assert "3 steps in a row failed" in bench.log.last(ErrorEvent).error


async def test_steps_that_fail_between_others_that_are_done_end_the_run_too() -> None:
    def answer(request: Request) -> Turn:
        if wish(request) == "update_plan":
            return Update(["a", "b"])
        return endless(request)

    endless = Endless([Finish(), Finish(success=False)], steps=["a", "b"])
    with ScriptedModel(answer) as model:
        bench = await run(model, limits=PATIENT)
        assert len(model.requests) < 40
    assert_ended(bench, "no_progress")


async def test_a_failed_step_between_good_ones_does_not_end_the_run() -> None:
    fail = [Finish(success=False), Update(["again"])]
    turns: list[Turn] = [Plan("T", "M", ["a"]), *fail, *fail, Finish(), Say("Done")]
    with ScriptedModel(turns) as model:
        bench = await run(model, limits=PATIENT)
    assert bench.log.types()[-1] == "done"


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ("", (1, 1)),
        ("a", (1, 1)),
        ("aaa", (3, 1)),
        ("baaa", (3, 1)),
        ("abab", (2, 2)),
        ("xababab", (3, 2)),
        ("abcabcabc", (3, 3)),
        ("aaaaaa", (6, 1)),
        ("abcd", (1, 1)),
        ("ababc", (1, 1)),
    ],
)
def test_repetitions_of_up_to_four_calls_are_counted(outcomes: str, expected: Any) -> None:
    assert count_repeats(list(outcomes)) == expected


@pytest.mark.parametrize("most", [1, 3])
async def test_the_model_learns_which_calls_of_an_answer_were_too_many(most: int) -> None:
    """The step goes on, although the answer also has `finish_step`."""
    finish = Call("finish_step", {"success": True, "result": "done", "attachments": []})
    calls = [shell(f"echo {number}") for number in range(5)]
    turns: list[Turn] = [Plan("T", "M", ["a"]), Calls(finish, *calls), Finish(), Say("Done")]
    with ScriptedModel(turns) as model:
        bench = await run(model, limits=AgentLimits(max_retries=2, max_calls=most))
        results = [str(message["content"]) for message in model.requests[2]["messages"] if message["role"] == "tool"]
    assert len(bench.gate.effects) == (most - 1 or 0)
    assert len(results) - 1 == (most - 1 or 1)
    left = 6 - (most - 1 or 1)
    assert f"{left} calls of your last message were left out" in results[-1]
    assert bench.log.types()[-1] == "done"


async def test_steps_beyond_the_limit_become_part_of_the_last_one() -> None:
    steps = ["one", "two", "three", "four"]
    with ScriptedModel([Plan("T", "M", steps), Finish(), Finish(), Say("Done")]) as model:
        bench = await run(model, limits=AgentLimits(max_retries=2, max_steps=2))
    assert [step.description for step in bench.log.last(PlanEvent).steps] == ["one", "two; then: three; then: four"]
