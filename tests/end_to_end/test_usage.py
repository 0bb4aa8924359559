"""The ledger of model calls equals the provider's own count, however often runners are killed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import text

from moorage_api.database import create_engine
from moorage_local.data.ports import free_ports
from support import victims
from support.accounts import Person, admin, data
from support.llm import Call, Finish, Plan, Say, ScriptedModel, Turn
from support.processes import Platform, Process
from support.seeds import many_seeds, seeds
from support.sse import Chat, Frame
from support.waiting import HANG_SECONDS

UseModel = Callable[[str], None]
NewUser = Callable[[str], Awaitable[Person]]

KILLS = 5
"""Kills in one run."""
PRICE = {"model_name": "scripted", "input_per_million": 3, "cached_input_per_million": 1, "output_per_million": 7}


def counting_script(count: int) -> list[Turn]:
    """A task of one step with `count` calls that need no sandbox."""
    notes = [Call("message_notify_user", {"text": f"This is number {number}."}) for number in range(count)]
    return [Plan("Count", "I will count.", ["Count"]), *notes, Finish("Counted."), Say("I have counted.")]


async def ledger_of(platform: Platform, session_id: str) -> tuple[list[tuple[int, int, int]], list[tuple[str, bool]]]:
    """The answers as input, cached and output tokens, and the other calls as outcome and `is_estimated`."""
    engine = create_engine(platform.database_url)
    async with engine.connect() as connection:
        rows = (
            await connection.execute(
                text(
                    "SELECT outcome, is_estimated, input_tokens, cached_tokens, output_tokens FROM model_calls "
                    "WHERE session_id = CAST(:id AS uuid) ORDER BY id"
                ),
                {"id": session_id},
            )
        ).all()
    await engine.dispose()
    answers = [(row.input_tokens, row.cached_tokens, row.output_tokens) for row in rows if row.outcome == "answered"]
    return answers, [(row.outcome, row.is_estimated) for row in rows if row.outcome != "answered"]


def billed_by(model: ScriptedModel) -> list[tuple[int, int, int]]:
    said = [model.billed[place] for place in sorted(model.billed)]
    return [
        (one["prompt_tokens"], one["prompt_tokens_details"]["cached_tokens"], one["completion_tokens"]) for one in said
    ]


class Runners:
    """Two runners. A killed one is replaced, as its supervisor would do."""

    def __init__(self, platform: Platform, running: list[Process]) -> None:
        self._platform = platform
        self._running = running
        self.kills = 0
        self._lock = asyncio.Lock()
        """One kill at a time: a runner is killed only while another one runs."""

    async def kill_the_busy_one(self) -> None:
        async with self._lock:
            await self._kill_and_replace()

    async def _kill_and_replace(self) -> None:
        port = urlsplit(self._platform.changes["llm_base_url"]).port
        busy = [runner for runner in self._running if victims.talks_to(runner.pid, port)]
        victim = (busy or self._running)[0]
        self._running.remove(victim)
        await victim.kill()
        self.kills += 1
        self._running.append(await self._platform.start_runner())


async def count_through_kills(seed: int, platform: Platform, use_model: UseModel, new_user: NewUser) -> None:
    chance = random.Random(seed)
    script = counting_script(4 * KILLS)
    with ScriptedModel(script, delay_seconds=0.03, chunk_chars=10, chunk_delay_seconds=0.01) as model:
        use_model(model.url)
        api, *running = await asyncio.gather(platform.start_api(), platform.start_runner(), platform.start_runner())
        await platform.start_host()
        runners = Runners(platform, running)
        alice = await new_user(api.url)
        async with await admin(api.url, platform.database_url) as root:
            data(await root.client.post("/api/app-config/llm/prices", json={"prices": [PRICE]}))
        chat = Chat(await alice.create_session(), alice.token, lambda: api.url)
        moments = sorted(chance.sample(range(2, 4 * KILLS), k=KILLS))
        killing: list[asyncio.Task[None]] = []

        async def kill_soon() -> None:
            await asyncio.sleep(chance.random() * 0.3)
            await runners.kill_the_busy_one()

        def on_frame(frame: Frame) -> None:
            if moments and frame.is_stored and frame.data["seq"] >= moments[0]:
                moments.pop(0)
                killing.append(asyncio.create_task(kill_soon()))

        ending = await chat.say("Count for me", on_frame=on_frame)
        await asyncio.gather(*killing)
        assert ending.event == "done", ending.data
        assert runners.kills == KILLS
        billed = billed_by(model)
        assert len(billed) == len(script)
        answers, others = await ledger_of(platform, chat.session_id)
        assert answers == billed
        assert set(others) <= {("started", True)}
        # a runner may be killed between storing a call and sending it, so the ledger may hold one more for each kill
        received = len(model.requests)
        assert received <= len(answers) + len(others) <= received + KILLS
        print(f"seed {seed}: {received} requests received, {len(answers)} answers and {len(others)} lost calls stored")
        total = data(await alice.client.get("/api/usage", params={"session_id": chat.session_id}))["total"]
        cost = sum(3 * (sent - cached) + cached + 7 * written for sent, cached, written in billed) / 1_000_000
        assert total["unpriced_calls"] == 0
        assert (total["cost"] > cost) if others else (total["cost"] == pytest.approx(cost))
        assert (total["calls"], total["estimated_calls"]) == (len(answers) + len(others), len(others))


@pytest.mark.parametrize("seed", seeds()[:1])
async def test_the_ledger_equals_the_count_of_the_provider_after_kills(
    seed: int, platform: Platform, use_model: UseModel, new_user: NewUser
) -> None:
    await count_through_kills(seed, platform, use_model, new_user)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", many_seeds()[::KILLS])
async def test_the_ledger_equals_the_count_of_the_provider_after_many_kills(
    seed: int, platform: Platform, use_model: UseModel, new_user: NewUser
) -> None:
    await count_through_kills(seed, platform, use_model, new_user)


async def test_a_runner_that_is_stopped_leaves_its_unfinished_call_in_the_ledger(
    platform: Platform, use_model: UseModel, new_user: NewUser
) -> None:
    with ScriptedModel([Plan("Greeting", "Hello! " * 300, [])], chunk_delay_seconds=0.02) as model:
        use_model(model.url)
        api, runner = await asyncio.gather(platform.start_api(), platform.start_runner())
        await platform.start_host()
        alice = await new_user(api.url)
        chat = Chat(await alice.create_session(), alice.token, lambda: api.url)
        begun = asyncio.Event()

        def on_frame(frame: Frame) -> None:
            if not frame.is_stored:
                begun.set()

        chatting = asyncio.create_task(chat.say("hi", on_frame=on_frame))
        await asyncio.wait_for(begun.wait(), HANG_SECONDS)
        await runner.stop()
        await platform.start_runner()
        assert (await chatting).event == "done"
    calls = data(await alice.client.get("/api/usage"))["total"]
    assert (calls["calls"], calls["estimated_calls"]) == (2, 1)


async def test_a_runner_counts_calls_tokens_and_cost_as_metrics(
    platform: Platform, use_model: UseModel, new_user: NewUser
) -> None:
    port = free_ports(1)[0]
    platform.changes.update(runner_host="127.0.0.1", runner_port=port)
    with ScriptedModel([Plan("Greeting", "Hello!", [])]) as model:
        use_model(model.url)
        api = await platform.start_api()
        await platform.start_runner()
        await platform.start_host()
        alice = await new_user(api.url)
        chat = Chat(await alice.create_session(), alice.token, lambda: api.url)
        assert (await chat.say("hi")).event == "done"
        [(sent, _, written)] = billed_by(model)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        lines = (await client.get("/metrics")).text.splitlines()
    assert 'moorage_model_calls_total{model="scripted",outcome="answered"} 1.0' in lines
    assert f'moorage_model_tokens_total{{kind="input",model="scripted"}} {float(sent)}' in lines
    assert f'moorage_model_tokens_total{{kind="output",model="scripted"}} {float(written)}' in lines
