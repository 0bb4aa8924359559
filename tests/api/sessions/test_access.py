"""Who may do what: every endpoint of a session and of a file, asked by everyone there is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from support.accounts import Person, client_for, data, register

NOWHERE = "0192f0c1-2f4e-7d3a-9c55-6b7d8e9f0a1b"
EVERYONE = ("owner", "other", "admin", "banned", "nobody", "expired")
OWN = {"owner": 200, "other": 403, "admin": 200, "banned": 403, "nobody": 401, "expired": 401}
OWN_ONLY = {**OWN, "admin": 403}
NO_SANDBOX = {**OWN, "owner": 404, "admin": 404}
ANY_USER = {**OWN, "other": 200}
ADMINS = {**OWN, "owner": 403}
ALL = dict.fromkeys(EVERYONE, 200)

LLM = {"base_url": "https://llm.example/v1", "model_name": "m"}
AGENT = {"max_iterations": 100, "max_retries": 3, "max_search_results": 10}

ENDPOINTS: list[tuple[str, str, dict[str, Any], dict[str, int]]] = [
    ("GET", "/api/auth/me", {}, ANY_USER),
    ("PUT", "/api/auth/me", {"json": {}}, ANY_USER),
    ("POST", "/api/sessions", {}, ANY_USER),
    ("GET", "/api/sessions", {}, ANY_USER),
    ("GET", "/api/sessions/{session}", {}, OWN),
    ("POST", "/api/sessions/{session}/chat", {}, OWN),
    ("POST", "/api/sessions/{session}/chat", {"json": {"attachments": ["{file}"]}}, {**OWN, "owner": 200}),
    ("POST", "/api/sessions/{session}/stop", {}, OWN),
    ("POST", "/api/sessions/{session}/clear-unread-message-count", {}, OWN_ONLY),
    ("GET", "/api/sessions/{session}/files", {}, OWN),
    ("POST", "/api/sessions/{session}/file", {"json": {"filepath": "/etc/passwd"}}, NO_SANDBOX),
    ("POST", "/api/sessions/{session}/shell", {"json": {"session_id": "main"}}, NO_SANDBOX),
    ("GET", "/api/files/{file}", {}, OWN),
    ("GET", "/api/files/{file}/download", {}, OWN),
    ("GET", "/api/app-config/llm", {}, ALL),
    ("GET", "/api/app-config/agent", {}, ALL),
    ("POST", "/api/app-config/llm", {"json": LLM}, ADMINS),
    ("POST", "/api/app-config/agent", {"json": AGENT}, ADMINS),
    ("DELETE", "/api/files/{file}", {}, OWN),
    ("POST", "/api/sessions/{session}/delete", {}, OWN_ONLY),
]


@dataclass
class World:
    """What the owner has, and everybody's token."""

    url: str
    session: str
    file: str
    tokens: dict[str, str | None]


@pytest.fixture
async def world(api: Any, alice: Person, bob: Person, root: Person) -> AsyncIterator[World]:
    banned = await register(api.url)
    await api.set_status(banned, "banned")
    claims = jwt.decode(alice.token, options={"verify_signature": False})
    secret = api.settings.jwt_secret.get_secret_value()
    expired = jwt.encode({**claims, "exp": claims["iat"] - 1}, secret, algorithm="HS256")
    tokens = {"owner": alice.token, "other": bob.token, "admin": root.token, "banned": banned.token}
    yield World(
        api.url,
        await alice.create_session(),
        (await alice.upload())["id"],
        {**tokens, "nobody": None, "expired": expired},
    )
    await banned.client.aclose()


def filled(value: Any, world: World) -> Any:
    if isinstance(value, str):
        return value.replace("{session}", world.session).replace("{file}", world.file)
    if isinstance(value, dict):
        return {key: filled(item, world) for key, item in value.items()}
    return [filled(item, world) for item in value] if isinstance(value, list) else value


async def status_of(client: httpx.AsyncClient, method: str, path: str, **sent: Any) -> int:
    """The status alone: a stream is not read to its end. An error wears the envelope."""
    async with client.stream(method, path, **sent) as response:
        if response.status_code != 200:
            await response.aread()
            body = response.json()
            assert set(body) == {"code", "msg", "data"}
            assert body["code"] == response.status_code
        return response.status_code


@pytest.mark.parametrize(
    ("method", "path", "sent", "expected"), ENDPOINTS, ids=[f"{method} {path}" for method, path, _, _ in ENDPOINTS]
)
async def test_an_endpoint_answers_each_as_they_may(
    world: World, method: str, path: str, sent: dict[str, Any], expected: dict[str, int]
) -> None:
    answers = {}
    for who in sorted(EVERYONE, key=lambda who: expected[who] == 200):  # refusals first: a delete works once
        if method == "DELETE" and who == "admin":
            continue  # the owner has deleted it by then; the test below has an admin do it
        async with client_for(world.url, world.tokens[who]) as client:
            answers[who] = await status_of(client, method, filled(path, world), **filled(sent, world))
    assert answers == {who: status for who, status in expected.items() if who in answers}


async def test_an_admin_deletes_anybodys_file(world: World) -> None:
    async with client_for(world.url, world.tokens["admin"]) as client:
        assert await status_of(client, "DELETE", f"/api/files/{world.file}") == 200


@pytest.mark.parametrize(
    ("who", "code"),
    [("owner", 4404), ("other", 4403), ("admin", 4404), ("banned", 4403), ("nobody", 4401), ("expired", 4401)],
)
async def test_the_screen_is_refused_with_a_code_that_says_why(world: World, who: str, code: int) -> None:
    """Without a sandbox nobody sees one; who may not look learns nothing else."""
    assert await close_code(f"{world.url}/api/sessions/{world.session}/vnc?token={world.tokens[who] or ''}") == code


async def test_the_screen_of_no_session_does_not_exist(world: World) -> None:
    for session in (NOWHERE, "nonsense"):
        assert await close_code(f"{world.url}/api/sessions/{session}/vnc?token={world.tokens['owner']}") == 4404


async def close_code(url: str, **options: Any) -> int:
    async with connect(url.replace("http", "ws", 1), proxy=None, **options) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


async def test_another_origin_may_not_open_the_screen(world: World) -> None:
    url = f"{world.url}/api/sessions/{world.session}/vnc?token={world.tokens['owner']}"
    assert await close_code(url, origin="https://evil.example") == 4403
    assert await close_code(url, origin=world.url) == 4404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/sessions/{id}"),
        ("POST", "/api/sessions/{id}/chat"),
        ("POST", "/api/sessions/{id}/stop"),
        ("POST", "/api/sessions/{id}/delete"),
        ("POST", "/api/sessions/{id}/clear-unread-message-count"),
        ("GET", "/api/sessions/{id}/files"),
        ("GET", "/api/files/{id}"),
        ("GET", "/api/files/{id}/download"),
        ("DELETE", "/api/files/{id}"),
    ],
)
@pytest.mark.parametrize(("id_", "status"), [(NOWHERE, 404), ("not-an-id", 422), ("%00", 422)])
async def test_what_does_not_exist_is_not_found(alice: Person, method: str, path: str, id_: str, status: int) -> None:
    assert await status_of(alice.client, method, path.format(id=id_)) == status


async def test_lists_hold_ones_own_and_everyones_for_an_admin(alice: Person, bob: Person, root: Person) -> None:
    session = await alice.create_session()

    async def seen(person: Person, scope: str) -> bool:
        listed = data(await person.client.get("/api/sessions", params={"scope": scope}))["sessions"]
        return session in {item["session_id"] for item in listed}

    assert [await seen(person, "own") for person in (alice, bob, root)] == [True, False, False]
    assert [await seen(person, "all") for person in (alice, bob, root)] == [True, False, True]


async def test_somebody_elses_file_cannot_be_attached(world: World, bob: Person) -> None:
    session = await bob.create_session()
    sent = {"json": {"message": "look", "attachments": [world.file]}}
    assert await status_of(bob.client, "POST", f"/api/sessions/{session}/chat", **sent) == 403
    assert data(await bob.client.get(f"/api/sessions/{session}"))["events"] == []
