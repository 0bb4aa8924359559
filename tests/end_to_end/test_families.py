"""A chart and a form in a real sandbox with every family of model providers, on one platform.

Each test sets the model that its chats use. tests/api/agent/test_families.py runs the tasks that need no sandbox.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from support import victims
from support.accounts import Person, admin, data, register
from support.llm import Request, Status, Turn
from support.processes import Platform, Process, shared_platform
from support.providers.families import FAMILIES, GEMINI, KIMI
from support.providers.runs import count_answers
from support.providers.sandbox_tasks import (
    CHART,
    CHART_STEPS,
    CLICK,
    CSV,
    CUSTOMER,
    FORM_STEPS,
    RECEIVED,
    SITE_CODE,
    Sales,
    play,
)
from support.providers.server import Family, FamilyServer
from support.services import Services, run
from support.sse import Chat, Frame

API_KEY = "sk-for-tests"


@dataclass
class TwoRunnerPlatform:
    platform: Platform
    api: Process
    runners: list[Process]
    """Two, so that another runner takes over at once from one that is killed."""

    async def use(self, server: FamilyServer) -> None:
        """Set the model for every chat from now on."""
        body = {"base_url": server.url, "api_key": API_KEY, "model_name": server.family.model}
        async with await admin(self.api.url, self.platform.database_url) as root:
            data(await root.client.post("/api/app-config/llm", json=body))

    async def kill_runner(self, server: FamilyServer) -> None:
        """Kill the runner that is connected to the server, and replace it."""
        port = urlsplit(server.url).port
        (busy,) = [runner for runner in self.runners if victims.talks_to(runner.pid, port)]
        await busy.kill()
        self.runners[self.runners.index(busy)] = await self.platform.start_runner()

    @asynccontextmanager
    async def chat(self) -> AsyncIterator[tuple[Person, Chat]]:
        """A chat of a new user. The session and its sandbox are deleted afterwards."""
        async with await register(self.api.url) as person:
            chat = Chat(await person.create_session(), person.token, lambda: self.api.url)
            yield person, chat
            data(await person.client.post(f"/api/sessions/{chat.session_id}/delete"))


@pytest.fixture(scope="module")
def running(services: Services) -> Iterator[TwoRunnerPlatform]:
    with shared_platform(services) as platform:
        api = run(platform.start_api())
        run(platform.start_host())
        yield TwoRunnerPlatform(platform, api, [run(platform.start_runner()) for _ in range(2)])


async def say(chat: Chat, message: str, upload: Any, **options: Any) -> str:
    """Send the message with the file, and return the answer that ends the turn."""
    ending = await chat.say(message, attachments=[upload["id"]], **options)
    assert ending.event == "done", ending.data
    return str(chat.all("message", role="assistant")[-1]["message"])


async def received_forms(person: Person, chat: Chat) -> list[dict[str, Any]]:
    """The orders that the site has stored."""
    path = f"/api/sessions/{chat.session_id}/file"
    content = data(await person.client.post(path, json={"filepath": RECEIVED}))["content"]
    return [json.loads(line) for line in str(content).splitlines()]


async def draw_chart(person: Person, chat: Chat, sales: Sales) -> None:
    csv = await person.upload("sales.csv", sales.csv().encode(), "text/csv")
    answer = await say(chat, "Draw a chart of the revenue by region", csv)
    assert answer == f"The total is {sum(sales.totals().values())}."
    files = data(await person.client.get(f"/api/sessions/{chat.session_id}/files"))["files"]
    by_path = {file["filepath"]: file["id"] for file in files}
    assert by_path.keys() == {CSV, CHART}
    sales.check_chart((await person.client.get(f"/api/files/{by_path[CHART]}/download")).content)


async def send_form(person: Person, chat: Chat, **options: Any) -> None:
    site = await person.upload("site.py", SITE_CODE.encode(), "text/x-python")
    answer = await say(chat, f"Start the site and order something green for {CUSTOMER}", site, **options)
    orders = await received_forms(person, chat)
    assert [(order["name"], order["colour"]) for order in orders] == [(CUSTOMER, "green")]
    assert answer == f"Your order has the number {orders[0]['number']}."


@pytest.mark.parametrize("family", FAMILIES, ids=[family.name for family in FAMILIES])
async def test_a_chart_and_a_form_are_done(family: Family, running: TwoRunnerPlatform) -> None:
    with FamilyServer(family, play([*CHART_STEPS, *FORM_STEPS]), api_key=API_KEY) as server:
        await running.use(server)
        async with running.chat() as (person, chat):
            await draw_chart(person, chat, Sales(family.name))
            await send_form(person, chat)
        assert server.strangers == []


@pytest.mark.parametrize(
    ("before", "after"),
    [(KIMI, KIMI), (GEMINI, GEMINI), (KIMI, GEMINI)],
    ids=lambda family: family.name,
)
async def test_a_form_is_sent_once_although_its_runner_is_killed(
    before: Family, after: Family, running: TwoRunnerPlatform
) -> None:
    """The runner is killed while the browser sends the form. `after` is the model of the runner that takes over."""
    killing: list[asyncio.Task[None]] = []
    is_killed = threading.Event()
    steps = play(FORM_STEPS)

    def hold(request: Request) -> Turn:
        """The answers, but none behind the click before the runner is killed."""
        return steps(request) if is_killed.is_set() or count_answers(request) <= CLICK else Status(503)

    with FamilyServer(before, hold, api_key=API_KEY) as first, FamilyServer(after, hold, api_key=API_KEY) as second:
        successor = first if before is after else second

        async def kill() -> None:
            await running.use(successor)
            await running.kill_runner(first)
            is_killed.set()

        def on_frame(frame: Frame) -> None:
            if frame.data.get("function") == "browser_click" and not killing:
                killing.append(asyncio.create_task(kill()))

        await running.use(first)
        async with running.chat() as (person, chat):
            await send_form(person, chat, on_frame=on_frame)
        await asyncio.gather(*killing)
        assert is_killed.is_set()
        assert successor.usages
        assert first.strangers + second.strangers == []
