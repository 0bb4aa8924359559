"""A session whose history a server refuses goes on in another form, whatever it is that the server refuses."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from moorage_api.events.schemas import ErrorEvent, MessageEvent
from support.agent import Bench, shell, shell_output
from support.llm import Finish, Plan, Request, Say, ScriptedModel, Status, Turn

POISON = "forbidden words"
REFUSED = Status(400, {"error": {"message": "The request was rejected by our content policy"}})


class Touchy:
    """Refuses every request that `is_bad`, and answers in a few turns without counting messages."""

    def __init__(self, is_bad: Callable[[Request], bool]) -> None:
        self.is_bad = is_bad
        self.commands = 0
        self.refusals = 0
        self.broken: Turn = REFUSED

    def __call__(self, request: Request) -> Turn:
        if self.is_bad(request):
            self.refusals += 1
            return self.broken
        names = [tool["function"]["name"] for tool in request.get("tools", ())]
        words = str(request["messages"][-1]["content"])
        if "small talk" in words:
            return Plan("T", "Fine.", [])
        if "make_plan" in names and "Plan" not in words and not self.commands:
            self.commands += 1
            return Plan("T", "M", ["a"])
        if self.commands == 1:
            self.commands += 1
            return shell("cat page")
        return (
            Finish()
            if "finish_step" in names and self.commands == 2 and "Write the final" not in words
            else Say("Done")
        )


def text_of(request: Request) -> str:
    return json.dumps(request["messages"], ensure_ascii=False)


BAD: dict[str, Callable[[Request], bool]] = {
    "a result of a tool": lambda request: any(message["role"] == "tool" for message in request["messages"]),
    "a call": lambda request: "tool_calls" in text_of(request),
    "the words of a page": lambda request: POISON in text_of(request),
    "an old command": lambda request: "cat page" in text_of(request),
}


@pytest.mark.parametrize("is_bad", BAD.values(), ids=BAD.keys())
async def test_the_next_message_goes_on_when_the_history_is_refused(is_bad: Callable[[Request], bool]) -> None:
    touchy = Touchy(lambda _: False)
    with ScriptedModel(touchy) as model:
        bench = Bench(model)
        bench.gate.answer = lambda _function, _args: shell_output(f"The page has {POISON}.")
        bench.log.say("Read the page")
        await bench.run()
        assert bench.log.types()[-1] == "done"
        touchy.is_bad = is_bad
        bench.log.say("small talk")
        await bench.run()
        assert bench.log.types()[-1] == "done"
        assert bench.log.last(MessageEvent).message == "Fine."
        assert touchy.refusals
        before = touchy.refusals
        bench.log.say("small talk again")
        await bench.run()
        assert bench.log.types()[-1] == "done"
        assert touchy.refusals == before, "the form that works is stored"


async def test_a_message_that_is_refused_does_not_end_the_session() -> None:
    touchy = Touchy(lambda request: POISON in text_of(request))
    with ScriptedModel(touchy) as model:
        bench = Bench(model)
        bench.log.say(f"Tell me about {POISON}")
        await bench.run()
        assert "content policy" in bench.log.last(ErrorEvent).error
        bench.log.say("small talk")
        await bench.run()
        assert bench.log.types()[-1] == "done"
        assert "Ask the user for what you need" in text_of(model.requests[-1])


BROKEN: dict[str, Turn] = {
    "a template of a local server": Status(500, {"error": {"message": "Jinja: conversation roles must alternate"}}),
    "a firewall": Status(403, "<html><body><h1>Sorry, you have been blocked</h1></body></html>"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
async def test_a_history_that_a_server_fails_on_is_sent_in_another_form(broken: Turn) -> None:
    touchy = Touchy(lambda request: any(message["role"] == "tool" for message in request["messages"]))
    touchy.broken = broken
    with ScriptedModel(touchy) as model:
        bench = Bench(model)
        bench.log.say("Read the page")
        await bench.run()
    assert bench.log.types()[-1] == "done"


async def test_a_refusal_that_no_form_changes_ends_in_the_servers_words_and_keeps_the_conversation() -> None:
    touchy = Touchy(lambda _: False)
    with ScriptedModel(touchy) as model:
        bench = Bench(model)
        bench.log.say("Read the page")
        await bench.run()
        before = bench.log.state["shortened"]
        touchy.is_bad = lambda _: True
        bench.log.say("And now?")
        asked = len(model.requests)
        await bench.run()
        assert len(model.requests) - asked <= 6
    assert "content policy" in bench.log.last(ErrorEvent).error
    assert bench.log.state["shortened"] == before
