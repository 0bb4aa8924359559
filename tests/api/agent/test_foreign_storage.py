"""Any fields of any answers come back to their own model and to no other, through the real loop and storage."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import text

from moorage_api.agent.model.incoming.foreign import MESSAGE_FIELDS
from moorage_api.agent.model.llm import LlmClient
from moorage_api.agent.ports import AgentLimits
from moorage_api.agent.toolsets import default_toolsets
from moorage_api.agent.turn.loop import run_turn
from moorage_api.agent.unicode import repair_unicode
from moorage_api.database import uuid7
from moorage_api.outbound import Outbound
from moorage_api.runner.journal import RunJournal, open_journal
from moorage_api.runs import queue
from moorage_api.sessions.repository import create_session
from moorage_api.sessions.service import SessionService
from moorage_api.settings import Settings
from moorage_api.users.account import Account
from moorage_api.users.repository import UserRepository
from moorage_api.wiring.resources import Resources, open_resources
from support.agent import Killed, Log, MemoryAttachments, MemoryGate, MemorySwitches, shell_output
from support.llm import Raw, Request, Say, ScriptedModel, Turn

SHORTENING = "too long to keep"
SMALL_WINDOW = 8_000
LIMITS = AgentLimits(max_iterations=99, max_retries=2)

ODD_TEXTS = [
    "",
    "\x00",
    "a\x00b",
    "\\u0000",
    "\ud83d",
    "\udcc4\ud83d",
    "📄",
    "\u2028\u2029",
    "\ufeff",
    '"\\/',
    "</think>",
]
ODD_NUMBERS = [0, -0.0, 1.0, 1e16, 5e-324, 1.7976931348623157e308, 0.1, 2**53 + 1, -(2**63), 10**300]
TEXTS = st.sampled_from(ODD_TEXTS) | st.text(max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.sampled_from(ODD_NUMBERS) | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["reasoning_content", "reasoning_details", "thinking_blocks", "extra_content", "id2", "ID", "", "a.b", "__proto__"]
) | st.text(min_size=1, max_size=8)
KNOWN = MESSAGE_FIELDS | {"tool_call_id", "index", "id", "type", "function"}
FIELDS = st.dictionaries(
    NAMES.filter(lambda name: name not in KNOWN), VALUES.filter(lambda value: value is not None), max_size=3
)


@dataclass(frozen=True)
class Answered:
    """One answer of a model: its fields, those of each of its calls, and how long the results of the calls are."""

    fields: Mapping[str, Any]
    calls: Sequence[Mapping[str, Any]]
    result_chars: int


ANSWERS = st.builds(Answered, FIELDS, st.lists(FIELDS, min_size=1, max_size=2), st.sampled_from([10, 9_000, 9_000]))


@dataclass(frozen=True)
class Story:
    """Turns of a conversation, each with its model and its answers, and the records at which a runner is killed."""

    turns: Sequence[tuple[str, Sequence[Answered]]]
    kills: Sequence[tuple[int, str]]
    window: int


STORIES = st.builds(
    Story,
    st.lists(
        st.tuples(st.sampled_from(["first", "second"]), st.lists(ANSWERS, min_size=1, max_size=5)),
        min_size=1,
        max_size=3,
    ),
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from(["before", "after"])), max_size=3),
    st.sampled_from([SMALL_WINDOW, 64_000]),
)

MARK = re.compile(r"\b(turn|plan|run|end|told) (\d+)(?:\.(\d+))?\b")


class Models:
    """Both models. Which answer comes next follows from the newest message that carries a mark."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.problems: list[str] = []
        self.compared = 0
        self.summaries = 0

    def __call__(self, request: Request) -> Turn:
        for message in request["messages"]:
            if message["role"] == "assistant":
                self._compare(message, request["model"])
        messages = request["messages"]
        if SHORTENING in str(messages[-1]["content"]):
            self.summaries += 1
            return Say("A summary.")
        kind, turn, place = next(found for message in reversed(messages) if (found := mark_of(message)))
        answers = self.story.turns[turn][1]
        if kind == "turn":
            return self._answer(answers[0], f"plan {turn}", [("make_plan", plan_of(turn))])
        if kind == "end":
            return Say(f"told {turn}")
        following = place + 1 if kind == "run" else 0
        if following == len(answers):
            end = {"success": True, "result": f"end {turn}", "attachments": []}
            return self._answer(answers[0], f"end {turn}", [("finish_step", end)])
        answer = answers[following]
        calls = [("shell_execute", command(f"run {turn}.{following} {number}")) for number in range(len(answer.calls))]
        return self._answer(answer, f"run {turn}.{following}", calls)

    def _answer(self, answer: Answered, said: str, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> Raw:
        parts: list[dict[str, Any]] = [
            {
                "index": index,
                "id": "call_0",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments)},
                **fields,
            }
            for index, ((name, arguments), fields) in enumerate(zip(calls, answer.calls, strict=False))
        ]
        deltas = [{"role": "assistant", "content": said, **answer.fields}]
        deltas += [{"tool_calls": [part]} for part in parts]
        chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
        return Raw([*chunks, {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}, "[DONE]"])

    def _compare(self, message: Mapping[str, Any], model: str) -> None:
        found = mark_of(message)
        if found is None or not message.get("tool_calls"):
            return
        kind, turn, place = found
        author, answers = self.story.turns[turn]
        answer = answers[place if kind == "run" else 0]
        self._check(message, MESSAGE_FIELDS, answer.fields if author == model else {})
        for call, fields in zip(message["tool_calls"], answer.calls, strict=False):
            self._check(call, {"id", "type", "function"}, fields if author == model else {})
        self.compared += author == model

    def _check(self, holder: Mapping[str, Any], known: Any, expected: Mapping[str, Any]) -> None:
        got = json.dumps({key: value for key, value in holder.items() if key not in known})
        if got != json.dumps(repair_unicode(dict(expected))):
            self.problems.append(f"{got} instead of {json.dumps(dict(expected))}")


def plan_of(turn: int) -> dict[str, Any]:
    return {"title": "A title", "message": f"plan {turn}", "steps": ["Work"]}


def command(words: str) -> dict[str, Any]:
    return {"session_id": "main", "exec_dir": "/home/ubuntu", "command": words}


def mark_of(message: Mapping[str, Any]) -> tuple[str, int, int] | None:
    """The mark of a message of the user, or of the model."""
    if message["role"] == "tool":
        return None
    said = str(message["content"]) + "".join(call["function"]["arguments"] for call in message.get("tool_calls", ()))
    kinds = ("turn",) if message["role"] == "user" else ("plan", "run", "end", "told")
    found = [match for match in MARK.finditer(said) if match[1] in kinds]
    return (found[-1][1], int(found[-1][2]), int(found[-1][3] or 0)) if found else None


@dataclass
class Progress:
    kills: set[tuple[int, str]]
    records: int = 0


class KilledJournal:
    """A journal whose runner is killed before or after it stores certain records, counted over all runners."""

    def __init__(self, journal: RunJournal, progress: Progress) -> None:
        self._journal = journal
        self._progress = progress

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    async def record(self, *events: Any, **changes: Any) -> list[int]:
        number = self._progress.records
        self._progress.records += 1
        if (number, "before") in self._progress.kills:
            raise Killed
        seqs = await self._journal.record(*events, **changes)
        if (number, "after") in self._progress.kills:
            raise Killed
        return seqs


@dataclass
class Stage:
    """The storage of all examples, and the user whose sessions they are."""

    resources: Resources
    alice: Account
    results: dict[str, int] = field(default_factory=lambda: {"compared": 0, "summaries": 0, "kills": 0})

    async def play(self, story: Story) -> None:
        resources = self.resources
        sessions = SessionService(resources.db, resources.hub, resources.redis, resources.sandboxes, resources.blobs)
        async with resources.db.begin() as tx:  # an example that failed leaves its run
            await tx.execute(text("UPDATE runs SET status = 'failed' WHERE status IN ('queued', 'running')"))
        session_id = uuid7()
        await create_session(resources.db, session_id, owner_id=self.alice.id)
        progress, models, log = Progress(set(story.kills)), Models(story), Log()
        gate = MemoryGate(log)
        gate.answer = lambda _function, args: shell_output("x" * self._chars(story, str(args.get("command"))))
        with ScriptedModel(models) as server:
            for number, (name, _) in enumerate(story.turns):
                await sessions.post_message(
                    session_id, reader=self.alice, message=f"turn {number} please", attachments=[]
                )
                async with LlmClient(
                    server.url, "", name, outbound=Outbound(), context_tokens=story.window, backoff_seconds=0.01
                ) as llm:
                    while await self._continue(session_id, llm, progress, gate):
                        pass
        ends = await self._ends(session_id)
        assert models.problems == []
        assert ends == ["done"] * len(story.turns)
        self.results["compared"] += models.compared
        self.results["summaries"] += models.summaries
        self.results["kills"] += sum(number < progress.records for number, _ in progress.kills)

    @staticmethod
    def _chars(story: Story, words: str) -> int:
        found = MARK.search(words)
        assert found is not None
        return story.turns[int(found[2])][1][int(found[3])].result_chars

    async def _continue(self, session_id: UUID, llm: LlmClient, progress: Progress, gate: MemoryGate) -> bool:
        """Work as the next runner until it ends or is killed. False if there is nothing to do."""
        resources = self.resources
        async with resources.db.begin() as tx:
            run = await queue.claim(tx, runner_lock=1, lease_seconds=600)
        if run is None:
            return False
        assert run.session_id == session_id
        journal: Any = KilledJournal(await open_journal(resources.db, resources.hub, run), progress)
        try:
            await run_turn(
                journal,
                llm=llm,
                toolsets=default_toolsets(gate, MemoryAttachments(), max_search_results=3),
                attachments=MemoryAttachments(),
                gate=gate,
                limits=LIMITS,
                switches=MemorySwitches(),
            )
        except Killed:
            return True
        return True

    async def _ends(self, session_id: UUID) -> list[str]:
        async with self.resources.db() as tx:
            ends = await tx.scalars(
                text(
                    "SELECT type FROM events WHERE session_id = :id AND type IN ('done', 'error', 'wait') ORDER BY seq"
                ),
                {"id": session_id},
            )
        return list(ends)


@contextmanager
def open_stage(settings: Settings) -> Iterator[tuple[asyncio.Runner, Stage]]:
    """A stage in an event loop of its own, because Hypothesis calls plain functions."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def open_it() -> Stage:
            resources = await stack.enter_async_context(open_resources(settings, issuer="runner"))
            async with resources.db.begin() as tx:
                alice = await UserRepository(tx).add(
                    uuid7(), username="alice", email=None, password_hash="", nickname=""
                )
            return Stage(resources, alice)

        stage = runner.run(open_it())
        try:
            yield runner, stage
        finally:
            runner.run(stack.aclose())


def play_stories(settings: Settings, *, count: int, is_random: bool) -> dict[str, int]:
    with open_stage(settings) as (runner, stage):

        @examples(
            max_examples=count,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            derandomize=not is_random,
            phases=(Phase.generate, Phase.shrink) if is_random else (Phase.generate,),  # to shrink takes minutes
        )
        @given(story=STORIES)
        def play(story: Story) -> None:
            runner.run(stage.play(story))

        play()
        return stage.results


def test_fields_come_back_to_their_own_model_through_storage_kills_and_compaction(settings: Settings) -> None:
    results = play_stories(settings, count=15, is_random=False)
    print(results)
    assert min(results.values()) > 0


@pytest.mark.chaos
def test_fields_come_back_to_their_own_model_in_many_stories(settings: Settings) -> None:
    results = play_stories(settings, count=400, is_random=True)
    print(results)
    assert min(results.values()) > 0
