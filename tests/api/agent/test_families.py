"""One task with the agent's real loop against every family of model providers, each as strict as the real provider."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moorage_api.agent.model.llm import LlmClient
from moorage_api.events.schemas import MessageEvent, StepEvent, ToolEvent
from moorage_api.outbound import Outbound
from support.agent import Bench, Killed, shell
from support.llm import Calls, Finish, Plan, Say, Turn
from support.providers.families import MISTRAL, PASSING
from support.providers.server import Family, FamilyServer
from support.providers.table import render_table

MODELS_PAGE = Path(__file__).parents[3] / "docs" / "models.md"

TURNS: list[Turn] = [
    Plan("Chart", "I draw a chart.", ["Draw the chart"]),
    Calls(shell("head sales.csv"), shell("wc -l sales.csv")),
    Calls(shell("python chart.py")),
    Finish("The chart is drawn."),
    Say("Here is your chart: ünïcödé 📈"),
    Plan("Colour", "I change the colour.", ["Change the colour"]),
    Calls(shell("python chart.py --blue")),
    Finish("It is blue."),
    Say("Now it is blue."),
]

each_family = pytest.mark.parametrize("family", PASSING, ids=[family.name for family in PASSING])


def client(family: Family, server: FamilyServer) -> LlmClient:
    return LlmClient(server.url, "sk-for-tests", family.model, backoff_seconds=0.01, outbound=Outbound())


@each_family
async def test_two_messages_of_one_session_are_worked_on(family: Family) -> None:
    with FamilyServer(family, TURNS) as server:
        bench = Bench(server)
        async with client(family, server) as llm:
            bench.log.say("Draw a chart of sales.csv")
            await bench.run(llm=llm)
            assert bench.log.types()[-1] == "done", bench.log.events[-1]
            assert bench.log.last(MessageEvent).message == "Here is your chart: ünïcödé 📈"
            refusals = len(server.refusals)
            bench.log.say("Make it blue")
            await bench.run(llm=llm)
        assert bench.log.last(MessageEvent).message == "Now it is blue."
        assert bench.log.last(StepEvent).status == "completed"
        assert [event.args["command"] for event in bench.log.all(ToolEvent) if event.status == "called"] == [
            "head sales.csv",
            "wc -l sales.csv",
            "python chart.py",
            "python chart.py --blue",
        ]
        assert len(server.refusals) == refusals, f"what was learnt is forgotten: {server.refusals}"


@each_family
async def test_the_next_model_of_a_session_gets_no_fields_of_the_one_before(family: Family) -> None:
    with FamilyServer(family, TURNS) as before, FamilyServer(MISTRAL, TURNS) as after:
        bench = Bench(before)
        bench.log.say("Draw a chart of sales.csv")
        async with client(family, before) as llm:
            await bench.run(llm=llm)
        bench.log.say("Make it blue")
        async with client(MISTRAL, after) as llm:
            await bench.run(llm=llm)
        assert bench.log.last(MessageEvent).message == "Now it is blue."
        sent = json.dumps(after.requests, ensure_ascii=False)
        assert [value for value in before.issued.values if json.dumps(value, ensure_ascii=False) in sent] == []


@each_family
async def test_a_killed_runner_is_replaced_in_the_middle_of_the_task(family: Family) -> None:
    def kill(number: int, when: str) -> None:
        if number == 3 and when == "after":
            raise Killed

    with FamilyServer(family, TURNS) as server:
        bench = Bench(server)
        bench.log.say("Draw a chart of sales.csv")
        async with client(family, server) as llm:
            with pytest.raises(Killed):
                await bench.run(bench.journal(on_record=kill), llm=llm)
        async with client(family, server) as llm:
            await bench.run(llm=llm)
        assert bench.log.types()[-1] == "done", bench.log.events[-1]
        assert set(bench.gate.effects.values()) == {1}


def test_the_page_of_models_says_which_families_work() -> None:
    """Otherwise replace the table with what `PYTHONPATH=tests python -m support.providers.table` prints."""
    assert render_table() in MODELS_PAGE.read_text()
