"""Unusual requests get the fitting client error, never an internal error."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.accounts import PASSWORD, Person, admin, client_for

from .conftest import Api

NOT_TEXT = {"a NUL": "\\u0000", "a lone surrogate": "\\ud800"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def root(api: Api) -> AsyncIterator[Person]:
    async with await admin(api.url, api.database_url) as person:
        yield person


@pytest.mark.parametrize("odd", NOT_TEXT.values(), ids=NOT_TEXT.keys())
async def test_a_password_with_unstorable_text_is_a_wrong_login(api: Api, alice: Person, odd: str) -> None:
    async with client_for(api.url) as client:
        for name in (alice.name, "nobody-at-all"):
            body = f'{{"username": "{name}", "password": "{PASSWORD}{odd}"}}'
            answer = await client.post("/api/auth/login", content=body, headers=JSON)
            assert (answer.status_code, answer.json()["code"]) == (401, 401)


@pytest.mark.parametrize(
    "odd", [*NOT_TEXT.values(), "\\n", "\\u4f60"], ids=[*NOT_TEXT.keys(), "a line feed", "not Latin-1"]
)
async def test_an_api_key_that_cannot_be_a_header_is_invalid(root: Person, odd: str) -> None:
    body = f'{{"base_url": "http://127.0.0.1:9/v1", "model_name": "m", "api_key": "k{odd}"}}'
    answer = await root.client.post("/api/app-config/llm", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (422, 422)
    assert [field["field"] for field in answer.json()["data"]["fields"]] == ["body.api_key"]


async def test_a_server_name_with_a_nul_is_not_found(root: Person) -> None:
    for path in ("app-config/mcp-servers/%00/delete", "app-config/mcp-servers/a%00b/refresh"):
        answer = await root.client.post(f"/api/{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, 404)
    for path in ("app-config/mcp-servers/%00/enabled", "user/tools/mcp/%00/enabled"):
        answer = await root.client.post(f"/api/{path}", json={"enabled": True})
        assert (answer.status_code, answer.json()["code"]) == (404, 404)
