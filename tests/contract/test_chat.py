"""Chats: the order and the format of events, resuming, and the results of a run."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from contract.peers import FINAL, LONG, MADE, MCP_TOOL, QUESTION, Peers, saying
from contract.server import Caller, ServerUnderTest, Turn, name, until
from contract.spec import proves
from contract.watch import Watch

FILE_INFO = {"id", "filename", "filepath", "key", "extension", "mime_type", "size"}
TOOLKITS = {"file", "shell", "browser", "search", "message", "mcp", "a2a", "skill"}
STATUSES = {"pending", "running", "completed", "failed"}
PHASES = {"queued", "starting", "ready", "suspended", "resuming", "failed"}


@pytest.fixture(scope="module")
def user(server: ServerUnderTest, peers: Peers) -> Caller:
    return server.register()


@pytest.fixture(scope="module")
def working_turn(user: Caller) -> tuple[str, Turn]:
    """A session in which the agent used the shell and files, and the content of its stream."""
    session = user.new_session()
    file = user.upload("data.csv", b"a,b\n1,2\n", "text/csv")
    return session, user.chat(session, saying("work"), attachments=[file["id"]])


@pytest.fixture(scope="module")
def greeting_turn(user: Caller) -> tuple[str, Turn]:
    """A session in which the model only sent a long and slow answer, and the content of its stream."""
    session = user.new_session()
    return session, user.chat(session, saying("long"))


@proves("POST /api/sessions/{session_id}/chat: success", "sse.order", "sse.ends")
def test_the_events_of_a_new_chat_are_in_order(working_turn: tuple[str, Turn]) -> None:
    _, turn = working_turn
    types = [kind for kind in turn.types() if kind != "sandbox"]
    assert types[:4] == ["message", "title", "message", "plan"]
    assert types[-3:] == ["message", "plan", "done"]
    middle = " ".join(types[4:-3])
    assert re.fullmatch(r"step( tool)+( message)? step", middle), middle
    first, second, *_, last = turn.all("message")
    assert (first["role"], second["role"], last["role"]) == ("user", "assistant", "assistant")
    assert last["message"] == FINAL
    assert turn.ending.event == "done"


@proves("sse.frame", "sse.data")
def test_every_frame_has_a_cursor_a_type_and_json(
    working_turn: tuple[str, Turn], greeting_turn: tuple[str, Turn]
) -> None:
    for _, turn in (working_turn, greeting_turn):
        for frame in turn.frames:
            assert frame.id
            assert frame.data["event_id"] == frame.id
            assert type(frame.data["created_at"]) is int
            assert [line.partition(":")[0] for line in frame.text.splitlines()] == ["id", "event", "data"]
        assert [frame.data["seq"] for frame in turn.stored] == list(range(1, len(turn.stored) + 1))


@proves("sse.heartbeat")
@pytest.mark.parametrize("stream", ["quiet_stream", "quiet_chat"])
def test_an_idle_stream_has_a_heartbeat_every_fifteen_seconds(request: pytest.FixtureRequest, stream: str) -> None:
    watch: Watch = request.getfixturevalue(stream)
    comments = watch.wait_for_comments(1)
    assert comments[0].text.startswith(":")
    before = [frame for frame in watch.frames[: watch.frames.index(comments[0])] if frame.event]
    assert comments[0].at - before[-1].at < 30, "a heartbeat is due after 15 s; a busy machine may be late"


@proves("sse.partial", "sse.partial-rate")
def test_an_answer_is_streamed_in_growing_parts(greeting_turn: tuple[str, Turn]) -> None:
    _, turn = greeting_turn
    final = turn.all("message", role="assistant")[-1]
    assert final["message"].strip() == LONG.strip()
    assert final["partial"] is False
    partial = [frame for frame in turn.partial if frame.data["stream_id"] == final["stream_id"]]
    assert len(partial) > 3
    last_id, texts = "", []
    for frame in turn.frames:
        if frame.is_partial:
            assert (frame.event, frame.data["role"], frame.id) == ("message", "assistant", last_id)
            assert "seq" not in frame.data
            texts.append(frame.data["message"])
        else:
            last_id = frame.id
    assert all(later.startswith(earlier) for earlier, later in zip(texts, [*texts[1:], LONG], strict=True))
    assert len(partial) <= 10 * (partial[-1].at - turn.began) + 2, "ten a second, from when the message was sent"


@proves("sse.message", "chat.attachments")
def test_messages_carry_their_files(user: Caller, working_turn: tuple[str, Turn]) -> None:
    session, turn = working_turn
    question, *_, answer = turn.all("message")
    (given,) = question["attachments"]
    (made,) = answer["attachments"]
    for file in (given, made):
        assert set(file) >= FILE_INFO
    assert (given["filename"], made["filepath"]) == ("data.csv", MADE)
    listed = {file["id"] for file in user.get(f"/api/sessions/{session}/files")["files"]}
    assert listed == {given["id"], made["id"]}
    assert user.send("GET", f"/api/files/{made['id']}/download").content == b"made by the contract\n"


@proves("sse.title", "sse.plan", "sse.step")
def test_a_plan_its_title_and_its_steps(working_turn: tuple[str, Turn]) -> None:
    _, turn = working_turn
    assert turn.all("title")[0]["title"] == "Contract"
    first, *_, last = turn.all("plan")
    for plan in (first, last):
        assert all(set(step) >= {"id", "description", "status"} for step in plan["steps"])
        assert {step["status"] for step in plan["steps"]} <= STATUSES
    assert [step["description"] for step in first["steps"]] == ["Do what is asked"]
    assert {step["status"] for step in last["steps"]} == {"completed"}
    steps = turn.all("step")
    assert [step["status"] for step in steps] == ["running", "completed"]
    assert {(step["id"], step["description"]) for step in steps} == {(first["steps"][0]["id"], "Do what is asked")}


@proves("sse.tool", "functions.unique-ids")
def test_a_tool_is_called_and_has_been_called(working_turn: tuple[str, Turn]) -> None:
    _, turn = working_turn
    calling, called = turn.all("tool", status="calling"), turn.all("tool", status="called")
    assert [(tool["name"], tool["function"]) for tool in called if tool["name"] != "message"] == [
        ("shell", "shell_execute"),
        ("file", "write_file"),
        ("file", "read_file"),
    ]
    ids = [tool["tool_call_id"] for tool in calling]
    assert ids == [tool["tool_call_id"] for tool in called]
    assert len(set(ids)) == len(ids)
    assert called[0]["args"]["command"] == calling[0]["args"]["command"] == "echo contract-$((6 * 7))"
    assert "contract-42" in str(called[0]["content"]["console"])
    assert called[2]["content"]["content"].strip() == "made by the contract"
    assert {tool["name"] for tool in called} <= TOOLKITS


@proves("sse.sandbox", "sse.first-frame")
def test_the_start_of_a_sandbox_is_reported(working_turn: tuple[str, Turn]) -> None:
    _, turn = working_turn
    phases = turn.all("sandbox")
    assert {event["phase"] for event in phases} <= PHASES
    assert all(isinstance(event["reason"], str) for event in phases)
    assert phases[-1]["phase"] == "ready"
    ready = next(frame for frame in turn.stored if frame.data.get("phase") == "ready")
    assert turn.frames[0].event == "message"
    assert turn.frames[0].at < ready.at


@proves("sse.detail", "GET /api/sessions/{session_id}: success")
def test_the_detail_has_the_streamed_events_and_can_be_paged(user: Caller, working_turn: tuple[str, Turn]) -> None:
    session, turn = working_turn
    detail = user.get(f"/api/sessions/{session}")
    assert detail["status"] == "completed"
    assert [event["event"] for event in detail["events"]] == turn.types()
    assert [event["data"]["seq"] for event in detail["events"]] == [frame.data["seq"] for frame in turn.stored]
    assert detail["events"][0]["data"]["message"] == saying("work")
    page = user.get(f"/api/sessions/{session}", params={"since_seq": 2, "limit": 3})["events"]
    assert page == detail["events"][2:5]


@proves("POST /api/sessions/{session_id}/file: success", "POST /api/sessions/{session_id}/shell: success")
def test_the_sandbox_is_read_by_its_owner_and_admins(
    user: Caller, admin: Caller, working_turn: tuple[str, Turn]
) -> None:
    path = f"/api/sessions/{working_turn[0]}"
    for reader in (user, admin):
        assert reader.post(f"{path}/file", json={"filepath": MADE}) == {
            "filepath": MADE,
            "content": "made by the contract\n",
        }
        view = reader.post(f"{path}/shell", json={"session_id": "main"})
        assert view["session_id"] == "main"
        assert "contract-42" in view["output"]
        assert all(set(record) >= {"ps1", "command", "output"} for record in view["console_records"])
        assert any("echo contract" in record["command"] for record in view["console_records"])


@proves("POST /api/sessions/{session_id}/file: 404", "POST /api/sessions/{session_id}/shell: 404")
def test_an_unknown_file_or_shell_of_the_sandbox_is_a_404(user: Caller, working_turn: tuple[str, Turn]) -> None:
    path = f"/api/sessions/{working_turn[0]}"
    user.ask("POST", f"{path}/file", json={"filepath": "/nowhere/at/all"}, expect=404)
    user.ask("POST", f"{path}/shell", json={"session_id": "no-such-shell"}, expect=404)


@proves("session.status", "session.time")
def test_the_list_shows_how_a_run_ended(user: Caller, working_turn: tuple[str, Turn]) -> None:
    (item,) = [item for item in user.get("/api/sessions")["sessions"] if item["session_id"] == working_turn[0]]
    assert (item["title"], item["latest_message"], item["status"]) == ("Contract", FINAL, "completed")
    at = datetime.fromisoformat(item["latest_message_at"].replace("Z", "+00:00"))
    assert at.utcoffset() == timedelta(0)


@proves("session.unread", "POST /api/sessions/{session_id}/clear-unread-message-count: success")
def test_the_unread_count_grows_while_no_client_follows(user: Caller) -> None:
    session = user.new_session()

    def item() -> dict[str, Any]:
        return next(item for item in user.get("/api/sessions")["sessions"] if item["session_id"] == session)

    with Watch(user, f"/api/sessions/{session}/chat", json={"message": saying("long")}) as watch:
        watch.wait_for_events(1)
    until(lambda: item()["status"] == "completed", "the run ends unheard")
    until(lambda: item()["unread_message_count"] == 1, "one message is unread")
    assert user.post(f"/api/sessions/{session}/clear-unread-message-count") is None
    assert item()["unread_message_count"] == 0


@proves("session.unread-kinds")
def test_a_question_counts_as_unread_and_followed_messages_do_not(user: Caller) -> None:
    session = user.new_session()

    def item() -> dict[str, Any]:
        return next(item for item in user.get("/api/sessions")["sessions"] if item["session_id"] == session)

    assert user.chat(session, saying("hello"), timestamp=1_700_000_000).ending.event == "done"
    assert item()["unread_message_count"] == 0
    with Watch(user, f"/api/sessions/{session}/chat", json={"message": saying("slow-ask")}) as watch:
        watch.wait_for_events(1)
    until(lambda: item()["status"] == "waiting", "the question is asked unheard")
    events = user.get(f"/api/sessions/{session}", params={"since_seq": watch.events[0].data["seq"]})["events"]
    answers = [event for event in events if event["event"] == "message" and event["data"]["role"] == "assistant"]
    counted = item()["unread_message_count"]
    assert 1 < counted <= len(answers) + 1, "the question and the wait at least; the wait is one"
    follow = user.chat(session)
    assert follow.ending.event == "wait"


@proves("session.list-changes")
def test_the_lists_stream_follows_a_run(server: ServerUnderTest, user: Caller) -> None:
    watcher = server.with_token(user.token)
    session = user.new_session()
    with Watch(watcher) as watch:
        watch.wait_for_events(1)
        assert user.chat(session, saying("slow-ask")).ending.event == "wait"

        def list_items() -> list[dict[str, Any]]:
            lists = [frame.data["sessions"] for frame in watch.events]
            return [item for items in lists for item in items if item["session_id"] == session]

        until(lambda: list_items()[-1]["status"] == "waiting", "the list tells of the question")
        assert "running" in [item["status"] for item in list_items()]
        assert (list_items()[-1]["title"], list_items()[-1]["latest_message"]) == ("Contract", QUESTION)
        before = len(watch.events)
        user.post(f"/api/sessions/{session}/delete")
        assert session not in str(watch.wait_for_events(before + 1)[-1].data)


@proves("chat.attach-running", "chat.resume")
def test_a_chat_without_a_message_follows_the_active_run(user: Caller) -> None:
    session = user.new_session()
    with Watch(user, f"/api/sessions/{session}/chat", json={"message": saying("long")}) as first:
        first.wait_for_events(1)
        cursor = first.events[0].id
        second, third = user.chat(session), user.chat(session, event_id=cursor)
        first.wait_until_ended()
    stored = [frame.data for frame in first.events if "seq" in frame.data]
    assert [frame.data for frame in second.stored] == stored
    assert [frame.data for frame in third.stored] == stored[1:]
    assert second.ending.event == "done"


@proves("session.any-path")
def test_every_file_that_the_box_user_can_read_is_readable(user: Caller, working_turn: tuple[str, Turn]) -> None:
    path = f"/api/sessions/{working_turn[0]}/file"
    assert "root:" in user.post(path, json={"filepath": "/etc/passwd"})["content"]
    for closed in ("/etc/shadow", "/home/ubuntu", ""):
        answer = user.send("POST", path, json={"filepath": closed})
        assert answer.status_code in (400, 403, 404, 422), (closed, answer.text)


@proves("chat.attach", "sse.ends")
def test_a_chat_without_a_message_follows_the_last_run(user: Caller, greeting_turn: tuple[str, Turn]) -> None:
    session, turn = greeting_turn
    assert [frame.data for frame in user.chat(session).stored] == [frame.data for frame in turn.stored]


@proves("chat.resume")
@pytest.mark.parametrize("how", ["event_id", "Last-Event-ID"])
def test_a_chat_resumes_after_the_cursor(user: Caller, greeting_turn: tuple[str, Turn], how: str) -> None:
    session, turn = greeting_turn
    seen = turn.stored[1].id
    resumed = user.chat(session, **({"event_id": seen} if how == "event_id" else {"headers": {how: seen}}))
    assert [frame.id for frame in resumed.stored] == [frame.id for frame in turn.stored[2:]]


@proves("chat.unknown-event-id")
@pytest.mark.parametrize("cursor", ["999999999", "no-cursor-of-yours", "-1"])
def test_an_unknown_cursor_starts_at_this_run(user: Caller, greeting_turn: tuple[str, Turn], cursor: str) -> None:
    session, turn = greeting_turn
    assert [frame.id for frame in user.chat(session, event_id=cursor).stored] == [frame.id for frame in turn.stored]


@proves("chat.catch-up")
def test_a_message_with_a_cursor_first_delivers_missed_events(user: Caller) -> None:
    session = user.new_session()
    first = user.chat(session, saying("hello"))
    second = user.chat(session, saying("hello", "Once more."), event_id=first.stored[0].id)
    seqs = [frame.data["seq"] for frame in second.stored]
    assert seqs == list(range(2, seqs[-1] + 1))
    assert seqs[-1] > len(first.stored)
    third = user.chat(session, saying("hello", "And again."))
    assert third.stored[0].data["message"] == saying("hello", "And again.")


@proves("sse.wait", "session.status")
def test_a_question_waits_for_its_answer(user: Caller) -> None:
    session = user.new_session()
    asked = user.chat(session, saying("ask"))
    assert asked.ending.event == "wait"
    assert QUESTION in str([frame.data for frame in asked.stored])
    assert user.get(f"/api/sessions/{session}")["status"] == "waiting"
    answered = user.chat(session, "Red, please.")
    assert answered.ending.event == "done"
    assert user.get(f"/api/sessions/{session}")["status"] == "completed"


@proves("sse.error", "sse.ends")
def test_an_error_of_the_model_is_reported(user: Caller) -> None:
    session = user.new_session()
    turn = user.chat(session, saying("refuse"))
    assert turn.ending.event == "error"
    assert turn.ending.data["error"]
    assert turn.ending.data["code"]
    assert "sk-contract-key" not in str([frame.text for frame in turn.frames])
    assert user.get(f"/api/sessions/{session}")["status"] == "completed"
    assert user.chat(session, saying("hello")).ending.event == "done"


@proves("chat.stop", "POST /api/sessions/{session_id}/stop: success")
@pytest.mark.parametrize("by", ["owner", "admin"])
def test_a_stopped_run_ends_its_streams(user: Caller, admin: Caller, by: str) -> None:
    session = user.new_session()
    with Watch(user, f"/api/sessions/{session}/chat", json={"message": saying("hang")}) as watch:
        watch.wait_for_events(1)
        assert user.get(f"/api/sessions/{session}")["status"] == "running"
        (user if by == "owner" else admin).post(f"/api/sessions/{session}/stop")
        watch.wait_until_ended()
        assert watch.events[-1].event in ("done", "error")
    assert user.get(f"/api/sessions/{session}")["status"] == "completed"


@proves("sse.screenshot")
def test_a_screenshot_loads_without_headers(user: Caller, nobody: Caller) -> None:
    turn = user.chat(user.new_session(), saying("look"))
    assert turn.ending.event == "done"
    (seen,) = turn.all("tool", function="browser_navigate", status="called")
    link = seen["content"]["screenshot"]
    if link.startswith("data:"):
        assert link.startswith("data:image/")
    else:
        picture = nobody.send("GET", link)
        assert picture.status_code == 200
        assert picture.headers["content-type"].startswith("image/")


FUNCTIONS = {
    "shell_execute": "session_id exec_dir command",
    "shell_read_output": "session_id",
    "shell_wait_process": "session_id seconds?",
    "shell_write_input": "session_id input_text press_enter",
    "shell_kill_process": "session_id",
    "read_file": "filepath start_line? end_line? max_length?",
    "write_file": "filepath content append? leading_newline? trailing_newline?",
    "replace_in_file": "filepath old_str new_str",
    "search_in_file": "filepath regex",
    "find_files": "dir_path glob_pattern",
    "browser_view": "",
    "browser_navigate": "url",
    "browser_restart": "url",
    "browser_click": "index? coordinate_x? coordinate_y?",
    "browser_input": "text press_enter index? coordinate_x? coordinate_y?",
    "browser_move_mouse": "coordinate_x coordinate_y",
    "browser_press_key": "key",
    "browser_select_option": "index option",
    "browser_scroll_up": "to_top?",
    "browser_scroll_down": "to_bottom?",
    "browser_console_exec": "javascript",
    "browser_console_view": "max_lines?",
    "search_web": "query date_range?",
    "message_notify_user": "text",
    "message_ask_user": "text attachments? suggest_user_takeover?",
}
"""The functions in the contract with their parameters. `?` marks an optional one."""


@proves("functions.offered")
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_is_offered_with_its_parameters(peers: Peers, working_turn: tuple[str, Turn], function: str) -> None:
    parameters = peers.offered_functions()[function]
    properties = parameters.get("properties", {})
    wanted = FUNCTIONS[function].split()
    assert set(properties) == {parameter.rstrip("?") for parameter in wanted}
    assert set(parameters.get("required", [])) == {parameter for parameter in wanted if not parameter.endswith("?")}


@proves("mcp.tool", "mcp.secrets", "tools.preference")
def test_a_servers_tool_is_offered_called_and_shown(
    server: ServerUnderTest, admin: Caller, user: Caller, peers: Peers
) -> None:
    offered = name("mcp").replace("-", "_")
    function = f"mcp_{offered}_{MCP_TOOL}"
    secret = name("secret")
    entry = {"url": f"{peers.url}/mcp", "headers": {"X-Contract": secret}}
    admin.post("/api/app-config/mcp-servers", json={"mcpServers": {offered: entry}})
    try:
        peers.scripts["mcp"] = [(function, {"text": "hello there"})]
        turn = user.chat(user.new_session(), saying("mcp"))
        assert turn.ending.event == "done"
        (called,) = turn.all("tool", name="mcp", status="called")
        assert (called["function"], called["args"]) == (function, {"text": "hello there"})
        assert "echo: hello there" in str(called["content"]["result"])
        assert peers.mcp_calls[-1]["arguments"] == {"text": "hello there"}
        assert secret in peers.mcp_headers
        for reader in (admin, user, server.nobody()):
            assert secret not in str(reader.get("/api/app-config/mcp-servers"))
        user.post(f"/api/user/tools/mcp/{offered}/enabled", json={"enabled": False})
        calls = len(peers.mcp_calls)
        user.chat(user.new_session(), saying("mcp"))
        assert len(peers.mcp_calls) == calls
        assert server.register().get("/api/user/tools/mcp")["tools"]
    finally:
        admin.post(f"/api/app-config/mcp-servers/{offered}/delete")
