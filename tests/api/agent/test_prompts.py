"""What the model knows: the day, the machine, and the user's own words however long the conversation gets."""

from __future__ import annotations

import pytest

from moorage_api.agent.ports import AgentLimits, GateResult
from support.agent import Bench, shell, shell_output
from support.llm import Call, Finish, Plan, Request, Say, ScriptedModel, Turn, wish

HELLO = Plan("T", "Hello", [])
FIRST, SECOND = "Saturday, 2026-11-28", "Sunday, 2026-11-29"


def system_of(request: Request) -> str:
    return str(request["messages"][0]["content"])


async def test_the_day_is_told_once_and_the_system_prompt_stays_the_same() -> None:
    with ScriptedModel([HELLO, HELLO, HELLO, HELLO]) as model:
        bench = Bench(model)
        for today in (FIRST, FIRST, SECOND, SECOND):
            bench.today = today
            bench.log.say("Hi")
            await bench.run()
        requests = model.requests
    assert f"began on {FIRST}" in system_of(requests[0])
    assert len({system_of(request) for request in requests}) == 1
    counts = [
        [SECOND in str(message["content"]) for message in request["messages"]].count(True) for request in requests
    ]
    assert counts == [0, 0, 1, 1]
    assert str(requests[2]["messages"][-1]["content"]) == f"[Moorage] Today is {SECOND} (UTC).\n\nHi"


async def test_the_prompt_describes_the_machine_and_its_limits() -> None:
    with ScriptedModel([HELLO]) as model:
        bench = Bench(model)
        bench.log.say("Hi")
        await bench.run()
        text = system_of(model.requests[0])
    for words in ("pandas", "Node.js", "`pip install` works", "12000 characters", "`start_line`"):
        assert words in text


@pytest.mark.parametrize(("chars", "is_named"), [(100, False), (20_000, True)])
async def test_the_model_learns_which_file_holds_a_long_output(chars: int, is_named: bool) -> None:
    path = "/home/ubuntu/.cache/moorage/outputs/1.txt"
    with ScriptedModel([Plan("T", "M", ["a"]), shell("seq"), Finish(), Say("Done")]) as model:
        bench = Bench(model)
        result = {"output": "x" * chars, "status": "exited", "exit_code": 0, "output_file": path}
        bench.gate.answer = lambda _function, _args: GateResult("succeeded", result)
        bench.log.say("Go")
        await bench.run()
        text = str(model.requests[2]["messages"][-1]["content"])
    assert len(text) < 12_200
    assert (f"the whole result is in {path}" in text) is is_named
    assert path not in bench.attachments.sandbox, "the sandbox has kept it already"
    assert text.endswith("[exit code 0]")


class Forgetful:
    """A model whose summaries hold nothing. It asks the user a question first and then runs many commands."""

    def __init__(self) -> None:
        self.made = 0
        self.summaries = 0

    def __call__(self, request: Request) -> Turn:
        if "too long to keep" in str(request["messages"][-1]["content"]):
            self.summaries += 1
            return Say("Nothing of interest.")
        if wish(request) == "text":
            return Say("Done")
        if wish(request) == "make_plan":
            return Plan("T", "M", ["measure"])
        self.made += 1
        if self.made == 1:
            return Call("message_ask_user", {"text": "In which unit?"})
        return shell(f"measure {self.made}") if self.made < 60 else Finish()


async def test_the_users_own_words_survive_every_summary() -> None:
    forgetful = Forgetful()
    with ScriptedModel(forgetful, chunk_chars=500) as model:
        bench = Bench(model, context_tokens=12_000, limits=AgentLimits(max_iterations=999, max_retries=2))
        bench.gate.answer = lambda _function, _args: shell_output("x" * 2_000)
        bench.log.say("Measure the moon, but never touch the file `keep.txt`.")
        await bench.run()
        bench.log.say("In furlongs, please.")
        await bench.run()
        last = str(model.requests[-1]["messages"])
    assert forgetful.summaries >= 2
    assert "Measure the moon, but never touch the file `keep.txt`." in last
    assert "In furlongs, please." in last
    assert bench.log.types()[-1] == "done"


async def test_many_long_messages_of_the_user_are_clipped_so_that_requests_fit() -> None:
    with ScriptedModel(
        lambda request: HELLO if wish(request) == "make_plan" else Say("Summary"), chunk_chars=500
    ) as model:
        bench = Bench(model, context_tokens=12_000)
        for number in range(30):
            bench.log.say(f"Order {number}: " + "words " * 500)
            await bench.run()
        last = str(model.requests[-1]["messages"])
    assert bench.log.types()[-1] == "done"
    assert all(f"Order {number}: " in last for number in range(30))
