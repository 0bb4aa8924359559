"""Steps: the model learns its mistakes, finished work is not repeated, and every run ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pytest

from moorage_api.agent import prompts
from moorage_api.agent.ports import AgentLimits, Function, GateResult, ToolCall, ToolResult
from moorage_api.agent.toolsets.function_schema import function, text
from moorage_api.events.schemas import ErrorEvent, FileInfo, MessageEvent, PlanEvent, StepEvent, ToolEvent
from support.agent import Bench, Killed, shell
from support.llm import Call, Calls, Finish, Plan, Say, ScriptedModel, Status, Turn, Update, wish

PLAN = Plan("T", "M", ["a"])
END: list[Turn] = [Finish(), Say("Done")]


def last_message(model: ScriptedModel, place: int = -1) -> str:
    """The last message of the request at that place."""
    return str(model.requests[place]["messages"][-1]["content"])


WRONG: dict[str, tuple[Turn, str]] = {
    "an unknown function": (Call("rm_rf"), "There is no function 'rm_rf'. Use one of: "),
    "arguments that are no JSON": (Call("shell_execute", arguments='{"command": ls}'), "not a JSON object"),
    "arguments that are a list": (Call("shell_execute", arguments="[1]"), "not a JSON object"),
    "missing arguments": (Call("shell_execute", {"command": "ls"}), "missing: session_id, exec_dir"),
    "a wrong type": (Call("shell_wait_process", {"session_id": "a", "seconds": "soon"}), "must be of type integer"),
    "cut arguments": (Say(calls=[Call("write_file", arguments='{"filep')], finish_reason="length"), "cut off"),
    "an empty answer": (Say(""), "empty"),
    "only thoughts": (Say("<think>Hm.</think>"), "empty"),
}


@pytest.mark.parametrize(("turn", "words"), WRONG.values(), ids=WRONG.keys())
async def test_the_model_learns_its_mistake_and_the_work_continues(turn: Turn, words: str) -> None:
    def answer(request: dict[str, Any]) -> Turn:
        if len(request["messages"]) == 2:
            return PLAN
        if wish(request) == "text":
            return Say("Done")
        return Finish() if any(words in str(message["content"]) for message in request["messages"][1:]) else turn

    with ScriptedModel(answer) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
        assert len(model.requests) == 4
    assert bench.log.types()[-1] == "done"
    assert not bench.log.all(ToolEvent)
    assert not bench.gate.effects


@pytest.mark.parametrize(("turn", "words"), WRONG.values(), ids=WRONG.keys())
async def test_a_model_that_repeats_its_mistake_ends_the_run_with_an_error(turn: Turn, words: str) -> None:
    with ScriptedModel(lambda request: PLAN if len(request["messages"]) == 2 else turn) as model:
        bench = Bench(model, limits=AgentLimits(max_retries=2))
        bench.log.say("Go")
        await bench.run()
        assert len(model.requests) == 4
    assert bench.log.last(ErrorEvent).code == "llm_failed"
    assert bench.log.types()[-3:] == ["step", "plan", "error"]
    assert bench.log.last(StepEvent).status == "failed"


async def test_a_good_call_beside_a_bad_one_is_run() -> None:
    with ScriptedModel([PLAN, Calls(Call("nope"), shell("ls"), Call("nope")), *END]) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
        results = [message for message in model.requests[2]["messages"] if message["role"] == "tool"]
    assert len(bench.gate.effects) == 1
    assert [("There is no function" in str(message["content"])) for message in results[1:]] == [True, False, True]


async def test_calls_get_our_own_ids_because_models_repeat_theirs() -> None:
    with ScriptedModel([PLAN, Calls(shell("a"), shell("b")), shell("c"), *END]) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
        transcript = model.requests[-1]["messages"]
    calls = [call["id"] for message in transcript for call in message.get("tool_calls", ())]
    results = [message["tool_call_id"] for message in transcript if message["role"] == "tool"]
    assert calls == results
    assert len(set(calls)) == len(calls)


async def test_every_request_pairs_calls_with_results_and_contains_no_null() -> None:
    turns: list[Turn] = [PLAN, Calls(shell("a"), Call("nope")), Call("message_notify_user", {"text": "x"}), *END]
    with ScriptedModel(turns) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
        requests = model.requests
    for request in requests:
        waiting: list[str] = []
        for message in request["messages"]:
            assert isinstance(message["content"], str)
            assert "reasoning_content" not in message
            if message["role"] == "tool":
                assert message["tool_call_id"] == waiting.pop(0)
            else:
                assert not waiting
            waiting += [call["id"] for call in message.get("tool_calls", ())]
        assert not waiting


async def test_plain_text_ends_the_step() -> None:
    with ScriptedModel([Plan("T", "M", ["a", "b"]), Say("It is done."), Finish(), Say("Done")]) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
        assert "step 2 of 2: b" in last_message(model, 2)
    assert [step.status for step in bench.log.last(PlanEvent).steps] == ["completed", "completed"]


@pytest.mark.parametrize("success", ["false", '"False"'])
async def test_a_step_can_be_finished_by_json_in_the_text(success: str) -> None:
    result = f'{{"success": {success}, "result": "no network", "attachments": []}}'
    with ScriptedModel([PLAN, Say(result), Update([]), Say("Sorry")]) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
    assert bench.log.last(StepEvent).status == "failed"


async def test_finish_step_is_refused_when_another_call_of_the_same_answer_failed() -> None:
    turns: list[Turn] = [
        PLAN,
        Calls(Call("finish_step", {"success": True, "result": "fine"}), shell("false")),
        shell("true"),
        *END,
    ]
    with ScriptedModel(turns) as model:
        bench = Bench(model)
        bench.gate.answer = lambda _function, args: (
            GateResult("failed", {}, "internal", "it broke")
            if args["command"] == "false"
            else GateResult("succeeded", {"output": "ok", "status": "exited", "exit_code": 0})
        )
        bench.log.say("Go")
        await bench.run()
        assert last_message(model, 2) == prompts.FINISH_AFTER_FAILURE
    assert len(bench.gate.effects) == 2


async def test_the_model_and_the_user_see_why_a_call_failed() -> None:
    with ScriptedModel([PLAN, shell("ls"), *END]) as model:
        bench = Bench(model)
        bench.gate.answer = lambda _function, _args: GateResult("failed", {}, "timeout", "The sandbox is not ready")
        bench.log.say("Go")
        await bench.run()
        assert last_message(model, 2) == "Failed (timeout): The sandbox is not ready"
    assert bench.log.last(ToolEvent).content == {"result": "The sandbox is not ready"}


async def test_a_wrong_key_is_an_error_event_without_the_key() -> None:
    with ScriptedModel([PLAN], api_key="another") as model:
        bench = Bench(model, api_key="sk-wrong")
        bench.log.say("Go")
        await bench.run()
    assert bench.log.types() == ["message", "error"]
    error = bench.log.last(ErrorEvent)
    assert error.code == "llm_unauthorized"
    assert "sk-wrong" not in error.error


async def test_an_unavailable_model_ends_step_and_plan_and_the_next_message_is_answered() -> None:
    def answer(request: dict[str, Any]) -> Turn:
        if len(request["messages"]) == 2:
            return PLAN
        if "Try again" in str(request["messages"][-1]["content"]):
            return Plan("T", "It works again.", [])
        return Status(503)

    with ScriptedModel(answer) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
        assert bench.log.types()[-4:] == ["step", "step", "plan", "error"]
        assert bench.log.last(ErrorEvent).code == "llm_unavailable"
        bench.log.say("Try again")
        await bench.run()
    assert bench.log.last(MessageEvent).message == "It works again."


async def test_the_model_gets_a_notice_of_the_sandbox_once() -> None:
    with ScriptedModel([PLAN, shell("a"), shell("b"), *END]) as model:
        bench = Bench(model)
        bench.log.say("Go")

        def lose(key: str, when: str) -> None:
            if when == "after" and len(bench.gate.ledger) == 1:
                bench.log.notice = "The sandbox was replaced; running programs are gone."

        bench.gate.on_call = lose
        await bench.run()
        texts = [str(message["content"]) for message in model.requests[-1]["messages"]]
    assert sum("The sandbox was replaced" in words for words in texts) == 1
    assert bench.log.notice == ""


async def test_the_users_files_are_copied_into_the_sandbox_and_the_model_gets_their_paths() -> None:
    with ScriptedModel([PLAN, *END]) as model:
        bench = Bench(model)
        bench.log.say("Look at this", FileInfo(id="1", filename="data.csv", mime_type="text/csv", size=12))
        await bench.run()
        assert "/home/ubuntu/workspace/upload/data.csv (text/csv, 12 bytes)" in last_message(model, 0)
    assert "/home/ubuntu/workspace/upload/data.csv" in bench.attachments.sandbox


async def test_a_long_argument_is_clipped_in_events_and_complete_in_the_call() -> None:
    content = "x" * 100_000
    write = Call("write_file", {"filepath": "/home/ubuntu/a.txt", "content": content})
    with ScriptedModel([PLAN, write, *END], chunk_chars=10_000) as model:
        bench = Bench(model)
        bench.gate.answer = lambda _function, args: GateResult("succeeded", {"size": len(args["content"])})
        bench.log.say("Go")
        await bench.run()
        assert last_message(model, 2).endswith("(100000 bytes)")
    assert all(len(event.model_dump_json()) < 64 * 1024 for event in bench.log.all(ToolEvent))


async def test_invalid_unicode_in_an_output_is_replaced_in_events_and_messages() -> None:
    odd = "caf\udce9 \ud83d"
    with ScriptedModel([PLAN, shell("ls"), *END]) as model:
        bench = Bench(model)
        bench.gate.answer = lambda _function, _args: GateResult(
            "succeeded",
            {"output": odd, "status": "exited", "exit_code": 0, "console_records": [{"output": odd, "command": odd}]},
        )
        bench.log.say("Go")
        await bench.run()
        assert last_message(model, 2).startswith("caf\N{REPLACEMENT CHARACTER} ")
    assert all(event.model_dump_json().encode() for event in bench.log.events)
    assert bench.log.types()[-1] == "done"


class Outside:
    """Tools of a server that does not store results by key."""

    name: Literal["mcp"] = "mcp"

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        self.dies = True

    def functions(self) -> Sequence[Function]:
        return [
            function("mcp_look", "", {"what": text("")}, read_only=True),
            function("mcp_pay", "", {"what": text("")}),
        ]

    async def call(self, call: ToolCall) -> ToolResult:
        self.calls.append(call)
        if self.dies:
            self.dies = False
            raise Killed
        return ToolResult("succeeded", "seen", {"result": "seen"})


@pytest.mark.parametrize(("name", "times", "words"), [("mcp_look", 2, "seen"), ("mcp_pay", 1, prompts.UNKNOWN_OUTCOME)])
async def test_a_lost_call_is_repeated_only_if_it_is_read_only(name: str, times: int, words: str) -> None:
    outside = Outside()
    with ScriptedModel([PLAN, Call(name, {"what": "x"}), *END]) as model:
        bench = Bench(model, more_toolsets=[outside])
        bench.log.say("Go")
        with pytest.raises(Killed):
            await bench.run()
        await bench.run()
        assert last_message(model, 2) == words
    assert len(outside.calls) == times
    assert len({call.key for call in outside.calls}) == 1
    assert [event.status for event in bench.log.all(ToolEvent)] == ["calling", "called"]


async def test_a_lost_call_of_a_removed_tool_has_an_unknown_outcome() -> None:
    outside = Outside()
    with ScriptedModel([PLAN, Call("mcp_look", {"what": "x"}), *END]) as model:
        bench = Bench(model, more_toolsets=[outside])
        bench.log.say("Go")
        with pytest.raises(Killed):
            await bench.run()
        bench.more_toolsets = ()
        await bench.run()
        assert last_message(model, 2) == prompts.UNKNOWN_OUTCOME
    assert [event.status for event in bench.log.all(ToolEvent)] == ["calling", "called"]
    assert bench.log.types()[-1] == "done"


async def test_the_third_equal_call_with_an_equal_result_adds_a_warning() -> None:
    calls: list[Turn] = [shell("date"), shell("date"), shell("date"), shell("ls"), shell("date"), *END]
    with ScriptedModel([PLAN, *calls]) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
        warned = ["times in a row" in last_message(model, place) for place in range(2, 7)]
    assert warned == [False, False, True, False, False]


async def test_waiting_repeatedly_for_a_silent_command_adds_no_warning() -> None:
    wait = Call("shell_wait_process", {"session_id": "main", "seconds": 600})
    with ScriptedModel([PLAN, *([wait] * 5), *END]) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
        warned = [place for place in range(2, 7) if "times in a row" in last_message(model, place)]
    assert warned == []
    assert len(bench.log.all(ToolEvent)) == 10
    assert bench.log.types()[-1] == "done"


async def test_a_message_of_the_user_resets_the_count_of_repeated_calls() -> None:
    first: list[Turn] = [PLAN, shell("date"), shell("date"), Finish(), Say("Done")]
    with ScriptedModel([*first, PLAN, shell("date"), shell("date"), shell("date"), *END]) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
        bench.log.say("Once more")
        await bench.run()
        warned = ["times in a row" in last_message(model, place) for place in range(6, 10)]
    assert warned == [False, False, False, True]


async def test_a_result_that_is_quoted_does_not_end_a_step_as_failed() -> None:
    said = 'The page shows this:\n```json\n{"success": false, "result": "no"}\n```\nIt is an example.'
    with ScriptedModel([Plan("T", "M", ["a"]), Say(said), Say("Done")]) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
    assert [event.status for event in bench.log.all(StepEvent)] == ["running", "completed"]
