"""What admins can do with accounts, and what users cannot do with their own."""

from __future__ import annotations

import asyncio
from typing import Any

import jwt
import pytest

from support.accounts import PASSWORD, Person, admin, client_for, data, login
from support.waiting import HANG_SECONDS

NOBODY = "0192f0c1-2f4e-7d3a-9c55-6b7d8e9f0a1b"


async def test_users_are_listed_in_pages_and_counted(alice: Person, bob: Person, root: Person) -> None:
    whole = data(await root.client.get("/api/admin/users", params={"limit": 1000}))
    ids = [user["id"] for user in whole["users"]]
    assert {alice.id, bob.id, root.id} <= set(ids)
    assert whole["total"] == len(ids) == len(set(ids))
    page = data(await root.client.get("/api/admin/users", params={"skip": 1, "limit": 2}))
    assert ([user["id"] for user in page["users"]], page["total"]) == (ids[1:3], whole["total"])
    beyond = data(await root.client.get("/api/admin/users", params={"skip": 10**9}))
    assert (beyond["users"], beyond["total"]) == ([], whole["total"])
    assert "password" not in str(whole)


@pytest.mark.parametrize("query", ["skip=-1", "limit=0", "limit=1001", "skip=x", "limit=99999999999999999999"])
async def test_an_invalid_page_is_refused(root: Person, query: str) -> None:
    assert (await root.client.get(f"/api/admin/users?{query}")).status_code == 422


async def test_an_admin_gets_the_same_account_data_as_the_user(alice: Person, root: Person) -> None:
    assert data(await root.client.get(f"/api/admin/users/{alice.id}")) == data(await alice.client.get("/api/auth/me"))


@pytest.mark.parametrize(("method", "below"), [("GET", ""), ("PUT", "/status"), ("DELETE", "")])
@pytest.mark.parametrize("user", [NOBODY, "nonsense"])
async def test_an_unknown_user_is_not_found(root: Person, method: str, below: str, user: str) -> None:
    sent: dict[str, Any] = {"json": {"status": "active"}} if method == "PUT" else {}
    assert (await root.client.request(method, f"/api/admin/users/{user}{below}", **sent)).status_code == 404


@pytest.mark.parametrize("status", ["banned", "inactive"])
async def test_a_ban_takes_effect_at_once_and_ends_open_streams(alice: Person, root: Person, status: str) -> None:
    """After a reactivation the user has to log in again: tokens from before are not valid any more."""
    session = await alice.create_session()
    async with alice.client.stream("POST", "/api/sessions/stream") as listing:
        assert listing.status_code == 200
        frames = listing.aiter_raw()
        await anext(frames)
        data(await root.client.put(f"/api/admin/users/{alice.id}/status", json={"status": status}))
        async with asyncio.timeout(HANG_SECONDS):
            assert [frame async for frame in frames if b"event:" in frame] == []
    assert (await alice.client.get(f"/api/sessions/{session}")).status_code == 403
    async with client_for(str(alice.client.base_url)) as client:
        body = {"username": alice.name, "password": PASSWORD}
        assert (await client.post("/api/auth/login", json=body)).status_code == 403
        data(await root.client.put(f"/api/admin/users/{alice.id}/status", json={"status": "active"}))
        refresh = {"refresh_token": alice.refresh_token}
        assert (await client.post("/api/auth/refresh", json=refresh)).status_code == 401
    assert (await alice.client.get("/api/auth/me")).status_code == 401
    async with await login(str(alice.client.base_url), alice.name) as again:
        assert data(await again.client.get(f"/api/sessions/{session}"))["session_id"] == session


async def test_admins_can_change_neither_themselves_nor_other_admins(api: Any, root: Person) -> None:
    async with await admin(api.url, api.database_url) as other:
        for person in (root, other):
            for answer in (
                await root.client.put(f"/api/admin/users/{person.id}/status", json={"status": "banned"}),
                await root.client.delete(f"/api/admin/users/{person.id}"),
            ):
                assert (answer.status_code, answer.json()["data"]) == (403, {"error": "forbidden"})
            assert (await person.client.get("/api/auth/me")).status_code == 200


async def test_a_deleted_user_loses_the_login_sessions_and_files(api: Any, alice: Person, root: Person) -> None:
    session = await alice.create_session()
    file = await alice.upload()
    data(await root.client.delete(f"/api/admin/users/{alice.id}"))
    assert (await alice.client.get("/api/auth/me")).status_code == 401
    for path in (f"/api/admin/users/{alice.id}", f"/api/sessions/{session}", f"/api/files/{file['id']}"):
        assert (await root.client.get(path)).status_code == 404
    async with client_for(api.url) as client:
        body = {"username": alice.name, "password": PASSWORD}
        assert (await client.post("/api/auth/login", json=body)).status_code == 401
        data(await client.post("/api/auth/register", json=body))  # the name is free again


async def test_the_objects_of_a_deleted_user_are_removed(services: Any, alice: Person, root: Person) -> None:
    file = await alice.upload()
    with services.s3.client() as client:
        bucket = "moorage-tests"
        assert [item.object_name for item in client.list_objects(bucket, prefix=file["key"])] == [file["key"]]
        data(await root.client.delete(f"/api/admin/users/{alice.id}"))
        assert list(client.list_objects(bucket, prefix=f"files/{alice.id}/", recursive=True)) == []


@pytest.mark.parametrize(
    "more",
    [{"role": "super_admin"}, {"status": "active"}, {"id": NOBODY}, {"email": "x@y.example"}, {"password_hash": "x"}],
)
async def test_users_cannot_change_their_own_role_status_or_identity(alice: Person, more: dict[str, str]) -> None:
    before = data(await alice.client.get("/api/auth/me"))
    assert data(await alice.client.put("/api/auth/me", json={"nickname": before["nickname"], **more})) == before
    assert (await alice.client.get("/api/admin/users")).status_code == 403


async def test_changing_a_status_cannot_change_the_role_or_the_name(alice: Person, root: Person) -> None:
    body = {"status": "active", "role": "super_admin", "username": "taken-over"}
    data(await root.client.put(f"/api/admin/users/{alice.id}/status", json=body))
    seen = data(await root.client.get(f"/api/admin/users/{alice.id}"))
    assert (seen["role"], seen["username"]) == ("user", alice.name)


async def test_forged_tokens_are_refused(api: Any, alice: Person, root: Person) -> None:
    """In addition to `test_accounts`: another audience, another user, another algorithm, an added role."""
    secret = api.settings.jwt_secret.get_secret_value()
    claims = jwt.decode(alice.token, options={"verify_signature": False})
    sandbox_key = api.settings.signing_key_file.read_text()
    tokens = {
        "another audience": jwt.encode({**claims, "aud": "sandbox"}, secret, algorithm="HS256"),
        "another user": jwt.encode({**claims, "sub": root.id}, secret, algorithm="HS256"),
        "nobody": jwt.encode({**claims, "sub": NOBODY}, secret, algorithm="HS256"),
        "no id": jwt.encode({**claims, "sub": "1 OR 1=1"}, secret, algorithm="HS256"),
        "another login": jwt.encode({**claims, "family": NOBODY}, secret, algorithm="HS256"),
        "longer": jwt.encode(claims, secret, algorithm="HS512"),
        "a sandbox's": jwt.encode(claims, sandbox_key, algorithm="EdDSA"),
        "no kind": jwt.encode(
            {key: value for key, value in claims.items() if key != "kind"}, secret, algorithm="HS256"
        ),
    }
    for name, token in tokens.items():
        async with client_for(api.url, token) as client:
            answer = await client.get("/api/auth/me")
        assert (answer.status_code, name) == (401, name)
    async with client_for(api.url, jwt.encode({**claims, "role": "super_admin"}, secret, algorithm="HS256")) as client:
        assert (await client.get("/api/admin/users")).status_code == 403


async def test_a_normal_user_cannot_find_out_which_users_exist(alice: Person, bob: Person) -> None:
    answers = [await alice.client.get(f"/api/admin/users/{user}") for user in (bob.id, NOBODY)]
    assert answers[0].status_code == answers[1].status_code == 403
    assert answers[0].json() == answers[1].json()
