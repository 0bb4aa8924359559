"""A user uploads a CSV, asks for a chart and a report, and gets both while watching."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import Any

from PIL import Image

from support import report
from support.accounts import Person, data
from support.llm import ScriptedModel
from support.processes import Platform
from support.sse import Chat


async def test_a_csv_becomes_a_chart_and_a_report(
    platform: Platform, use_model: Callable[[str], None], new_user: Callable[[str], Awaitable[Person]]
) -> None:
    with ScriptedModel(report.script(), chunk_chars=20, chunk_delay_seconds=0.03) as model:
        use_model(model.url)
        api, other_api = await asyncio.gather(platform.start_api(), platform.start_api())
        await asyncio.gather(platform.start_runner(), platform.start_runner(), platform.start_host())
        alice = await new_user(api.url)
        uploaded = await alice.upload("sales.csv", report.CSV.encode(), "text/csv")
        session = await alice.create_session()
        watcher = report.Watcher(alice, url=other_api.url, session_id=session)
        chat = Chat(session, alice.token, lambda: api.url)
        ending = await chat.say(
            "Make a chart and a short report", attachments=[uploaded["id"]], on_frame=watcher.on_frame
        )

        assert ending.event == "done", ending.data
        assert await watcher.red_share() > 0.5
        check_order(chat)
        await check_files(alice, chat)
        await check_what_can_be_read(alice, chat, model)
        await check_the_list(alice, session)
        data(await alice.client.post(f"/api/sessions/{session}/delete"))
        assert (await alice.client.get(f"/api/sessions/{session}")).status_code == 404


def check_order(chat: Chat) -> None:
    """Source: the wire document, "Fresh chat, in order"."""
    tool = ["tool", "tool"]
    assert [kind for kind in chat.types() if kind != "sandbox"] == [
        *("message", "title", "message", "plan"),
        *("step", *tool, "step"),
        *("step", *tool * 4, "step"),
        *("step", *tool * 2, "step"),
        *("message", "plan", "done"),
    ]
    assert [frame.data["seq"] for frame in chat.stored] == list(range(1, len(chat.stored) + 1))
    assert [frame.data["phase"] for frame in chat.stored if frame.event == "sandbox"] == ["starting", "ready"]
    assert chat.all("title")[0]["title"] == "Sales report"
    assert {step["status"] for step in chat.all("plan")[-1]["steps"]} == {"completed"}
    final = chat.all("message", role="assistant")[-1]["stream_id"]
    assert any(frame.data["stream_id"] == final and frame.data["partial"] for frame in chat.partials)


async def check_files(alice: Any, chat: Chat) -> None:
    listed = data(await alice.client.get(f"/api/sessions/{chat.session_id}/files"))["files"]
    by_path = {file["filepath"]: file for file in listed}
    assert set(by_path) == {report.UPLOADED, report.CHART, report.REPORT}
    attached = chat.all("message", role="assistant")[-1]["attachments"]
    assert {file["filepath"] for file in attached} == {report.CHART, report.REPORT}
    chart = await alice.client.get(f"/api/files/{by_path[report.CHART]['id']}/download")
    image = Image.open(io.BytesIO(chart.content))
    assert (image.format, image.size) == ("PNG", (800, 500))
    assert len(image.convert("RGB").getcolors(2**24) or []) > 10
    text = await alice.client.get(f"/api/files/{by_path[report.REPORT]['id']}/download")
    assert text.text == f"# Revenue\n\nThe total is {report.TOTAL}.\n"


async def check_what_can_be_read(alice: Any, chat: Chat, model: ScriptedModel) -> None:
    path = f"/api/sessions/{chat.session_id}"
    ran = data(await alice.client.post(f"{path}/file", json={"filepath": "/home/ubuntu/workspace/ran.log"}))
    assert ran["content"].split() == report.MARKS
    shown = data(await alice.client.post(f"{path}/shell", json={"session_id": "main"}))
    assert f"total {report.TOTAL}" in shown["output"]
    assert "python3 chart.py" in " ".join(record["command"] for record in shown["console_records"])
    assert (await alice.client.post(f"{path}/shell", json={"session_id": "other"})).status_code == 404
    assert (await alice.client.post(f"{path}/file", json={"filepath": "/nowhere"})).status_code == 404
    navigated = chat.all("tool", function="browser_navigate", status="called")[0]
    link = navigated["content"]["screenshot"]
    picture = await alice.client.get(link, headers={"Authorization": ""})
    assert Image.open(io.BytesIO(picture.content)).format == "PNG"
    assert (await alice.client.get(link.replace("expires=", "expires=9"))).status_code == 403
    detail = data(await alice.client.get(path))
    assert [event["event"] for event in detail["events"]] == chat.types()
    assert any(report.UPLOADED in str(message) for message in model.requests[0]["messages"])


async def check_the_list(alice: Any, session: str) -> None:
    (listed,) = data(await alice.client.get("/api/sessions"))["sessions"]
    assert (listed["session_id"], listed["title"], listed["status"]) == (session, "Sales report", "completed")
    assert str(report.TOTAL) in listed["latest_message"]
    assert listed["unread_message_count"] == 0
