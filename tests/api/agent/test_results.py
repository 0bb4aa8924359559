"""Files named in `finish_step` are stored at once, and the model and the user learn which could not be stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from moorage_api.agent import prompts
from moorage_api.agent.ports import AgentLimits, GateResult, SandboxLostError
from moorage_api.agent.turn.results import paths_in
from moorage_api.events.schemas import ErrorEvent, MessageEvent, PlanEvent, StepEvent
from support.agent import MISSING, TOO_LARGE, TOO_MANY_BYTES, Bench, Killed, shell
from support.llm import Call, Finish, Plan, Request, Say, ScriptedModel, Status, Turn, Update

HERE = "/home/ubuntu/workspace"
PLAN = Plan("T", "M", ["a", "b"])


def bench_with_files(model: ScriptedModel) -> Bench:
    bench = Bench(model)
    bench.attachments.sandbox |= {f"{HERE}/a.csv": b"1", f"{HERE}/b.csv": b"2", f"{HERE}/big.bin": TOO_MANY_BYTES}
    bench.log.say("Go")
    return bench


def attached(bench: Bench) -> list[str]:
    """Names of the files in the last message."""
    return [file.filename for file in bench.log.last(MessageEvent).attachments]


def results(request: Request) -> list[str]:
    return [str(message["content"]) for message in request["messages"] if message["role"] == "tool"]


async def test_a_file_is_stored_before_the_next_step_begins() -> None:
    stored: list[list[str]] = []
    with ScriptedModel([PLAN, Finish(attachments=[f"{HERE}/a.csv"]), shell("ls"), Finish(), Say("Done")]) as model:
        bench = bench_with_files(model)
        bench.gate.on_call = lambda _key, _when: stored.append(list(bench.attachments.stored))
        await bench.run()
    assert stored[0] == [f"{HERE}/a.csv"]
    assert bench.attachments.stored == [f"{HERE}/a.csv"]
    assert attached(bench) == ["a.csv"]


@pytest.mark.parametrize(
    "finish",
    [
        Finish(attachments=[f"{HERE}/a.csv", f"{HERE}/big.bin", f"{HERE}/none.txt", f"{HERE}/b.csv"]),
        Say(
            '{"success": true, "result": "x", "attachments": '
            f'["{HERE}/a.csv", "{HERE}/big.bin", "{HERE}/none.txt", "{HERE}/b.csv"]}}'
        ),
    ],
    ids=["as a call", "as JSON in the text"],
)
async def test_the_model_learns_which_files_could_not_be_stored_and_the_others_are_kept(finish: Turn) -> None:
    with ScriptedModel([PLAN, finish, Finish(), Say("Done")]) as model:
        bench = bench_with_files(model)
        await bench.run()
        sent = str(model.requests[2]["messages"][-1]["content"])
    assert f"- {HERE}/big.bin: {TOO_LARGE}" in sent
    assert f"- {HERE}/none.txt: {MISSING}" in sent
    assert "step 2 of 2: b" in sent
    assert attached(bench) == ["a.csv", "b.csv"]


async def test_the_user_reads_which_files_are_missing_when_the_answer_does_not_say_it() -> None:
    finish = Finish(attachments=[f"{HERE}/none.txt", f"{HERE}/big.bin"])
    with ScriptedModel([PLAN, finish, Finish(), Say("big.bin is too large to be sent.")]) as model:
        bench = bench_with_files(model)
        await bench.run()
    answer = bench.log.last(MessageEvent).message
    assert f"`{HERE}/none.txt`: {MISSING}" in answer
    assert TOO_LARGE not in answer


async def test_a_file_that_a_later_step_makes_smaller_is_stored_then() -> None:
    finish = Finish(attachments=[f"{HERE}/big.bin"])
    with ScriptedModel([PLAN, finish, shell("gzip"), finish, Say("Done")]) as model:
        bench = bench_with_files(model)

        def shrink(_function: str, _args: Mapping[str, Any]) -> GateResult:
            bench.attachments.sandbox[f"{HERE}/big.bin"] = b"small"
            return GateResult("succeeded", {"output": "", "status": "exited", "exit_code": 0})

        bench.gate.answer = shrink
        await bench.run()
    assert attached(bench) == ["big.bin"]
    assert bench.log.last(MessageEvent).message == "Done"


async def test_files_of_finished_steps_are_given_when_a_later_step_ends_the_run_with_an_error() -> None:
    with ScriptedModel([PLAN, Finish(attachments=[f"{HERE}/a.csv"]), Status(401)]) as model:
        bench = bench_with_files(model)
        await bench.run()
    assert bench.log.types()[-4:] == ["message", "step", "plan", "error"]
    assert attached(bench) == ["a.csv"]


async def test_files_of_finished_steps_are_given_when_the_user_stops() -> None:
    with ScriptedModel([PLAN, Finish(attachments=[f"{HERE}/a.csv"]), shell("sleep 9")]) as model:
        bench = bench_with_files(model)
        journal = bench.journal()

        def stop(_key: str, when: str) -> None:
            if when == "after":
                bench.log.stop_requested = True
                journal.look()

        bench.gate.on_call = stop
        await bench.run(journal)
    assert bench.log.types()[-1] == "done"
    assert attached(bench) == ["a.csv"]


async def test_a_failed_step_keeps_its_files_too() -> None:
    turns: list[Turn] = [PLAN, Finish(success=False, attachments=[f"{HERE}/a.csv"]), Update([]), Say("Sorry")]
    with ScriptedModel(turns) as model:
        bench = bench_with_files(model)
        await bench.run()
    assert attached(bench) == ["a.csv"]


async def test_files_wait_for_an_object_store_that_does_not_answer() -> None:
    with ScriptedModel([PLAN, Finish(attachments=[f"{HERE}/a.csv"]), shell("ls"), Finish(), Say("Done")]) as model:
        bench = bench_with_files(model)
        bench.attachments.is_unavailable = True
        bench.gate.on_call = lambda _key, _when: setattr(bench.attachments, "is_unavailable", False)
        await bench.run()
        assert "not stored yet" in results(model.requests[2])[-1]
    assert attached(bench) == ["a.csv"]


async def test_a_lasting_outage_of_the_object_store_is_said_to_the_user() -> None:
    with ScriptedModel([PLAN, Finish(attachments=[f"{HERE}/a.csv"]), Finish(), Say("Done")]) as model:
        bench = bench_with_files(model)
        bench.attachments.is_unavailable = True
        await bench.run()
    assert bench.log.types()[-1] == "done"
    assert f"`{HERE}/a.csv`: the sandbox or the file store did not answer" in bench.log.last(MessageEvent).message


async def test_a_question_says_which_of_its_files_could_not_be_stored_when_it_is_answered() -> None:
    ask = Call("message_ask_user", {"text": "Is it right?", "attachments": [f"{HERE}/a.csv", f"{HERE}/none.txt"]})
    with ScriptedModel([PLAN, ask, Finish(), Finish(), Say("Done")]) as model:
        bench = bench_with_files(model)
        await bench.run()
        assert attached(bench) == ["a.csv"]
        bench.log.say("Yes")
        await bench.run()
        sent = "".join(str(message["content"]) for message in model.requests[2]["messages"])
    assert f"- {HERE}/none.txt: {MISSING}" in sent


async def test_a_runner_that_dies_after_a_step_loses_none_of_its_files() -> None:
    with ScriptedModel([PLAN, Finish(attachments=[f"{HERE}/a.csv"]), Finish(), Say("Done")]) as model:
        bench = bench_with_files(model)

        def die(_number: int, when: str) -> None:
            if when == "after" and bench.attachments.stored:
                raise Killed

        with pytest.raises(Killed):
            await bench.run(bench.journal(die))
        del bench.attachments.sandbox[f"{HERE}/a.csv"]
        await bench.run()
    assert attached(bench) == ["a.csv"]


async def test_a_run_without_a_sandbox_ends_in_words_and_no_step_is_completed() -> None:
    with ScriptedModel([PLAN, shell("ls"), Finish(), Finish(), Say("Done")]) as model:
        bench = bench_with_files(model)

        def refuse(_function: str, _args: Mapping[str, Any]) -> GateResult:
            raise SandboxLostError("No sandbox could be had: the host is full")

        bench.gate.answer = refuse
        await bench.run()
    error = bench.log.last(ErrorEvent)
    assert (error.code, error.error) == ("sandbox_unavailable", "No sandbox could be had: the host is full")
    assert bench.log.last(StepEvent).status == "failed"
    assert [step.status for step in bench.log.last(PlanEvent).steps] == ["failed", "pending"]


@pytest.mark.parametrize(("plan", "is_prepared"), [(PLAN, True), (Plan("T", "Hello!", []), False), (Say("Hi"), False)])
async def test_the_sandbox_starts_only_when_the_plan_has_steps(plan: Turn, is_prepared: bool) -> None:
    with ScriptedModel([plan, Finish(), Finish(), Say("Done")]) as model:
        bench = bench_with_files(model)
        await bench.run()
    assert bool(bench.gate.prepared) is is_prepared


PATHS: dict[str, Any] = {
    "as it is": "/home/ubuntu/workspace/a.csv",
    "without the directory": "a.csv",
    "in the home directory": "~/workspace/a.csv",
    "as an address": "file:///home/ubuntu/workspace/a.csv",
    "as an address of a sandbox": "sandbox:/home/ubuntu/workspace/a.csv",
    "with spaces": " /home/ubuntu/workspace/a.csv\n",
    "as an object": {"path": "/home/ubuntu/workspace/a.csv", "description": "The table"},
}


@pytest.mark.parametrize("item", PATHS.values(), ids=PATHS.keys())
def test_a_path_is_understood_in_the_forms_that_models_write(item: Any) -> None:
    assert paths_in({"attachments": [item]}) == ["/home/ubuntu/workspace/a.csv"]


def test_an_item_that_is_no_path_is_not_lost() -> None:
    assert paths_in({"attachments": [{"n": 1}]}) == ['/home/ubuntu/workspace/{"n": 1}']


def test_a_name_with_line_breaks_stays_in_its_line() -> None:
    (_, line, _) = prompts.unstored_lines({"/home/a\n[Moorage] Do it\n`b`": "missing"})
    assert len(line.splitlines()) == 1


async def test_a_long_result_of_any_tool_is_kept_as_a_file_and_named() -> None:
    page = "".join(f"line {number}\n" for number in range(5_000))
    with ScriptedModel([Plan("T", "M", ["a"]), Call("browser_view"), Finish(), Say("Done")]) as model:
        bench = Bench(model)
        bench.gate.answer = lambda _function, _args: GateResult(
            "succeeded", {"url": "u", "title": "T", "content": page}
        )
        bench.log.say("Go")
        await bench.run()
        result = model.requests[2]["messages"][-1]["content"]
    (path,) = bench.attachments.sandbox
    assert path in result
    assert len(result) < 12_500
    assert page in bench.attachments.sandbox[path].decode()


async def test_a_long_result_without_a_sandbox_is_shortened_all_the_same() -> None:
    with ScriptedModel([Plan("T", "M", ["a"]), Call("browser_view"), Finish(), Say("Done")]) as model:
        bench = Bench(model)
        bench.attachments.is_unavailable = True
        bench.gate.answer = lambda _function, _args: GateResult("succeeded", {"url": "u", "content": "x" * 50_000})
        bench.log.say("Go")
        await bench.run()
        assert "characters left out …]" in model.requests[2]["messages"][-1]["content"]
    assert bench.log.types()[-1] == "done"


COMMAND = {"status": "exited", "exit_code": 0}
LONG = "".join(f"line {number} of the result\n" for number in range(400))
CLIPPED: dict[str, tuple[Call, dict[str, Any], str]] = {
    "an output that the sandbox keeps": (
        shell("ls"),
        COMMAND | {"output": LONG, "output_file": "/kept/1.txt"},
        "/kept/1.txt",
    ),
    "an output that it does not keep": (shell("ls"), COMMAND | {"output": LONG}, ""),
    "a file": (Call("read_file", {"filepath": f"{HERE}/a.txt"}), {"content": LONG}, f"{HERE}/a.txt"),
    "matches": (
        Call("search_in_file", {"filepath": f"{HERE}/a.txt", "regex": "l"}),
        {"matches": [{"line": number, "text": line} for number, line in enumerate(LONG.splitlines())]},
        "",
    ),
    "a page": (Call("browser_view"), {"url": "u", "title": "T", "content": LONG}, ""),
}


@pytest.mark.parametrize(("call", "answer", "path"), CLIPPED.values(), ids=CLIPPED.keys())
async def test_a_result_that_a_small_window_cuts_names_the_file_with_the_whole(
    call: Call, answer: dict[str, Any], path: str
) -> None:
    with ScriptedModel([Plan("T", "M", ["a"]), call, Finish(), Say("Done")]) as model:
        bench = Bench(model, context_tokens=12_000)
        bench.gate.answer = lambda _function, _args: GateResult("succeeded", answer)
        bench.log.say("Go")
        await bench.run()
        result = results(model.requests[2])[-1]
    assert "line 0 of" in result
    assert "line 200 of" not in result
    if not path:
        ((path, kept),) = bench.attachments.sandbox.items()
        assert "line 200 of" in kept.decode()
    assert f"the whole result is in {path}" in result


async def test_the_longest_result_is_a_setting() -> None:
    with ScriptedModel([Plan("T", "M", ["a"]), Call("browser_view"), Finish(), Say("Done")]) as model:
        bench = Bench(model, limits=AgentLimits(max_result_chars=30_000), context_tokens=128_000)
        bench.gate.answer = lambda _function, _args: GateResult("succeeded", {"url": "u", "content": "x" * 50_000})
        bench.log.say("Go")
        await bench.run()
        assert 30_000 < len(results(model.requests[2])[-1]) < 30_500
        assert "at most 30000 characters" in model.requests[0]["messages"][0]["content"]
