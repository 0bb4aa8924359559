"""Failures are reported in the stream, and earlier results stay."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from moorage_local.data.ports import free_ports
from support import report
from support.accounts import Person, admin, data
from support.llm import Call, Finish, Hang, Plan, Raw, Say, ScriptedModel, Status, Turn, wish
from support.processes import Platform
from support.sse import Chat, Frame

UseModel = Callable[[str], None]
NewUser = Callable[[str], Awaitable[Person]]

KEY = "sk-nobody-may-see-this"


def using(turns: list[Turn], *, steps: list[str] | None = None) -> list[Turn]:
    return [Plan("A task", "I will try.", steps or ["Try"]), *turns, Finish("done"), Say("That was it.")]


async def test_a_wrong_key_is_reported_and_can_be_corrected_without_a_restart(
    platform: Platform, use_model: UseModel, new_user: NewUser
) -> None:
    with ScriptedModel([Plan("Hi", "Hello!", [])] * 3, api_key=KEY) as model:
        use_model(model.url)
        api = await platform.start_api()
        await platform.start_runner()
        alice = await new_user(api.url)
        chat = Chat(await alice.create_session(), alice.token, lambda: api.url)
        refused = await chat.say("Hello")
        assert (refused.event, refused.data["code"]) == ("error", "llm_unauthorized")
        async with await admin(api.url, platform.database_url) as root:
            body = {"base_url": model.url, "model_name": "scripted", "api_key": KEY}
            assert "api_key" not in data(await root.client.post("/api/app-config/llm", json=body))
            moved = {"base_url": "http://127.0.0.1:9/v1", "model_name": "scripted"}
            data(await root.client.post("/api/app-config/llm", json=moved))
            data(await root.client.post("/api/app-config/llm", json={**moved, "base_url": model.url}))
            assert (await chat.say("Hello again")).data["code"] == "llm_unauthorized"  # the move dropped the key
            data(await root.client.post("/api/app-config/llm", json=body))
        assert (await chat.say("Hello once more")).event == "done"
        assert KEY not in platform.logs() + str(chat.stored)


async def test_an_unreachable_model_is_reported_as_an_error(
    platform: Platform, use_model: UseModel, new_user: NewUser
) -> None:
    use_model(f"http://127.0.0.1:{free_ports(1)[0]}/v1")
    api = await platform.start_api()
    await platform.start_runner()
    alice = await new_user(api.url)
    chat = Chat(await alice.create_session(), alice.token, lambda: api.url)
    ending = await chat.say("Hello")
    assert (ending.event, ending.data["code"]) == ("error", "llm_unavailable")
    assert data(await alice.client.get("/api/sessions"))["sessions"][0]["status"] == "completed"


async def test_invalid_data_from_a_model_is_reported_as_an_error(
    platform: Platform, use_model: UseModel, new_user: NewUser
) -> None:
    garbage = Raw(["{not json", '{"choices": [{"delta": {"tool_calls": [{"index": "x"}]}}]}', "[1, 2"])
    with ScriptedModel([garbage]) as model:
        use_model(model.url)
        api = await platform.start_api()
        await platform.start_runner()
        alice = await new_user(api.url)
        chat = Chat(await alice.create_session(), alice.token, lambda: api.url)
        ending = await chat.say("Hello")
        assert (ending.event, ending.data["code"]) == ("error", "llm_failed")


async def test_a_command_that_hangs_is_stopped_and_the_session_goes_on(
    platform: Platform, use_model: UseModel, new_user: NewUser
) -> None:
    hanging = using([report.shell("echo before; sleep 1000")])
    with ScriptedModel([*hanging[:2], Plan("Again", "Hello!", [])]) as model:
        use_model(model.url)
        api = await platform.start_api()
        await asyncio.gather(platform.start_runner(), platform.start_host())
        alice = await new_user(api.url)
        chat = Chat(await alice.create_session(), alice.token, lambda: api.url)
        stopping: list[asyncio.Task[object]] = []

        def on_frame(frame: Frame) -> None:
            if frame.data.get("status") == "calling":
                stopping.append(asyncio.create_task(alice.client.post(f"/api/sessions/{chat.session_id}/stop")))

        ending = await chat.say("Hang", on_frame=on_frame)
        assert ending.event == "done"
        assert chat.all("step")[-1]["status"] == "failed"
        assert (await chat.say("Hello")).event == "done"


async def test_a_command_may_print_a_hundred_megabytes(
    platform: Platform, use_model: UseModel, new_user: NewUser
) -> None:
    turns = using(
        [report.shell("head -c 100000000 /dev/zero | tr '\\0' x; echo; echo the end"), report.shell("echo 2")]
    )
    with ScriptedModel(turns) as model:
        use_model(model.url)
        api = await platform.start_api()
        await asyncio.gather(platform.start_runner(), platform.start_host())
        alice = await new_user(api.url)
        chat = Chat(await alice.create_session(), alice.token, lambda: api.url)
        assert (await chat.say("Print")).event == "done"
        first, second = chat.all("tool", status="called")
        assert len(str(first)) < 200_000
        assert "the end" in str(first)
        assert "2" in str(second["content"])
        assert max(len(str(request)) for request in model.requests) < 200_000


async def test_without_a_sandbox_the_run_waits_says_so_and_ends_in_words(
    platform: Platform, use_model: UseModel, new_user: NewUser
) -> None:
    turns = using([report.shell("echo hi")])
    platform.changes.update(sandbox_patience_seconds=2)
    with ScriptedModel(turns) as model:
        use_model(model.url)
        api = await platform.start_api()
        await platform.start_runner()
        alice = await new_user(api.url)
        chat = Chat(await alice.create_session(), alice.token, lambda: api.url)
        ending = await chat.say("Try")
        assert (ending.event, ending.data["code"]) == ("error", "sandbox_unavailable")
        assert "The sandbox host does not answer. What is finished is kept." in ending.data["error"]
        assert [event["phase"] for event in chat.all("sandbox")] == ["queued", "failed"]
        assert [step["status"] for step in chat.all("step")] == ["running", "failed"]
        body = {"filepath": "/etc/hostname"}
        answer = await alice.client.post(f"/api/sessions/{chat.session_id}/file", json=body)
        assert answer.status_code == 503


async def test_a_run_that_waited_for_a_sandbox_goes_on_when_it_gets_one(
    platform: Platform, use_model: UseModel, new_user: NewUser
) -> None:
    with ScriptedModel(using([report.shell("echo hi")])) as model:
        use_model(model.url)
        api = await platform.start_api()
        await platform.start_runner()
        alice = await new_user(api.url)
        chat = Chat(await alice.create_session(), alice.token, lambda: api.url)
        starting: list[asyncio.Task[object]] = []

        def on_frame(frame: Frame) -> None:
            if frame.event == "sandbox" and not starting:
                starting.append(asyncio.create_task(platform.start_host()))

        assert (await chat.say("Try", on_frame=on_frame)).event == "done"
        phases = [event["phase"] for event in chat.all("sandbox")]
        assert (phases[0], phases[-1]) == ("queued", "ready")
        assert [step["status"] for step in chat.all("step")] == ["running", "completed"]


async def test_files_of_a_step_are_stored_at_once_and_survive_the_end_of_the_sandbox(
    platform: Platform, use_model: UseModel, new_user: NewUser
) -> None:
    home = "/home/ubuntu/workspace"
    named = [f"{home}/a.txt", f"{home}/big.bin", home, f"{home}/none.txt"]
    turns: list[Turn] = [
        Plan("Files", "I make files.", ["Make", "Go on"]),
        report.shell(f"echo one > {home}/a.txt; truncate -s 200M {home}/big.bin"),
        Finish("made", attachments=named),
        Status(401),
    ]
    with ScriptedModel(turns) as model:
        use_model(model.url)
        api = await platform.start_api()
        await asyncio.gather(platform.start_runner(), platform.start_host())
        alice = await new_user(api.url)
        chat = Chat(await alice.create_session(), alice.token, lambda: api.url)
        assert (await chat.say("Make files")).event == "error"
        text = str(model.requests[-1]["messages"][-1]["content"])
        assert [path for path in named if f"- {path}: " in text] == named[1:]
        assert "200" in text
        assert str(platform.settings().upload_limit_bytes) in text
        (file,) = chat.all("message")[-1]["attachments"]
        content = await alice.client.get(f"/api/files/{file['id']}/download")
        assert content.text == "one\n"


async def test_a_new_message_reaches_the_active_run(platform: Platform, use_model: UseModel, new_user: NewUser) -> None:
    turns: list[Turn] = [
        Plan("Count", "I count.", ["Count"]),
        Hang(),
    ]
    answers: dict[int, Turn] = dict(enumerate(turns))

    def respond(request: dict[str, object]) -> Turn:
        said = str(request["messages"])
        if "only to three" in said:
            return Finish("counted") if wish(request) == "any" else Say("One, two, three.")
        return answers[min(sum("'role': 'assistant'" in part for part in said.split("{")), 1)]

    with ScriptedModel(respond) as model:
        use_model(model.url)
        api = await platform.start_api()
        await platform.start_runner()
        alice = await new_user(api.url)
        chat = Chat(await alice.create_session(), alice.token, lambda: api.url)
        first = asyncio.create_task(chat.say("Count"))
        await model.wait_for_requests(2)
        other = Chat(chat.session_id, alice.token, lambda: api.url)
        ending = await other.say("Count only to three")
        assert ending.event in ("done", "error")
        assert (await first).event == ending.event
        assert [message["message"] for message in chat.all("message", role="user")] == ["Count", "Count only to three"]


async def test_secrets_are_in_no_log(platform: Platform, use_model: UseModel, new_user: NewUser) -> None:
    with ScriptedModel(using([report.shell("env; echo hi"), Call("browser_view", {})])) as model:
        use_model(model.url)
        api = await platform.start_api()
        await asyncio.gather(platform.start_runner(), platform.start_host())
        alice = await new_user(api.url)
        chat = Chat(await alice.create_session(), alice.token, lambda: api.url)
        assert (await chat.say("Look around")).event == "done"
        await alice.client.get(f"/api/sessions/{chat.session_id}", params={"token": alice.token})
        settings = platform.settings()
        secrets = [
            alice.token,
            alice.refresh_token,
            settings.jwt_secret.get_secret_value(),
            settings.s3_secret_key.get_secret_value(),
            settings.llm_api_key.get_secret_value(),
            settings.database_url.get_secret_value(),
            settings.redis_url.get_secret_value(),
        ]
        everything = platform.logs() + str(chat.stored)
        assert [secret for secret in secrets if secret in everything] == []


@pytest.mark.parametrize("name", ["runner", "api"])
async def test_a_process_stops_on_request_and_its_work_goes_on(
    name: str, platform: Platform, use_model: UseModel, new_user: NewUser
) -> None:
    turns = using([report.shell("sleep 2; echo slept")])
    with ScriptedModel(turns) as model:
        use_model(model.url)
        apis = [await platform.start_api(), await platform.start_api()]
        runner, _ = await asyncio.gather(platform.start_runner(), platform.start_host())
        alice = await new_user(apis[0].url)
        chat = Chat(await alice.create_session(), alice.token, lambda: apis[0].url)
        ending_it: list[asyncio.Task[int]] = []

        async def end() -> int:
            if name == "runner":
                await platform.start_runner()
                return await runner.stop()
            leaving = apis.pop(0)
            return await leaving.stop()

        def on_frame(frame: Frame) -> None:
            if frame.data.get("status") == "calling" and not ending_it:
                ending_it.append(asyncio.create_task(end()))

        assert (await chat.say("Sleep", on_frame=on_frame)).event == "done"
        assert await ending_it[0] in (0, -15)
        assert [frame.data["seq"] for frame in chat.stored] == list(range(1, len(chat.stored) + 1))
