"""A runner is killed at any point; the next one continues, and nothing is done or shown twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from moorage_api.events.schemas import ChatEvent, MessageEvent, ToolEvent, WaitEvent
from support.agent import Bench, Killed, shell
from support.llm import Call, Calls, Finish, Plan, Request, Say, ScriptedModel, Turn, Update

WORK: list[Turn] = [
    Plan("Work", "I begin.", ["First", "Second"]),
    Calls(shell("one"), Call("message_notify_user", {"text": "Half way"}), shell("two")),
    Calls(Call("no_such_tool"), shell("three")),
    Finish("could not", success=False),
    Update(["Second, another way"], "I try another way."),
    shell("four"),
    Call("message_ask_user", {"text": "Which colour?"}),
    shell("five"),
    Finish("done", attachments=["/home/ubuntu/report.txt"]),
    Say("It is blue."),
]
COMMANDS = ["one", "two", "three", "four", "five"]


async def converse(bench: Bench, hook: Callable[[int, str], None] = lambda _number, _when: None) -> int:
    """Work on the task with as many runners as needed; answer its question. Returns the number of records."""
    bench.attachments.sandbox["/home/ubuntu/report.txt"] = b"blue"
    bench.log.say("Do it")
    records = 0

    def count(_number: int, when: str) -> None:
        nonlocal records
        number = records
        records += when == "after"
        hook(number, when)

    while True:
        while bench.log.is_running:
            try:
                await bench.run(bench.journal(count))
            except Killed:
                continue
        if not isinstance(bench.log.events[-1], WaitEvent):
            return records
        bench.log.say("Blue")


def shape(events: list[ChatEvent]) -> list[object]:
    """The events without random ids."""
    return [event.model_dump(exclude={"attachments": {"__all__": {"id"}}}) for event in events]


async def test_a_kill_before_or_after_any_record_changes_neither_log_nor_transcript() -> None:
    with ScriptedModel(WORK) as model:
        whole = Bench(model)
        records = await converse(whole)
        assert records > 20
        for at in range(records):
            bench = Bench(model)
            left = {(at, "before"), ((at + records // 2) % records, "after")}

            def kill(number: int, when: str, left: set[tuple[int, str]] = left) -> None:
                if (number, when) in left:
                    left.discard((number, when))
                    raise Killed

            await converse(bench, kill)
            assert not left, at
            assert shape(bench.log.events) == shape(whole.log.events), at
            assert bench.log.transcript == whole.log.transcript, at
            assert sorted(bench.gate.effects.values()) == [1] * len(COMMANDS), at


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_call_that_was_running_at_a_kill_is_sent_again_with_the_same_key(moment: str) -> None:
    with ScriptedModel(WORK) as model:
        whole = Bench(model)
        await converse(whole)
        bench = Bench(model)
        seen: dict[str, int] = {}

        def kill(key: str, when: str) -> None:
            seen[key] = seen.get(key, 0) + (when == moment)
            if when == moment and seen[key] == 1:
                raise Killed

        bench.gate.on_call = kill
        await converse(bench)
        assert shape(bench.log.events) == shape(whole.log.events)
        assert sorted(bench.gate.effects.values()) == [1] * len(COMMANDS)
        assert set(seen.values()) == {2}


async def test_the_key_of_a_call_is_the_seq_of_its_calling_event() -> None:
    with ScriptedModel(WORK) as model:
        bench = Bench(model)
        await converse(bench)
    seqs = [
        seq
        for seq, event in enumerate(bench.log.events, 1)
        if isinstance(event, ToolEvent) and event.status == "calling" and event.name == "shell"
    ]
    assert list(bench.gate.ledger) == [str(seq) for seq in seqs]


async def test_a_message_sent_while_the_turn_ends_is_answered_in_the_same_run() -> None:
    def answer(request: Request) -> Turn:
        return Plan("Hi", f"You said: {request['messages'][-1]['content']}", [])

    with ScriptedModel(answer) as model:
        bench = Bench(model)
        bench.log.say("Hi")

        def interrupt(number: int, when: str) -> None:
            if (number, when) == (1, "before") and len(bench.log.events) == 1:
                bench.log.say("Hi again")

        await bench.run(bench.journal(interrupt))
    assert bench.log.types() == ["message", "message", "title", "message", "done"]
    assert bench.log.last(MessageEvent).message == "You said: Hi\n\nHi again"
