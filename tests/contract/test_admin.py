"""The admin module: users are listed, banned and deleted."""

from __future__ import annotations

from typing import Any

import pytest

from contract.server import PASSWORD, Caller, ServerUnderTest
from contract.spec import proves

USERS = "/api/admin/users"
USER = {"id", "username", "email", "nickname", "avatar", "role", "status", "created_at"}


@proves(f"GET {USERS}: success")
def test_users_are_listed_and_paged(server: ServerUnderTest, admin: Caller) -> None:
    made = {server.register().id for _ in range(3)}
    first = admin.get(USERS, params={"skip": 0, "limit": 2})
    assert len(first["users"]) == 2
    assert first["total"] >= 4
    assert all(set(user) >= USER for user in first["users"])
    seen: list[str] = []
    while len(seen) < first["total"]:
        page = admin.get(USERS, params={"skip": len(seen), "limit": 1000})["users"]
        assert page, "the list ends before its total"
        seen += [user["id"] for user in page]
    assert len(set(seen)) == len(seen)
    assert made | {admin.id} <= set(seen)
    assert "password" not in str(first)


@proves(f"GET {USERS}: 422")
@pytest.mark.parametrize("query", [{"skip": -1}, {"limit": 0}, {"limit": 1001}, {"limit": "x"}], ids=str)
def test_pages_are_checked(admin: Caller, query: dict[str, Any]) -> None:
    admin.ask("GET", USERS, params=query, expect=422)


@proves(f"GET {USERS}/{{user_id}}: success")
def test_an_admin_can_read_a_user(admin: Caller, alice: Caller) -> None:
    user = admin.get(f"{USERS}/{alice.id}")
    assert set(user) >= USER
    assert (user["username"], user["role"], user["status"]) == (alice.username, "user", "active")


@proves(f"PUT {USERS}/{{user_id}}/status: success")
@pytest.mark.parametrize("status", ["inactive", "banned"])
def test_a_status_can_be_set_and_reset(server: ServerUnderTest, admin: Caller, status: str) -> None:
    user = server.register()
    assert admin.put(f"{USERS}/{user.id}/status", json={"status": status}) is None
    assert admin.get(f"{USERS}/{user.id}")["status"] == status
    assert user.send("GET", "/api/sessions").status_code in (401, 403)
    admin.put(f"{USERS}/{user.id}/status", json={"status": "active"})
    assert server.login(username=user.username, password=PASSWORD).id == user.id


@proves(f"PUT {USERS}/{{user_id}}/status: 422")
def test_a_status_is_one_of_three(admin: Caller, alice: Caller) -> None:
    for body in ({}, {"status": "asleep"}):
        admin.ask("PUT", f"{USERS}/{alice.id}/status", json=body, expect=422)


@proves(f"PUT {USERS}/{{user_id}}/status: 403", f"DELETE {USERS}/{{user_id}}: 403")
def test_an_admin_cannot_change_admins(admin: Caller) -> None:
    """Tries the own account, and another admin if the server has one."""
    users = admin.get(USERS, params={"limit": 1000})["users"]
    for other in [user["id"] for user in users if user["role"] == "super_admin"][:3]:
        admin.ask("PUT", f"{USERS}/{other}/status", json={"status": "banned"}, expect=403)
        admin.ask("DELETE", f"{USERS}/{other}", expect=403)
    assert admin.get("/api/auth/me")["status"] == "active"


@proves(f"DELETE {USERS}/{{user_id}}: success", "accounts.deleted")
def test_deleting_a_user_deletes_their_data(server: ServerUnderTest, admin: Caller) -> None:
    user = server.register()
    session, file = user.new_session(), user.upload()["id"]
    assert admin.delete(f"{USERS}/{user.id}") is None
    assert user.send("GET", "/api/auth/me").status_code in (401, 403)
    assert user.send("POST", "/api/auth/refresh", json={"refresh_token": user.refresh_token}).status_code == 401
    admin.ask("GET", f"{USERS}/{user.id}", expect=404)
    admin.ask("GET", f"/api/sessions/{session}", expect=404)
    admin.ask("GET", f"/api/files/{file}", expect=404)
    body = {"username": user.username, "password": PASSWORD}
    server.nobody().ask("POST", "/api/auth/login", json=body, expect=401)
