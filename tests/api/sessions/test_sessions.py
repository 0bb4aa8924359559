"""Sessions over HTTP: lists, details, and how streams end, resume and attach to a run.

A test plays the runner: it claims the run and records events with the real journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from moorage_api.events.schemas import ChatEvent, DoneEvent, ErrorEvent, MessageEvent, TitleEvent, WaitEvent
from moorage_api.runner.journal import RunJournal, open_journal
from moorage_api.runs import queue
from moorage_api.wiring.resources import Resources, open_resources
from support.accounts import Person, data
from support.sse import Frame, frames
from support.waiting import HANG_SECONDS, until


@pytest.fixture
async def resources(api: Any) -> AsyncIterator[Resources]:
    async with open_resources(api.settings, issuer="runner") as resources:
        yield resources


async def claim_run(resources: Resources, session_id: str) -> RunJournal:
    """Claim this session's run with a long lease. Runs of other tests on the same database are stopped."""
    while True:
        async with resources.db.begin() as tx:
            run = await queue.claim(tx, runner_lock=1, lease_seconds=600)
        assert run is not None
        if run.session_id == UUID(session_id):
            return await open_journal(resources.db, resources.hub, run)
        async with resources.db.begin() as tx:
            await tx.execute(text("UPDATE runs SET status = 'stopped' WHERE id = :id"), {"id": run.id})


async def play_events(resources: Resources, session_id: str, *events: ChatEvent) -> None:
    """Claim the session's queued run, mark all messages as read, and record `events`."""
    journal = await claim_run(resources, session_id)
    unread = await journal.unread_messages()
    await journal.record(*events, consumed_seq=unread[-1].seq)


@asynccontextmanager
async def open_chat(
    person: Person, session_id: str, body: Any = None, **headers: str
) -> AsyncIterator[AsyncIterator[Frame]]:
    sent: dict[str, Any] = {"headers": headers} if body is None else {"headers": headers, "json": body}
    async with (
        asyncio.timeout(HANG_SECONDS),
        person.client.stream("POST", f"/api/sessions/{session_id}/chat", **sent) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        yield frames(response)


async def read_frames(person: Person, session_id: str, body: Any = None, **headers: str) -> list[tuple[str, str]]:
    """Read a chat stream to its end; return (id, event) of every frame."""
    async with open_chat(person, session_id, body, **headers) as coming:
        return [(frame.id, frame.event) async for frame in coming]


async def say(person: Person, session_id: str, message: str = "hello") -> None:
    """Send a message and close the stream as soon as the message is in the log."""
    async with open_chat(person, session_id, {"message": message}) as coming:
        await anext(coming)


async def test_a_new_session_is_empty_and_pending(alice: Person) -> None:
    session = await alice.create_session()
    assert data(await alice.client.get(f"/api/sessions/{session}")) == {
        "session_id": session,
        "title": "",
        "status": "pending",
        "events": [],
    }
    assert data(await alice.client.get("/api/sessions"))["sessions"] == [
        {
            "session_id": session,
            "title": "",
            "latest_message": "",
            "latest_message_at": None,
            "status": "pending",
            "unread_message_count": 0,
        }
    ]


async def test_the_first_frame_needs_no_runner(alice: Person) -> None:
    session = await alice.create_session()
    async with open_chat(alice, session, {"message": "hello", "timestamp": 1}) as coming:
        frame = await anext(coming)
    assert (frame.id, frame.event) == ("1", "message")
    assert {key: frame.data[key] for key in ("role", "message", "seq", "event_id", "partial")} == {
        "role": "user",
        "message": "hello",
        "seq": 1,
        "event_id": "1",
        "partial": False,
    }
    assert isinstance(frame.data["created_at"], int)


async def test_a_chat_stream_ends_after_the_event_that_ends_the_turn(alice: Person, resources: Resources) -> None:
    endings: list[ChatEvent] = [DoneEvent(), WaitEvent(), ErrorEvent(error="no", code="x")]
    for number, ending in enumerate(endings):
        session = await alice.create_session()
        following = asyncio.create_task(read_frames(alice, session, {"message": "go"}))
        while not data(await alice.client.get(f"/api/sessions/{session}"))["events"]:
            await asyncio.sleep(0.02)
        await play_events(resources, session, TitleEvent(title=f"t{number}"), ending)
        assert await following == [("1", "message"), ("2", "title"), ("3", ending.type)]
        listed = data(await alice.client.get("/api/sessions"))["sessions"]
        (item,) = (item for item in listed if item["session_id"] == session)
        assert item["status"] == ("waiting" if ending.type == "wait" else "completed")
        assert item["title"] == f"t{number}"
        assert item["latest_message_at"].endswith("Z")


async def test_a_chat_without_a_message_streams_the_last_run_from_any_cursor(
    alice: Person, resources: Resources
) -> None:
    session = await alice.create_session()
    for _ in range(2):
        await say(alice, session)
        await play_events(
            resources, session, TitleEvent(title="t"), MessageEvent(role="assistant", message="hi"), DoneEvent()
        )
    whole = [("5", "message"), ("6", "title"), ("7", "message"), ("8", "done")]
    assert await read_frames(alice, session) == whole
    assert await read_frames(alice, session, {}) == whole
    assert await read_frames(alice, session, {"message": ""}) == whole
    assert await read_frames(alice, session, {"event_id": "6"}) == whole[2:]
    assert await read_frames(alice, session, **{"Last-Event-ID": "7"}) == whole[3:]
    assert await read_frames(alice, session, {"event_id": "8"}) == []
    assert len(await read_frames(alice, session, {"event_id": "2"})) == 6
    for unknown in ("999", "nonsense", "-1", "9" * 50, "1.5"):
        assert await read_frames(alice, session, {"event_id": unknown}) == whole


async def test_a_message_with_a_cursor_streams_the_missed_events_first(alice: Person, resources: Resources) -> None:
    session = await alice.create_session()
    await say(alice, session)
    await play_events(resources, session, TitleEvent(title="t"), DoneEvent())
    async with open_chat(alice, session, {"message": "more", "event_id": "1"}) as coming:
        seen = [(frame := await anext(coming)).event for _ in range(3)]
    assert (seen, frame.data["message"]) == (["title", "done", "message"], "more")


async def test_a_session_without_a_run_has_an_empty_stream(alice: Person) -> None:
    assert await read_frames(alice, await alice.create_session()) == []


async def test_details_are_paged(alice: Person, resources: Resources) -> None:
    session = await alice.create_session()
    await say(alice, session)
    await play_events(resources, session, *[TitleEvent(title=str(number)) for number in range(8)], DoneEvent())

    async def seqs(**query: int) -> list[int]:
        answer = await alice.client.get(f"/api/sessions/{session}", params=query)
        return [event["data"]["seq"] for event in data(answer)["events"]]

    assert await seqs() == list(range(1, 11))
    assert await seqs(since_seq=4, limit=3) == [5, 6, 7]
    assert await seqs(since_seq=10) == []
    for bad in ({"since_seq": -1}, {"limit": 0}, {"limit": 10**9}):
        assert (await alice.client.get(f"/api/sessions/{session}", params=bad)).status_code == 422


async def test_messages_count_as_unread_while_no_client_streams_the_session(
    alice: Person, resources: Resources
) -> None:
    session = await alice.create_session()

    async def unread() -> int:
        (item,) = data(await alice.client.get("/api/sessions"))["sessions"]
        return int(item["unread_message_count"])

    await say(alice, session)

    async def is_closed() -> bool:
        return not await resources.hub.is_watched(UUID(session))

    await until(is_closed, "the hub notices that the stream was closed")
    await play_events(resources, session, MessageEvent(role="assistant", message="one"), WaitEvent())
    assert await unread() == 2
    data(await alice.client.post(f"/api/sessions/{session}/clear-unread-message-count"))
    assert await unread() == 0
    async with open_chat(alice, session, {"message": "again"}) as coming:
        await anext(coming)
        await play_events(resources, session, MessageEvent(role="assistant", message="two"), DoneEvent())
        assert [frame.event async for frame in coming] == ["message", "done"]
    assert await unread() == 0


async def test_the_list_stream_sends_the_list_at_once_and_on_each_change(alice: Person, bob: Person) -> None:
    async with asyncio.timeout(HANG_SECONDS), alice.client.stream("POST", "/api/sessions/stream") as response:
        coming = frames(response)
        first = await anext(coming)
        assert (first.event, first.data) == ("sessions", {"sessions": []})
        await bob.create_session()
        session = await alice.create_session()
        second = await anext(coming)
        assert [item["session_id"] for item in second.data["sessions"]] == [session]
        await say(alice, session, "news")
        third = await anext(coming)
        while third.data["sessions"][0]["latest_message"] != "news":
            third = await anext(coming)
        data(await alice.client.post(f"/api/sessions/{session}/delete"))
        while (await anext(coming)).data["sessions"]:
            continue


async def test_a_stream_of_a_deleted_session_ends(alice: Person) -> None:
    session = await alice.create_session()
    async with open_chat(alice, session, {"message": "hello"}) as coming:
        await anext(coming)
        data(await alice.client.post(f"/api/sessions/{session}/delete"))
        assert [frame.event async for frame in coming] == []
    assert (await alice.client.post(f"/api/sessions/{session}/delete")).status_code == 404


async def test_a_banned_users_open_streams_end(api: Any, alice: Person) -> None:
    session = await alice.create_session()
    async with (
        open_chat(alice, session, {"message": "hello"}) as coming,
        alice.client.stream("POST", "/api/sessions/stream") as listing,
    ):
        await anext(coming)
        listed = frames(listing)
        await anext(listed)
        await api.set_status(alice, "banned")
        async with asyncio.timeout(HANG_SECONDS):
            assert [frame.event async for frame in coming] == []
            with suppress(StopAsyncIteration):
                while True:
                    await anext(listed)


@pytest.mark.parametrize("event_id", ["no cursor", "x" * 5000, "\u00b2", "-1", 5, 1.5, 10**15, None])
async def test_an_unknown_cursor_is_ignored(alice: Person, event_id: Any) -> None:
    session = await alice.create_session()
    body = {"message": None, "attachments": None, "event_id": event_id, "timestamp": None}
    assert (await alice.client.post(f"/api/sessions/{session}/chat", json=body)).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 422),
        (b"[]", 422),
        (b'"hello"', 422),
        (b'{"message": 1}', 422),
        (b'{"message": "a\\u0000b"}', 422),
        (b'{"message": "\\ud800"}', 422),
        (b'{"message": "' + b"x" * 100_001 + b'"}', 422),
        (b'{"message": "m", "attachments": ["x"]}', 422),
        (b'{"message": "m", "attachments": ["0192f0c1-2f4e-7d3a-9c55-6b7d8e9f0a1b"]}', 404),
        (b"\xff\xfe", 422),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_an_invalid_chat_body_is_refused_and_nothing_is_stored(alice: Person, body: bytes, status: int) -> None:
    session = await alice.create_session()
    headers = {"Content-Type": "application/json"}
    answer: httpx.Response = await alice.client.post(f"/api/sessions/{session}/chat", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, status)
    assert data(await alice.client.get(f"/api/sessions/{session}"))["events"] == []


async def test_stopping_an_idle_session_succeeds(alice: Person) -> None:
    session = await alice.create_session()
    assert data(await alice.client.post(f"/api/sessions/{session}/stop")) is None
