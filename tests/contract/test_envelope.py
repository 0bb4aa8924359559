"""Rules for every response, and the endpoints outside the modules."""

from __future__ import annotations

import re
from typing import Any

import pytest

from contract.server import Caller, ServerUnderTest, parse_envelope
from contract.spec import SPEC, proves


@proves("envelope.unknown-path")
def test_the_response_to_an_unknown_path_has_the_envelope(nobody: Caller) -> None:
    for path in ("/api/none-such", "/none-such", "/api/sessions/x/none-such"):
        assert parse_envelope(nobody.send("GET", path)).status == 404


@proves("envelope.method")
def test_the_response_to_a_wrong_method_has_the_envelope(nobody: Caller) -> None:
    assert parse_envelope(nobody.send("PATCH", "/api/auth/login")).status == 405


@proves("envelope.fields")
def test_a_validation_error_lists_fields_and_no_values(nobody: Caller) -> None:
    body = {"username": "al", "password": "x-1-y"}
    answer = nobody.ask("POST", "/api/auth/register", json=body, expect=422)
    assert "username" in str(answer.data)
    assert "password" in str(answer.data)
    assert "x-1-y" not in f"{answer.msg} {answer.data}"


@proves("envelope.empty-body")
def test_no_body_and_an_empty_one_are_the_same(alice: Caller) -> None:
    bodies: list[dict[str, Any]] = [{}, {"json": {}}]
    for body in bodies:
        assert alice.post("/api/sessions", **body)["session_id"]
        session = alice.new_session()
        assert alice.post(f"/api/sessions/{session}/stop", **body) is None
        with alice.stream(f"/api/sessions/{session}/chat", **body) as response:
            assert response.status_code == 200
        with alice.stream("/api/sessions/stream", **body) as response:
            assert response.status_code == 200


@proves("envelope.origin")
def test_a_page_of_another_origin_can_read_nothing(nobody: Caller) -> None:
    """test_vnc.py checks the screen."""
    headers = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "GET"}
    for method in ("GET", "OPTIONS"):
        answer = nobody.send(method, "/api/app-config/llm", headers=headers)
        assert answer.headers.get("access-control-allow-origin") not in ("*", headers["Origin"])


@proves("openapi")
def test_the_description_lists_every_endpoint(nobody: Caller) -> None:
    document = nobody.send("GET", "/openapi.json").json()
    served = {
        f"{method.upper()} {re.sub(r'{[^}]*}', '{}', path)}"
        for path, methods in document["paths"].items()
        for method in methods
    }
    wanted = {re.sub(r"{[^}]*}", "{}", endpoint) for endpoint in SPEC.endpoints if not endpoint.startswith("WS")}
    assert wanted - served == set()


@proves("docs")
@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_documentation_loads_nothing_from_elsewhere(nobody: Caller, server: ServerUnderTest, path: str) -> None:
    response = nobody.send("GET", path)
    assert response.status_code == 200
    loaded = re.findall(r"""(?:src|href)=["']([^"'#]+)["']""", response.text)
    assert any(".js" in link for link in loaded)
    for link in loaded:
        assert not re.match(r"(https?:)?//", link) or link.startswith(server.url), link
        if not link.startswith("data:"):
            assert nobody.send("GET", link).status_code == 200


@proves("health")
def test_probes_and_metrics_need_no_token(nobody: Caller) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert nobody.send("GET", path).status_code == 200


@proves("legacy")
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("below", ["", "/install", "/some-skill/enabled", "/two%0Alines"])
def test_the_old_skill_paths_name_the_new_ones(nobody: Caller, method: str, below: str) -> None:
    answer = nobody.ask(method, f"/api/app-config/skills{below}", expect=410)
    assert answer.msg == "SKILL_API_MOVED"
    assert set(answer.data) >= {"code", "migrate_to"}
    assert "/api/v2/skills" in str(answer.data["migrate_to"])
