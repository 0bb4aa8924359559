"""A call that needs the user's permission: the user is asked before it starts, even if runners are killed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest

from moorage_api.agent.ports import Function, ToolCall, ToolResult
from moorage_api.agent.toolsets.function_schema import function, text
from moorage_api.agent.turn.executor import is_yes
from moorage_api.events.schemas import MessageEvent, ToolEvent
from support.agent import Bench, Killed, shell
from support.llm import Call, Calls, Finish, Plan, Say, ScriptedModel

PLAN = Plan("T", "M", ["a"])
ACT = Call("skill_risky_act", {"what": "delete"})


class Risky:
    """Records the calls that really ran."""

    def __init__(self) -> None:
        self.did: list[str] = []

    @property
    def name(self) -> Literal["skill"]:
        return "skill"

    def functions(self) -> Sequence[Function]:
        plain = function("skill_risky_act", "Acts.", {"what": text("what")})
        return [Function(plain.name, plain.description, plain.parameters, confirm="It is risky. May it?")]

    async def call(self, call: ToolCall) -> ToolResult:
        self.did.append(call.args["what"])
        return ToolResult("succeeded", "acted", {"skill_result": "acted"})


async def test_a_yes_runs_the_call_and_the_calls_after_it() -> None:
    risky = Risky()
    with ScriptedModel([PLAN, Calls(shell("one"), ACT, shell("two")), Finish(), Say("Done")]) as model:
        bench = Bench(model, more_toolsets=[risky])
        bench.log.say("Go")
        await bench.run()
        assert bench.log.types()[-2:] == ["message", "wait"]
        assert "It is risky. May it?" in bench.log.last(MessageEvent).message
        assert '"what": "delete"' in bench.log.last(MessageEvent).message
        assert (risky.did, len(bench.gate.effects)) == ([], 1)
        bench.log.say("Yes")
        await bench.run()
    assert (risky.did, len(bench.gate.effects)) == (["delete"], 2)
    assert bench.log.types()[-3:] == ["message", "plan", "done"]
    events = [(event.function, event.status) for event in bench.log.all(ToolEvent)]
    assert events[2:4] == [("skill_risky_act", "calling"), ("skill_risky_act", "called")]
    roles = [message["role"] for message in model.requests[-1]["messages"]]
    assert roles.count("user") == 1, "the yes is not a user message: tool results must follow their calls"


async def test_any_other_answer_is_a_no_and_the_model_gets_it() -> None:
    risky = Risky()
    with ScriptedModel([PLAN, Calls(ACT, shell("after")), Finish(), Say("Not done")]) as model:
        bench = Bench(model, more_toolsets=[risky])
        bench.log.say("Go")
        await bench.run()
        bench.log.say("yes, but only the old ones")
        await bench.run()
        results = [message["content"] for message in model.requests[2]["messages"] if message["role"] == "tool"]
    assert risky.did == []
    assert any("did not say yes" in result and "only the old ones" in result for result in results)
    assert len(bench.gate.effects) == 1


async def test_arguments_cannot_end_the_code_block_of_the_question() -> None:
    act = Call("skill_risky_act", {"what": "```\nAll is well.\n```json"})
    with ScriptedModel([PLAN, act]) as model:
        bench = Bench(model, more_toolsets=[Risky()])
        bench.log.say("Go")
        await bench.run()
    asked = bench.log.last(MessageEvent).message
    assert asked.count("```") == 2
    assert "\nAll is well" not in asked


async def test_the_user_is_asked_for_each_call() -> None:
    risky = Risky()
    with ScriptedModel([PLAN, Calls(ACT, ACT), Finish(), Say("Done")]) as model:
        bench = Bench(model, more_toolsets=[risky])
        for answer, did in (("Go", 0), ("yes", 1), ("ok", 2)):
            bench.log.say(answer)
            await bench.run()
            assert len(risky.did) == did
    assert bench.log.types()[-1] == "done"


async def test_a_stop_right_after_the_yes_runs_nothing() -> None:
    risky = Risky()
    with ScriptedModel([PLAN, ACT, Plan("T", "Hello", [])]) as model:
        bench = Bench(model, more_toolsets=[risky])
        bench.log.say("Go")
        await bench.run()
        bench.log.say("yes")
        bench.log.stop_requested = True
        await bench.run()
        assert (risky.did, bench.log.types()[-1]) == ([], "done")


async def test_a_stop_instead_of_an_answer_closes_the_question() -> None:
    risky = Risky()
    with ScriptedModel([PLAN, ACT, Plan("T", "Hello", [])]) as model:
        bench = Bench(model, more_toolsets=[risky])
        bench.log.say("Go")
        await bench.run()
        bench.log.stop_requested = True
        await bench.run()
        assert bench.log.types()[-3:] == ["step", "plan", "done"]
        bench.log.stop_requested = False
        bench.log.say("yes")
        await bench.run()
    assert (risky.did, bench.log.types()[-1]) == ([], "done")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("record", range(4))
async def test_a_runner_killed_at_any_record_changes_nothing(record: int, when: str) -> None:
    risky = Risky()

    def kill(number: int, moment: str) -> None:
        if (number, moment) == (record, when):
            raise Killed

    with ScriptedModel([PLAN, ACT, Finish(), Say("Done")]) as model:
        bench = Bench(model, more_toolsets=[risky])
        for answer in ("Go", "yes"):
            bench.log.say(answer)
            try:
                await bench.run(bench.journal(kill))
            except Killed:
                await bench.run()
    asked = [event for event in bench.log.all(MessageEvent) if "It is risky" in event.message]
    assert len(asked) == 1
    assert len(risky.did) <= 1
    assert bench.log.types()[-1] == "done"


@pytest.mark.parametrize("answer", ["yes", "Yes.", " YES! ", "ok", "好的", "确认。", "Ja"])
def test_a_plain_yes_counts_as_permission(answer: str) -> None:
    assert is_yes(answer)


@pytest.mark.parametrize("answer", ["", "no", "yes?", "yes and no", "not yes", "y e s", "maybe", "yes\n\nno"])
def test_any_other_answer_is_no_permission(answer: str) -> None:
    assert not is_yes(answer)
