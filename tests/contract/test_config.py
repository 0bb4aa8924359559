"""Models and agents of the app-config module. test_tools.py has the MCP and A2A servers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from contract.peers import Peers, saying
from contract.server import Caller, ServerUnderTest, name
from contract.spec import proves

AGENT = {"max_iterations", "max_retries", "max_search_results"}


@proves("GET /api/app-config/llm: success", "POST /api/app-config/llm: success")
def test_a_configured_model_never_shows_its_key(admin: Caller, nobody: Caller, peers: Peers) -> None:
    config = peers.model("another-model")
    answers = [admin.post("/api/app-config/llm", json=config), nobody.get("/api/app-config/llm")]
    answers.append(admin.post("/api/app-config/llm", json={**config, "api_key": ""}))
    del config["api_key"]
    for answer in answers:
        assert answer == config
    admin.post("/api/app-config/llm", json=peers.model())


@proves("config.key")
def test_an_empty_key_keeps_the_current_key(server: ServerUnderTest, admin: Caller, peers: Peers) -> None:
    user, key = server.register(), name("sk")
    try:
        admin.post("/api/app-config/llm", json={**peers.model(), "api_key": key})
        admin.post("/api/app-config/llm", json={**peers.model("scripted-2"), "api_key": ""})
        asked = len(peers.requests)
        assert user.chat(user.new_session(), saying("hello")).ending.event == "done"
        assert set(peers.keys[asked:]) == {f"Bearer {key}"}
        assert {request["model"] for request in peers.requests[asked:]} == {"scripted-2"}
    finally:
        admin.post("/api/app-config/llm", json=peers.model())


@proves("POST /api/app-config/llm: 422")
@pytest.mark.parametrize(
    "change",
    [{"base_url": "ftp://x"}, {"model_name": ""}, {"temperature": "hot"}, {"max_tokens": 0}],
    ids=["base_url", "model_name", "temperature", "max_tokens"],
)
def test_a_model_is_checked(admin: Caller, nobody: Caller, peers: Peers, change: dict[str, Any]) -> None:
    before = nobody.get("/api/app-config/llm")
    admin.ask("POST", "/api/app-config/llm", json={**peers.model(), **change}, expect=422)
    assert nobody.get("/api/app-config/llm") == before


@proves("GET /api/app-config/agent: success", "POST /api/app-config/agent: success")
def test_an_agent_is_configured(admin: Caller, nobody: Caller) -> None:
    before = nobody.get("/api/app-config/agent")
    assert set(before) >= AGENT
    for values in ((1, 2, 2), (999, 9, 29)):
        config = dict(zip(("max_iterations", "max_retries", "max_search_results"), values, strict=True))
        assert admin.post("/api/app-config/agent", json=config) == config
        assert nobody.get("/api/app-config/agent") == config
    admin.post("/api/app-config/agent", json=before)


@proves("POST /api/app-config/agent: 422")
@pytest.mark.parametrize(
    "change",
    [
        {"max_iterations": 0},
        {"max_iterations": 1000},
        {"max_retries": 1},
        {"max_retries": 10},
        {"max_search_results": 1},
        {"max_search_results": 30},
    ],
    ids=json.dumps,
)
def test_an_agent_is_checked(admin: Caller, nobody: Caller, change: dict[str, int]) -> None:
    before = nobody.get("/api/app-config/agent")
    admin.ask("POST", "/api/app-config/agent", json={**before, **change}, expect=422)
    assert nobody.get("/api/app-config/agent") == before
