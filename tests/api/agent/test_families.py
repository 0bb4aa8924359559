"""The agent's real loop against every family of model providers, each as strict as the real provider.

tests/end_to_end/test_families.py runs the tasks that need a sandbox.
"""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from moorage_api.agent.ports import AgentLimits
from moorage_api.events.schemas import MessageEvent, StepEvent, ToolEvent
from support.agent import Bench, Killed
from support.llm import Call, Finish, Plan, Say, Turn
from support.providers import long_job
from support.providers.families import FAMILIES
from support.providers.odd_tools import OddTools
from support.providers.rules import is_thinking
from support.providers.runs import COMMANDS, SharedFacts, corrected_task, short_task
from support.providers.server import Family, FamilyServer
from support.providers.table import render_table

MODELS_PAGE = Path(__file__).parents[3] / "docs" / "models.md"
SMALL_WINDOW = 16_000

each_family = pytest.mark.parametrize("family", FAMILIES, ids=[family.name for family in FAMILIES])
each_successor = pytest.mark.parametrize(
    ("before", "after"),
    list(pairwise([*FAMILIES, FAMILIES[0]])),
    ids=[f"{before.name} to {after.name}" for before, after in pairwise([*FAMILIES, FAMILIES[0]])],
)


async def run(bench: Bench, server: FamilyServer, facts: SharedFacts, *, kill_after: int | None = None) -> None:
    """Work with a new client until the turn ends, or until the runner is killed when so many answers are stored."""

    def kill(_number: int, when: str) -> None:
        if len(server.usages) == kill_after and when == "after":
            raise Killed

    async with facts.client(server) as llm:
        with suppress(Killed):
            await bench.run(bench.journal(on_record=kill), llm=llm)


def called(bench: Bench) -> list[str]:
    return [event.args["command"] for event in bench.log.all(ToolEvent) if event.status == "called"]


def leaked(issuer: FamilyServer, receiver: FamilyServer) -> list[str]:
    """The opaque values of one server that came to another one."""
    sent = json.dumps(receiver.requests, ensure_ascii=False)
    return [value for value in issuer.issued.values if json.dumps(value, ensure_ascii=False)[1:-1] in sent]


@each_family
async def test_two_messages_of_one_session_are_worked_on(family: Family) -> None:
    with FamilyServer(family, short_task) as server:
        bench, facts = Bench(server), SharedFacts()
        bench.log.say("Draw a chart of sales.csv")
        await run(bench, server, facts)
        assert bench.log.types()[-1] == "done", bench.log.events[-1]
        assert bench.log.last(MessageEvent).message == "Here is your chart: ünïcödé 📈"
        refusals = len(server.refusals)
        bench.log.say("Make it blue")
        await run(bench, server, facts)
        assert bench.log.last(MessageEvent).message == "Now it is blue."
        assert bench.log.last(StepEvent).status == "completed"
        assert called(bench) == COMMANDS
        assert len(server.refusals) == refusals, f"what was learnt is forgotten: {server.refusals}"
        assert all(map(is_thinking, server.requests)), "thinking was switched off"
        assert server.strangers == []
        assert bench.log.state["shortened"]["flat_before"] == 0, "the calls were sent as text"


@each_family
async def test_a_message_of_the_user_in_the_middle_of_a_step_is_worked_on(family: Family) -> None:
    """It comes behind the result of a call, which some providers refuse."""
    with FamilyServer(family, corrected_task) as server:
        bench, facts = Bench(server), SharedFacts()
        journal = bench.journal()

        def interrupt(_key: str, when: str) -> None:
            if when == "after" and len(bench.gate.effects) == 1:
                bench.log.say("In blue, please")
                journal.look()

        bench.gate.on_call = interrupt
        bench.log.say("Draw a chart of sales.csv")
        async with facts.client(server) as llm:
            await bench.run(journal, llm=llm)
        assert bench.log.last(MessageEvent).message == "Here is your blue chart.", bench.log.events[-1]
        assert bench.log.types()[-1] == "done"
        assert called(bench) == ["head sales.csv", "python chart.py --blue"]
        assert "In blue, please" in json.dumps(server.requests[-1])
        assert bench.log.state["shortened"]["flat_before"] == 0, "the calls were sent as text"


@each_family
async def test_a_tool_with_any_schema_can_be_called(family: Family) -> None:
    """A model whose provider refuses the schema gets a simpler one, and the history stays as it is."""
    tools = OddTools()
    turns: list[Turn] = [
        Plan("Odd", "I do it.", ["Do it"]),
        Call("mcp_odd_do", {"mode": "fast", "level": 2, "pair": ["a", 1], "additionalProperties": "yes"}),
        Finish("It is done."),
        Say("Done."),
    ]
    with FamilyServer(family, turns) as server:
        bench = Bench(server, more_toolsets=[tools])
        bench.log.say("Do something odd")
        await run(bench, server, SharedFacts())
    assert bench.log.last(MessageEvent).message == "Done.", bench.log.events[-1]
    assert [call["level"] for call in tools.calls] == [2]
    assert bench.log.state["shortened"]["flat_before"] == 0, "the calls were sent as text"


@each_family
async def test_a_job_of_60_calls_overflows_a_small_window_and_loses_nothing(family: Family) -> None:
    """The window is not known before. It is learnt from the first refusal, or from the first request that was cut."""
    with FamilyServer(family, long_job.add_up, window_tokens=SMALL_WINDOW) as server:
        bench = Bench(server, limits=AgentLimits(max_retries=2))
        bench.gate.answer = long_job.read_part
        bench.log.say(long_job.MESSAGE)
        async with SharedFacts().client(server) as llm:
            await llm.read_window()
            await bench.run(llm=llm)
    assert bench.log.last(MessageEvent).message == long_job.ANSWER, bench.log.events[-1]
    assert bench.log.types()[-1] == "done"
    assert set(bench.gate.effects.values()) == {1}, "a call was repeated"
    assert len(bench.gate.effects) == long_job.PARTS
    assert server.strangers == []
    assert sum(usage["prompt_tokens"] for usage in server.usages) > 20 * SMALL_WINDOW
    assert 2 <= sum(map(long_job.is_summary, server.requests)) <= long_job.PARTS / 6
    is_silent = family.window_refusal is None
    assert (server.window_refusals, len(server.cut_requests)) == ((0, 1) if is_silent else (1, 0))
    warnings = [event.message for event in bench.log.all(MessageEvent) if "drops the rest" in event.message]
    assert len(warnings) == is_silent


@each_family
async def test_a_kill_before_or_after_any_record_repeats_nothing(family: Family) -> None:
    with FamilyServer(family, short_task) as server:
        facts = SharedFacts()
        records = await work_with_kills(server, facts, set())
        assert records > 8
        for at in range(records):
            await work_with_kills(server, facts, {(at, "before"), ((at + records // 2) % records, "after")})
        assert server.strangers == []


async def work_with_kills(server: FamilyServer, facts: SharedFacts, kills: set[tuple[int, str]]) -> int:
    """Work on a message and kill the runner before or after these records. Returns the number of records."""
    bench = Bench(server)
    left, records = set(kills), 0

    def kill(_number: int, when: str) -> None:
        nonlocal records
        number = records
        records += when == "after"
        if (number, when) in left:
            left.discard((number, when))
            raise Killed

    bench.log.say("Draw a chart of sales.csv")
    while bench.log.is_running:
        async with facts.client(server) as llm:
            with suppress(Killed):
                await bench.run(bench.journal(kill), llm=llm)
    assert not left, kills
    assert bench.log.types()[-1] == "done", (kills, bench.log.events[-1])
    assert bench.log.last(MessageEvent).message == "Here is your chart: ünïcödé 📈", kills
    assert called(bench) == COMMANDS[:3], kills
    assert set(bench.gate.effects.values()) == {1}, kills
    return records


@each_successor
async def test_a_model_that_takes_over_in_the_middle_gets_no_fields_of_the_one_before(
    before: Family, after: Family
) -> None:
    """The first model begins, the second goes on, and the first ends: each gets its own fields only."""
    with FamilyServer(before, short_task) as first, FamilyServer(after, short_task) as second:
        bench, facts = Bench(first), SharedFacts()
        bench.log.say("Draw a chart of sales.csv")
        await run(bench, first, facts, kill_after=2)
        await run(bench, second, facts, kill_after=1)
        assert bench.log.is_running
        assert len(second.usages) == 1
        await run(bench, first, facts)
        assert bench.log.last(MessageEvent).message == "Here is your chart: ünïcödé 📈", bench.log.events[-1]
        bench.log.say("Make it blue")
        await run(bench, second, facts)
        assert bench.log.last(MessageEvent).message == "Now it is blue.", bench.log.events[-1]
        assert called(bench) == COMMANDS
        assert set(bench.gate.effects.values()) == {1}
        assert (leaked(first, second), leaked(second, first)) == ([], [])
        assert "is_thinking_off" not in facts.of(first) | facts.of(second), "other sessions would not think either"


def test_the_page_of_models_says_which_families_work() -> None:
    """Otherwise replace the table with what `PYTHONPATH=tests python -m support.providers.table` prints."""
    assert render_table() in MODELS_PAGE.read_text()
