"""Call every route as every kind of user. The expected statuses follow from the table of routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from moorage_api.app import create_app_without_services
from moorage_api.http.routes import BY_KEY, Access, keys_of
from moorage_api.sandboxes.local import LocalSandboxes
from support.accounts import PASSWORD, Person, client_for, data, register

NOWHERE = "0192f0c1-2f4e-7d3a-9c55-6b7d8e9f0a1b"
EVERYONE = ("owner", "other", "admin", "banned", "nobody", "expired")
USER = {"owner": 200, "other": 200, "admin": 200, "banned": 403, "nobody": 401, "expired": 401}
EXPECTED: dict[Access, dict[str, int]] = {
    Access.PUBLIC: dict.fromkeys(EVERYONE, 200),
    Access.USER: USER,
    Access.OWNER: {**USER, "other": 403, "admin": 403},
    Access.OWNER_OR_ADMIN: {**USER, "other": 403},
    Access.ADMIN: {**USER, "owner": 403, "other": 403},
    Access.CONFIG: {**USER, "owner": 403, "other": 403},
    Access.LINK: dict.fromkeys(EVERYONE, 200),
}
"""Status that each kind of user gets if the request is otherwise valid."""

LLM = {"base_url": "https://llm.example/v1", "model_name": "m"}
AGENT = {"max_iterations": 100, "max_retries": 3, "max_search_results": 10}
MCP = {"mcpServers": {"nobody": {"transport": "streamable_http", "url": "http://127.0.0.1:9/mcp", "enabled": False}}}
REGISTERED = {"username": "{unique}", "password": PASSWORD}
UPLOAD = {"files": {"file": ("a.txt", b"hello", "text/plain")}}
PICTURE = {"params": {"expires": "4102444800", "signature": "0" * 64}}
ENABLED = {"json": {"enabled": True}}


@dataclass(frozen=True)
class Request:
    """The request for a route, and the status that an allowed user gets."""

    sent: dict[str, Any] = field(default_factory=dict)
    allowed: int = 200
    once: str = ""
    """If set, only this kind of allowed user sends the request, because it deletes its target."""


REQUESTS: dict[str, Request] = {
    "POST /api/auth/register": Request({"json": REGISTERED}),
    "POST /api/auth/login": Request({"json": {"username": "{owner_name}", "password": PASSWORD}}),
    "POST /api/auth/refresh": Request({"json": {"refresh_token": "{refresh}"}}),
    "GET /api/auth/me": Request(),
    "PUT /api/auth/me": Request({"json": {}}),
    "GET /api/auth/wechat/authorize": Request(allowed=400),
    "GET /api/auth/wechat/callback": Request(allowed=400),
    "GET /api/status": Request(),
    "GET /api/status/minio": Request(),
    "POST /api/status/minio/upload": Request(UPLOAD),
    "GET /api/app-config/llm": Request(),
    "POST /api/app-config/llm": Request({"json": LLM}),
    "GET /api/app-config/llm/options": Request(),
    "POST /api/app-config/llm/options": Request({"json": {}}),
    "POST /api/app-config/llm/test": Request({"json": {"base_url": "http://127.0.0.1:9/v1"}}),
    "GET /api/app-config/llm/prices": Request(),
    "POST /api/app-config/llm/prices": Request({"json": {"prices": []}}),
    "GET /api/app-config/agent": Request(),
    "POST /api/app-config/agent": Request({"json": AGENT}),
    "GET /api/app-config/mcp-servers": Request(),
    "POST /api/app-config/mcp-servers": Request({"json": MCP}),
    "POST /api/app-config/mcp-servers/{server_name}/delete": Request(allowed=404),
    "POST /api/app-config/mcp-servers/{server_name}/enabled": Request(ENABLED, allowed=404),
    "POST /api/app-config/mcp-servers/{server_name}/refresh": Request(allowed=404),
    "GET /api/app-config/a2a-servers": Request(),
    "POST /api/app-config/a2a-servers": Request({"json": {"base_url": "http://127.0.0.1:9"}}, allowed=400),
    "POST /api/app-config/a2a-servers/{a2a_id}/delete": Request(allowed=404),
    "POST /api/app-config/a2a-servers/{a2a_id}/enabled": Request(ENABLED, allowed=404),
    "GET /api/user/tools/mcp": Request(),
    "POST /api/user/tools/mcp/{server_name}/enabled": Request(ENABLED, allowed=404),
    "GET /api/user/tools/a2a": Request(),
    "POST /api/user/tools/a2a/{a2a_id}/enabled": Request(ENABLED, allowed=404),
    "POST /api/sessions": Request(),
    "GET /api/sessions": Request(),
    "POST /api/sessions/stream": Request(),
    "GET /api/sessions/{session_id}": Request(),
    "POST /api/sessions/{session_id}/chat": Request(),
    "POST /api/sessions/{session_id}/stop": Request(),
    "POST /api/sessions/{session_id}/clear-unread-message-count": Request(),
    "GET /api/sessions/{session_id}/files": Request(),
    "POST /api/sessions/{session_id}/file": Request({"json": {"filepath": "/etc/passwd"}}, allowed=404),
    "POST /api/sessions/{session_id}/shell": Request({"json": {"session_id": "main"}}, allowed=404),
    "POST /api/sessions/{session_id}/delete": Request(once="owner"),
    "GET /api/pictures/{name}": Request(PICTURE, allowed=403),
    "GET /api/usage": Request(),
    "GET /api/admin/usage": Request(),
    "GET /api/admin/users": Request(),
    "GET /api/admin/users/{user_id}": Request(),
    "PUT /api/admin/users/{user_id}/status": Request({"json": {"status": "active"}}),
    "DELETE /api/admin/users/{user_id}": Request(once="admin"),
    "POST /api/files": Request(UPLOAD),
    "GET /api/files/{file_id}": Request(),
    "GET /api/files/{file_id}/download": Request(),
    "DELETE /api/files/{file_id}": Request(once="owner"),
    "GET /api/v2/skills": Request(),
    "POST /api/v2/skills/install": Request({"json": {"source_type": "local", "source_ref": "/no/skill"}}, allowed=400),
    "POST /api/v2/skills/{skill_key}/enabled": Request(ENABLED, allowed=404),
    "DELETE /api/v2/skills/{skill_key}": Request(allowed=404),
    "GET /api/v2/skills/policy": Request(),
    "POST /api/v2/skills/policy": Request({"json": {"mode": "off"}}),
    "GET /healthz": Request(),
    "GET /readyz": Request(),
    "GET /metrics": Request(),
    "GET /openapi.json": Request(),
    "GET /docs": Request(),
    "GET /redoc": Request(),
    "GET /docs/assets/{name}": Request(allowed=404),
}
"""By the keys of `moorage_api.http.routes`. A new route needs a line here."""

ASKED = [
    key
    for key, _ in keys_of(create_app_without_services().routes)
    if not key.startswith("WS ") and "/app-config/skills" not in key
]
"""All routes except the VNC WebSocket, which refuses with close codes, and removed ones: both have other tests."""


@dataclass
class AccessWorld:
    """A session, a file and a user to act on, and the tokens of all kinds of users."""

    url: str
    owner: Person
    session: str
    file: str
    user: str
    """Id of a user that an admin may delete."""
    tokens: dict[str, str | None]


@pytest.fixture
async def world(api: Any, alice: Person, bob: Person, root: Person) -> AsyncIterator[AccessWorld]:
    banned = await register(api.url)
    await api.set_status(banned, "banned")
    claims = jwt.decode(alice.token, options={"verify_signature": False})
    secret = api.settings.jwt_secret.get_secret_value()
    expired = jwt.encode({**claims, "exp": claims["iat"] - 1}, secret, algorithm="HS256")
    tokens = {"owner": alice.token, "other": bob.token, "admin": root.token, "banned": banned.token}
    async with await register(api.url) as subject:
        yield AccessWorld(
            api.url,
            alice,
            await alice.create_session(),
            (await alice.upload())["id"],
            subject.id,
            {**tokens, "nobody": None, "expired": expired},
        )
    await banned.client.aclose()


def fill_placeholders(value: Any, world: AccessWorld) -> Any:
    if isinstance(value, str):
        names = {
            "session_id": world.session,
            "file_id": world.file,
            "user_id": world.user,
            "owner_name": world.owner.name,
            "refresh": world.owner.refresh_token,
            "unique": f"user-{uuid4().hex[:12]}",
            "server_name": "nobody-has-it",
            "skill_key": "nobody-has-it",
            "a2a_id": NOWHERE,
            "name": "bmFtZQ",
        }
        for name, text in names.items():
            value = value.replace(f"{{{name}}}", text)
        return value
    if isinstance(value, dict):
        return {key: fill_placeholders(item, world) for key, item in value.items()}
    return [fill_placeholders(item, world) for item in value] if isinstance(value, list) else value


async def status_of(client: httpx.AsyncClient, method: str, path: str, **sent: Any) -> int:
    """Send a request and return the status without reading a stream to its end. Errors must have the envelope."""
    async with client.stream(method, path, **sent) as response:
        if response.status_code != 200:
            await response.aread()
            body = response.json()
            assert set(body) == {"code", "msg", "data"}
            assert body["code"] == response.status_code
        return response.status_code


def test_every_route_has_a_request_in_this_test() -> None:
    assert [key for key in ASKED if key not in REQUESTS] == []


@pytest.mark.parametrize("key", ASKED)
async def test_an_endpoint_gives_each_kind_of_user_the_expected_status(world: AccessWorld, key: str) -> None:
    rule, request = BY_KEY[key], REQUESTS[key]
    expected = EXPECTED[rule.access]
    refused = [who for who in EVERYONE if expected[who] != 200]
    allowed = [who for who in EVERYONE if expected[who] == 200 and request.once in ("", who)]
    answers = {}
    for who in (*refused, *allowed):
        async with client_for(world.url, world.tokens[who]) as client:
            answers[who] = await status_of(
                client, rule.method, fill_placeholders(rule.path, world), **fill_placeholders(request.sent, world)
            )
    assert answers == {**{who: expected[who] for who in refused}, **dict.fromkeys(allowed, request.allowed)}


@pytest.mark.parametrize("query", ["smoke=true", "bucket=another"])
async def test_only_an_admin_may_run_the_object_store_self_test_or_name_a_bucket(
    world: AccessWorld, query: str
) -> None:
    answers = {}
    for who in EVERYONE:
        async with client_for(world.url, world.tokens[who]) as client:
            answers[who] = await status_of(client, "GET", f"/api/status/minio?{query}")
    assert answers == EXPECTED[Access.CONFIG]


async def test_an_admin_can_delete_the_file_of_any_user(world: AccessWorld) -> None:
    async with client_for(world.url, world.tokens["admin"]) as client:
        assert await status_of(client, "DELETE", f"/api/files/{world.file}") == 200


@pytest.mark.parametrize(
    ("who", "code"),
    [("owner", 4404), ("other", 4403), ("admin", 4404), ("banned", 4403), ("nobody", 4401), ("expired", 4401)],
)
async def test_a_refused_vnc_connection_closes_with_the_code_of_the_reason(
    world: AccessWorld, who: str, code: int
) -> None:
    """There is no sandbox: allowed users get 4404, and other users must not learn whether there is one."""
    assert await close_code(f"{world.url}/api/sessions/{world.session}/vnc?token={world.tokens[who] or ''}") == code


async def test_vnc_for_an_unknown_session_closes_with_not_found(world: AccessWorld) -> None:
    for session in (NOWHERE, "nonsense"):
        assert await close_code(f"{world.url}/api/sessions/{session}/vnc?token={world.tokens['owner']}") == 4404


async def test_a_sandbox_that_no_run_has_used_yet_is_not_found(api: Any, world: AccessWorld, alice: Person) -> None:
    """A run that ends before its sandbox is ready leaves such a sandbox until the next message."""
    session = await alice.create_session()
    host = LocalSandboxes(api.settings.sandbox_host_socket)
    await host.ensure(UUID(session), owner_id=UUID(alice.id))
    try:
        for what, body in (("file", {"filepath": "/etc/hostname"}), ("shell", {"session_id": "main"})):
            answer = await alice.client.post(f"/api/sessions/{session}/{what}", json=body)
            assert (answer.status_code, answer.json()["code"]) == (404, 404)
            assert "no live sandbox" in answer.json()["msg"]
        assert await close_code(f"{world.url}/api/sessions/{session}/vnc?token={alice.token}") == 4404
    finally:
        await host.delete(UUID(session))
        await host.close()


async def close_code(url: str, **options: Any) -> int:
    async with connect(url.replace("http", "ws", 1), proxy=None, **options) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


async def test_vnc_from_another_origin_is_refused(world: AccessWorld) -> None:
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
@pytest.mark.parametrize("id_", [NOWHERE, "not-an-id", "%00", "%ff"])
async def test_an_unknown_id_is_not_found(alice: Person, method: str, path: str, id_: str) -> None:
    assert await status_of(alice.client, method, path.format(id=id_)) == 404


async def test_users_list_their_own_sessions_and_an_admin_can_list_all(
    alice: Person, bob: Person, root: Person
) -> None:
    session = await alice.create_session()

    async def lists_session(person: Person, scope: str) -> bool:
        listed = data(await person.client.get("/api/sessions", params={"scope": scope}))["sessions"]
        return session in {item["session_id"] for item in listed}

    assert [await lists_session(person, "own") for person in (alice, bob, root)] == [True, False, False]
    assert [await lists_session(person, "all") for person in (alice, bob, root)] == [True, False, True]


async def test_a_file_of_another_user_cannot_be_attached(world: AccessWorld, bob: Person) -> None:
    session = await bob.create_session()
    sent = {"json": {"message": "look", "attachments": [world.file]}}
    assert await status_of(bob.client, "POST", f"/api/sessions/{session}/chat", **sent) == 403
    assert data(await bob.client.get(f"/api/sessions/{session}"))["events"] == []
