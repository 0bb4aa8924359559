"""Sessions without a run, their list and its stream."""

from __future__ import annotations

import pytest

from contract.server import Caller, ServerUnderTest
from contract.spec import proves
from contract.watch import Watch

ITEM = {"session_id", "title", "latest_message", "latest_message_at", "status", "unread_message_count"}


@proves("POST /api/sessions: success", "GET /api/sessions/{session_id}: success", "session.status")
def test_a_new_session_is_pending_and_empty(alice: Caller, admin: Caller) -> None:
    session = alice.new_session()
    for reader in (alice, admin):
        detail = reader.get(f"/api/sessions/{session}")
        assert set(detail) >= {"session_id", "title", "status", "events"}
        assert (detail["session_id"], detail["status"], detail["events"]) == (session, "pending", [])


@proves("GET /api/sessions: success")
def test_the_list_has_the_users_own_sessions_and_on_request_all_for_admins(
    server: ServerUnderTest, admin: Caller
) -> None:
    user, other = server.register(), server.register()
    mine, theirs = {user.new_session(), user.new_session()}, {other.new_session()}
    listed = user.get("/api/sessions")["sessions"]
    assert {item["session_id"] for item in listed} == mine
    assert all(set(item) >= ITEM for item in listed)
    assert {(item["status"], item["unread_message_count"], item["latest_message_at"]) for item in listed} == {
        ("pending", 0, None)
    }
    assert not mine & {item["session_id"] for item in admin.get("/api/sessions")["sessions"]}
    everyone = {item["session_id"] for item in admin.get("/api/sessions", params={"scope": "all"})["sessions"]}
    assert mine | theirs <= everyone
    asked = user.send("GET", "/api/sessions", params={"scope": "all"})
    if asked.status_code == 200:
        assert {item["session_id"] for item in asked.json()["data"]["sessions"]} == mine
    else:
        assert asked.status_code == 403


@proves("POST /api/sessions/stream: success")
def test_the_list_is_streamed_immediately_and_after_each_change(server: ServerUnderTest) -> None:
    user = server.register()
    first = user.new_session()
    with Watch(user) as watch:
        (frame,) = watch.wait_for_events(1)
        assert frame.event == "sessions"
        assert [item["session_id"] for item in frame.data["sessions"]] == [first]
        assert all(set(item) >= ITEM for item in frame.data["sessions"])
        second = user.new_session()
        frame = watch.wait_for_events(2)[-1]
        assert {item["session_id"] for item in frame.data["sessions"]} == {first, second}
        user.post(f"/api/sessions/{first}/delete")
        frame = watch.wait_for_events(3)[-1]
        assert [item["session_id"] for item in frame.data["sessions"]] == [second]


@proves("POST /api/sessions/{session_id}/stop: success")
@pytest.mark.parametrize("by", ["owner", "admin"])
def test_an_idle_session_can_be_stopped(alice: Caller, admin: Caller, by: str) -> None:
    session = alice.new_session()
    assert (alice if by == "owner" else admin).post(f"/api/sessions/{session}/stop") is None


@proves("POST /api/sessions/{session_id}/delete: success")
def test_a_deleted_session_is_gone(alice: Caller, admin: Caller) -> None:
    session = alice.new_session()
    assert alice.post(f"/api/sessions/{session}/delete") is None
    for reader in (alice, admin):
        reader.ask("GET", f"/api/sessions/{session}", expect=404)
    assert session not in str(alice.get("/api/sessions"))
    alice.ask("POST", f"/api/sessions/{session}/delete", expect=404)


@proves("GET /api/sessions/{session_id}/files: success")
def test_a_new_session_has_no_files(alice: Caller, admin: Caller) -> None:
    session = alice.new_session()
    for reader in (alice, admin):
        assert reader.get(f"/api/sessions/{session}/files") == {"files": []}


@proves(
    "session.no-sandbox",
    "POST /api/sessions/{session_id}/file: 404",
    "POST /api/sessions/{session_id}/shell: 404",
)
@pytest.mark.parametrize(("what", "body"), [("file", {"filepath": "/etc/hostname"}), ("shell", {"session_id": "main"})])
def test_files_and_shells_of_a_session_without_a_sandbox_are_not_found(
    alice: Caller, what: str, body: dict[str, str]
) -> None:
    session = alice.new_session()
    answer = alice.ask("POST", f"/api/sessions/{session}/{what}", json=body, expect=404)
    assert "sandbox" in answer.msg.lower()


@proves("POST /api/sessions/{session_id}/file: 422", "POST /api/sessions/{session_id}/shell: 422")
@pytest.mark.parametrize("what", ["file", "shell"])
def test_a_read_needs_a_file_or_a_shell(alice: Caller, what: str) -> None:
    alice.ask("POST", f"/api/sessions/{alice.new_session()}/{what}", json={}, expect=422)


@proves("POST /api/sessions/{session_id}/chat: 422")
@pytest.mark.parametrize("body", [{"message": 5}, {"message": "x", "attachments": "y"}], ids=["message", "attachments"])
def test_a_chat_is_checked_before_it_begins(alice: Caller, body: dict[str, object]) -> None:
    alice.ask("POST", f"/api/sessions/{alice.new_session()}/chat", json=body, expect=422)


@proves("POST /api/sessions/{session_id}/chat: 403", "POST /api/sessions/{session_id}/chat: 404")
def test_only_own_files_can_be_attached(alice: Caller, bob: Caller) -> None:
    session, theirs = alice.new_session(), bob.upload()["id"]
    path = f"/api/sessions/{session}/chat"
    alice.ask("POST", path, json={"message": "x", "attachments": [theirs]}, expect=403)
    nothing = "00000000-0000-0000-0000-000000000000"
    alice.ask("POST", path, json={"message": "x", "attachments": [nothing]}, expect=404)
    assert alice.get(f"/api/sessions/{session}")["events"] == []
