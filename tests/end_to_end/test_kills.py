"""SIGKILL of any process at any moment loses nothing, and nothing runs twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import pytest

from support import report, victims
from support.accounts import Person, data
from support.llm import Call, Calls, Finish, Plan, Say, ScriptedModel, Turn
from support.processes import Platform, Process
from support.seeds import many_seeds, seeds
from support.sse import Chat, Frame
from support.waiting import until

UseModel = Callable[[str], None]
NewUser = Callable[[str], Awaitable[Person]]


@dataclass
class SupervisedPlatform:
    """A platform whose killed processes are started again, as a supervisor does."""

    platform: Platform
    apis: list[Process]
    runners: list[Process]
    host: Process

    @classmethod
    async def start(cls, platform: Platform) -> SupervisedPlatform:
        apis = list(await asyncio.gather(platform.start_api(), platform.start_api()))
        runners = list(await asyncio.gather(platform.start_runner(), platform.start_runner()))
        return cls(platform, apis, runners, await platform.start_host())

    def url(self) -> str:
        return self.apis[0].url

    def holder(self) -> Process:
        """The runner that is connected to the model, or any runner while none is connected."""
        port = urlsplit(self.platform.changes["llm_base_url"]).port
        busy = [runner for runner in self.runners if victims.talks_to(runner.pid, port)]
        return (busy or self.runners)[0]

    async def kill(self, kind: str) -> bool:
        """Kill one process of this kind. Returns False when no such process exists yet."""
        match kind:
            case "api":
                victim = self.apis.pop(0)
                port = urlsplit(victim.url).port
                await victim.kill()
                self.apis.append(await self.platform.start_api(port=port))
            case "runner":
                busy = self.holder()
                self.runners.remove(busy)
                await busy.kill()
                self.runners.append(await self.platform.start_runner())
            case "gate":
                return victims.kill(victims.gates(self.host.pid)) > 0
            case "box":
                return victims.kill(victims.boxes(self.host.pid)) > 0
        return True


def check_once_in_order(chat: Chat) -> None:
    assert [frame.data["seq"] for frame in chat.stored] == list(range(1, len(chat.stored) + 1))


async def check_same_as_log(chat: Chat, alice: Person) -> None:
    """Check that the stream delivered exactly the events of the log, in spite of interruptions."""
    detail = data(await alice.client.get(f"/api/sessions/{chat.session_id}"))
    assert [(event["event"], event["data"]["seq"]) for event in detail["events"]] == [
        (frame.event, frame.data["seq"]) for frame in chat.stored
    ]


async def marks(chat: Chat, alice: Person) -> list[str]:
    """The lines that commands wrote in the workspace: one for each time a command ran.

    A gate or box that was killed as the run ended may still be coming back.
    """
    body = {"filepath": "/home/ubuntu/workspace/ran.log"}

    async def read() -> httpx.Response | None:
        answer = await alice.client.post(f"/api/sessions/{chat.session_id}/file", json=body)
        return None if answer.status_code in (404, 503) else answer

    return str(data(await until(read, "the sandbox has the file"))["content"]).split()


async def check_survival(seed: int, platform: Platform, use_model: UseModel, new_user: NewUser) -> None:
    """Run the report task, kill two processes meanwhile, and check the result."""
    chance = random.Random(seed)
    with ScriptedModel(report.script(), delay_seconds=0.05, chunk_chars=60, chunk_delay_seconds=0.01) as model:
        use_model(model.url)
        running = await SupervisedPlatform.start(platform)
        alice = await new_user(running.url())
        uploaded = await alice.upload("sales.csv", report.CSV.encode(), "text/csv")
        chat = Chat(await alice.create_session(), alice.token, running.url)
        wanted = chance.sample(["api", "runner", "runner", "gate", "box"], k=2)
        moments = sorted(chance.sample(range(3, 25), k=2))
        killing: list[asyncio.Task[bool]] = []

        def on_frame(frame: Frame) -> None:
            if moments and frame.is_stored and frame.data["seq"] >= moments[0]:
                moments.pop(0)
                killing.append(asyncio.create_task(kill_soon(wanted.pop(0))))

        async def kill_soon(kind: str) -> bool:
            await asyncio.sleep(chance.random() * 0.5)
            return await running.kill(kind)

        ending = await chat.say("Make a chart and a short report", attachments=[uploaded["id"]], on_frame=on_frame)
        await asyncio.gather(*killing)
        alice.client.base_url = running.url()
        assert ending.event == "done", ending.data
        check_once_in_order(chat)
        await check_same_as_log(chat, alice)
        ran = await marks(chat, alice)
        assert len(ran) == len(set(ran)), f"a command ran twice: {ran}"
        was_told_unknown = "may have run" in str(model.requests[-1]["messages"])
        assert ran == report.MARKS or was_told_unknown, ran
        called = [event["tool_call_id"] for event in chat.all("tool", status="called")]
        assert len(called) == len(set(called))


@pytest.mark.parametrize("seed", seeds())
async def test_a_kill_at_any_moment_loses_nothing(
    seed: int, platform: Platform, use_model: UseModel, new_user: NewUser
) -> None:
    await check_survival(seed, platform, use_model, new_user)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", many_seeds())
async def test_many_kills_lose_nothing(seed: int, platform: Platform, use_model: UseModel, new_user: NewUser) -> None:
    await check_survival(seed, platform, use_model, new_user)


@pytest.fixture
def waiting_model() -> Iterator[ScriptedModel]:
    turns: list[Turn] = [
        Plan("A name", "I need to know a name.", ["Ask and write"]),
        Calls(Call("message_ask_user", {"text": "Which name?"})),
        report.shell("echo hello > greeting.txt"),
        Finish("done"),
        Say("Greeted."),
    ]
    with ScriptedModel(turns) as model:
        yield model


async def test_a_question_to_the_user_survives_a_kill_of_every_process(
    platform: Platform, use_model: UseModel, new_user: NewUser, waiting_model: ScriptedModel
) -> None:
    use_model(waiting_model.url)
    running = await SupervisedPlatform.start(platform)
    alice = await new_user(running.url())
    chat = Chat(await alice.create_session(), alice.token, running.url)
    assert (await chat.say("Greet somebody")).event == "wait"
    for process in (*running.apis, *running.runners, running.host):
        await process.kill()
    again = await SupervisedPlatform.start(platform)
    chat.url = again.url
    alice.client.base_url = again.url()
    assert data(await alice.client.get("/api/sessions"))["sessions"][0]["status"] == "waiting"
    assert (await chat.say("Ada")).event == "done"
    check_once_in_order(chat)
    answered = [message for message in waiting_model.requests[-1]["messages"] if message["role"] == "tool"]
    assert any("Ada" in message["content"] for message in answered)


@pytest.mark.parametrize("platform", [{"lease_seconds": 3600}], indirect=True)
async def test_another_runner_resumes_the_run_of_a_killed_one_before_its_lease_ends(
    platform: Platform, use_model: UseModel, new_user: NewUser
) -> None:
    turns: list[Turn] = [
        Plan("Sleep", "I will wait.", ["Wait"]),
        report.shell(f"{report.once('slept')}; sleep 5"),
        Finish("done"),
        Say("Waited."),
    ]
    with ScriptedModel(turns) as model:
        use_model(model.url)
        running = await SupervisedPlatform.start(platform)
        alice = await new_user(running.url())
        chat = Chat(await alice.create_session(), alice.token, running.url)
        killing: list[asyncio.Task[None]] = []

        async def kill_holder() -> None:
            assert await marks(chat, alice) == ["slept"]
            holder = running.holder()
            await holder.kill()

        def on_frame(frame: Frame) -> None:
            if frame.data.get("status") == "calling":
                killing.append(asyncio.create_task(kill_holder()))

        assert (await chat.say("Wait a little", on_frame=on_frame)).event == "done"
        await asyncio.gather(*killing)
        assert await marks(chat, alice) == ["slept"]
        assert chat.all("tool", status="called")[0]["content"]["console"]
