"""Access to every endpoint: without a token, for another user, and for a user who is not an admin."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

from contract.server import Caller, parse_envelope
from contract.spec import SPEC, proves

NONE = str(uuid4())
EXAMPLES: dict[str, dict[str, Any]] = {
    "PUT /api/auth/me": {"json": {"nickname": "x"}},
    "POST /api/app-config/llm": {"json": {"base_url": "http://127.0.0.1:9/v1", "api_key": "", "model_name": "m"}},
    "POST /api/app-config/agent": {"json": {}},
    "POST /api/app-config/mcp-servers": {"json": {"mcpServers": {}}},
    "POST /api/app-config/mcp-servers/{server_name}/enabled": {"json": {"enabled": True}},
    "POST /api/app-config/a2a-servers": {"json": {"base_url": "http://127.0.0.1:9"}},
    "POST /api/app-config/a2a-servers/{a2a_id}/enabled": {"json": {"enabled": True}},
    "POST /api/user/tools/mcp/{server_name}/enabled": {"json": {"enabled": True}},
    "POST /api/user/tools/a2a/{a2a_id}/enabled": {"json": {"enabled": True}},
    "POST /api/sessions/{session_id}/file": {"json": {"filepath": "/etc/hostname"}},
    "POST /api/sessions/{session_id}/shell": {"json": {"session_id": "main"}},
    "PUT /api/admin/users/{user_id}/status": {"json": {"status": "active"}},
    "POST /api/files": {"files": {"file": ("a.txt", b"a", "text/plain")}},
    "POST /api/status/minio/upload": {"files": {"file": ("a.txt", b"a", "text/plain")}},
    "GET /api/status/minio": {"params": {"smoke": "true"}},
    "POST /api/v2/skills/install": {"json": {"source_type": "local", "source_ref": "/nowhere"}},
    "POST /api/v2/skills/{skill_key}/enabled": {"json": {"enabled": True}},
    "POST /api/v2/skills/policy": {"json": {"mode": "off"}},
}
"""A valid request for each endpoint that needs more than its path, so that no refusal is for another reason."""


def endpoints_with(check: str, under: str = "") -> list[Any]:
    """HTTP endpoints that name this check."""
    return [
        pytest.param(endpoint, marks=proves(f"{endpoint}: {check}"), id=endpoint)
        for endpoint, checks in SPEC.endpoints.items()
        if check in checks and not endpoint.startswith("WS") and under in endpoint
    ]


def is_open_in_letter(endpoint: str) -> bool:
    """Endpoints without auth in api.md. wire.md requires a token for them, and MOORAGE_OPEN_CONFIG lifts that."""
    return endpoint.partition(" ")[2].startswith(("/api/app-config", "/api/status"))


CLOSED = [param for param in endpoints_with("401") if not is_open_in_letter(param.id) and "/auth/" not in param.id]
GUARDED = [param for param in endpoints_with("401") if is_open_in_letter(param.id)]
OWN_PROFILE = [param for param in endpoints_with("401") if param.id.endswith("/api/auth/me")]


def send(caller: Caller, endpoint: str, **ids: str) -> httpx.Response:
    method, _, path = endpoint.partition(" ")
    known = {"session_id": NONE, "file_id": NONE, "user_id": NONE, "a2a_id": NONE, "server_name": "none-such"}
    filled = path.format(**{**known, "skill_key": "none-such", **ids})
    return caller.send(method, filled, **EXAMPLES.get(endpoint, {}))


def check_unknown(caller: Caller, endpoint: str) -> None:
    """Check for a 404 of the named object. An unknown path would not answer PATCH with a 405."""
    path = endpoint.partition(" ")[2]
    assert parse_envelope(send(caller, f"PATCH {path}")).status == 405
    assert parse_envelope(send(caller, endpoint)).status == 404


@pytest.mark.parametrize("endpoint", [*CLOSED, *OWN_PROFILE])
def test_a_request_without_a_token_is_a_401(nobody: Caller, endpoint: str) -> None:
    answer = parse_envelope(send(nobody, endpoint))
    assert answer.status == 401


@proves("sse.token")
@pytest.mark.parametrize("endpoint", ["POST /api/sessions/stream", "POST /api/sessions/{session_id}/chat"])
def test_a_stream_without_a_token_is_refused_before_it_begins(nobody: Caller, endpoint: str) -> None:
    assert parse_envelope(send(nobody, endpoint)).status == 401


@pytest.mark.profile("safe")
@pytest.mark.parametrize("endpoint", GUARDED)
def test_changes_without_a_token_are_a_401(nobody: Caller, endpoint: str) -> None:
    assert parse_envelope(send(nobody, endpoint)).status == 401


@pytest.mark.profile("safe")
@proves("config.open")
@pytest.mark.parametrize("endpoint", [p for p in endpoints_with("403") if is_open_in_letter(p.id)])
def test_changes_by_a_user_are_a_403(alice: Caller, endpoint: str) -> None:
    assert parse_envelope(send(alice, endpoint)).status == 403


@pytest.mark.parametrize("endpoint", [*endpoints_with("403", "/api/admin"), *endpoints_with("403", "/api/v2")])
def test_admin_endpoints_are_a_403_for_users(alice: Caller, endpoint: str) -> None:
    assert parse_envelope(send(alice, endpoint)).status == 403


@pytest.mark.profile("letter")
@proves("config.open")
@pytest.mark.parametrize("endpoint", ["POST /api/app-config/agent", "GET /api/app-config/llm"])
def test_the_letter_profile_requires_no_token(nobody: Caller, endpoint: str) -> None:
    assert parse_envelope(send(nobody, endpoint)).status == 200


@pytest.mark.parametrize("endpoint", endpoints_with("404", "{session_id}"))
def test_an_unknown_session_is_a_404(alice: Caller, endpoint: str) -> None:
    check_unknown(alice, endpoint)


@pytest.mark.parametrize("endpoint", endpoints_with("404", "{file_id}"))
def test_an_unknown_file_is_a_404(alice: Caller, endpoint: str) -> None:
    check_unknown(alice, endpoint)


@pytest.mark.parametrize("endpoint", endpoints_with("404", "/api/app-config"))
def test_an_unknown_server_is_a_404(admin: Caller, endpoint: str) -> None:
    check_unknown(admin, endpoint)


@pytest.mark.parametrize("endpoint", endpoints_with("404", "/api/user/tools"))
def test_an_unknown_tool_is_a_404(alice: Caller, endpoint: str) -> None:
    check_unknown(alice, endpoint)


@pytest.mark.parametrize("endpoint", [*endpoints_with("404", "/api/v2"), *endpoints_with("404", "/api/admin")])
def test_unknown_objects_are_a_404_for_admins(admin: Caller, endpoint: str) -> None:
    check_unknown(admin, endpoint)


@pytest.fixture(scope="module")
def alices_session(alice: Caller) -> str:
    return alice.new_session()


@pytest.mark.parametrize("endpoint", endpoints_with("403", "{session_id}"))
def test_another_users_session_is_a_403(bob: Caller, alice: Caller, alices_session: str, endpoint: str) -> None:
    assert parse_envelope(send(bob, endpoint, session_id=alices_session)).status == 403
    assert alice.get(f"/api/sessions/{alices_session}")["status"] == "pending"


@pytest.mark.parametrize(
    "endpoint",
    [
        param
        for param in endpoints_with("403", "{session_id}")
        if param.id.endswith(("/clear-unread-message-count", "/delete"))
    ],
)
def test_owner_only_endpoints_are_a_403_for_admins(admin: Caller, alices_session: str, endpoint: str) -> None:
    assert parse_envelope(send(admin, endpoint, session_id=alices_session)).status == 403


@pytest.mark.parametrize("endpoint", endpoints_with("403", "{file_id}"))
def test_another_users_file_is_a_403(bob: Caller, alice: Caller, endpoint: str) -> None:
    uploaded = alice.upload()
    assert parse_envelope(send(bob, endpoint, file_id=uploaded["id"])).status == 403
    assert alice.get(f"/api/files/{uploaded['id']}")["size"] == uploaded["size"]
