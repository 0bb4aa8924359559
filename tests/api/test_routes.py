"""The table of routes, the page that is generated from it, and the OpenAPI document."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from jsonschema import Draft202012Validator

from moorage_api.app import create_app_without_services
from moorage_api.http.openapi.document import list_operations
from moorage_api.http.provided import Services, check_provided
from moorage_api.http.routes import BY_KEY, RULES, format_table, keys_of, rules_of
from support.accounts import Person, client_for

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = create_app_without_services().openapi()
OPERATIONS = dict(list_operations(DOCUMENT))
JSON = {"Content-Type": "application/json"}
VNC = "GET /api/sessions/{session_id}/vnc"
BODILESS = {"GET /api/auth/wechat/callback", VNC}
"""Routes whose successful response has no body: a redirect and a change of protocol."""


def test_every_route_has_one_rule() -> None:
    assert len(BY_KEY) == len(RULES)
    assert {key for key, _ in keys_of(create_app_without_services().routes)} <= set(BY_KEY)


def test_an_app_with_a_route_without_a_rule_cannot_be_built() -> None:
    app = create_app_without_services()
    forgotten = APIRouter()

    @forgotten.get("/forgotten")
    async def forgotten_route() -> None:
        """A route without a rule in the table."""

    app.include_router(forgotten, prefix="/api")
    with pytest.raises(LookupError, match="GET /api/forgotten"):
        rules_of(app.routes)


def test_the_authorization_page_ends_with_the_current_table() -> None:
    assert (DOCS / "authorization.md").read_text().endswith(format_table() + "\n")


def test_every_route_is_in_the_document() -> None:
    """The routes that only show the document are not in it."""
    served = {key.replace("{below:anything}", "{below}") for key, _ in keys_of(create_app_without_services().routes)}
    own = {key for key in served if key.startswith(("GET /docs", "GET /redoc", "GET /openapi"))}
    shown = {key.replace("{below:anything}", "{below}") for key in OPERATIONS}
    assert shown == served - own - {VNC.replace("GET", "WS")} | {VNC}


@pytest.mark.parametrize("key", OPERATIONS)
def test_a_described_route_has_all_its_parts(key: str) -> None:
    operation = OPERATIONS[key]
    assert operation["description"].strip()
    assert len(operation["tags"]) == 1
    assert operation["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}
    assert operation["summary"]
    assert all(parameter["description"].strip() for parameter in operation.get("parameters", []))
    for status, response in operation["responses"].items():
        assert response["description"].strip(), status
        if key not in BODILESS or int(status) >= 400:
            assert response["content"], status
        for kind, media in response.get("content", {}).items():
            assert kind != "application/json" or media["schema"], status
    for status in ("400", "401", "403", "404", "409", "413", "422", "429", "503"):
        if found := operation["responses"].get(status):
            assert found["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorEnvelope")


@pytest.mark.parametrize("key", OPERATIONS)
def test_examples_are_valid_for_their_schemas(key: str) -> None:
    operation = OPERATIONS[key]
    for body in (operation.get("requestBody", {}), *operation["responses"].values()):
        for kind, media in body.get("content", {}).items():
            if "schema" not in media:
                continue
            assert "example" in media or kind == "application/octet-stream" or kind.startswith("image/")
            if kind == "application/json":
                schema = {**media["schema"], "components": DOCUMENT["components"]}
                Draft202012Validator(schema).validate(media["example"])


def test_operation_ids_are_unique() -> None:
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(names) == len(set(names))


async def test_the_document_is_served(api: Any) -> None:
    async with client_for(api.url) as client:
        assert (await client.get("/openapi.json")).json() == json.loads(json.dumps(DOCUMENT))


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_documentation_pages_load_nothing_from_other_servers(api: Any, path: str) -> None:
    """All their scripts and styles are served by us, and the browser must refuse everything else."""
    async with client_for(api.url) as client:
        page = await client.get(path)
        loaded = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert loaded
        for url in loaded:
            assert url.startswith("/docs/assets/"), url
            asset = await client.get(url)
            assert asset.status_code == 200
            assert len(asset.content) > 1000
        assert "/openapi.json" in page.text
        assert not re.search(r"""["'(]https?://""", page.text)


async def test_an_unknown_asset_is_not_found(api: Any) -> None:
    async with client_for(api.url) as client:
        for name in ("nothing.js", "..%2F..%2Fstandalone_docs.py", "swagger-ui-bundle.js.map"):
            assert (await client.get(f"/docs/assets/{name}")).status_code == 404


def test_an_app_with_a_route_whose_service_is_not_built_does_not_start() -> None:
    with pytest.raises(LookupError, match="`wiring` builds no "):
        check_provided(create_app_without_services().routes, Services([]))


async def test_a_trailing_slash_changes_nothing_and_does_not_redirect(api: Any, alice: Person) -> None:
    """A redirect would lead to the host in the request, and behind a proxy from https to http."""
    headers = {"Host": "elsewhere.example"}
    for path in ("/api/sessions", "/api/auth/me", "/docs", "/api/status"):
        plain = await alice.client.get(path)
        assert (await alice.client.get(f"{path}/", headers=headers)).status_code == plain.status_code == 200
    assert (await alice.client.post("/api/sessions/", json={})).status_code == 200
    assert (await alice.client.post("/api/files/", files={"file": ("a", bytes(3_000_000))})).status_code == 200
    assert (await alice.client.get("/api/sessions//")).status_code == 404


async def test_errors_of_the_framework_have_an_error_word(api: Any) -> None:
    async def too_much() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b" " * 1_000_000

    async with client_for(api.url) as client:
        for answer, word in (
            (await client.get("/api/none-such"), "not_found"),
            (await client.get("/api/auth/login"), "method_not_allowed"),
            (await client.post("/api/auth/login", content=b"[" * 100_000, headers=JSON), "invalid"),
            (await client.post("/api/auth/login", content=too_much(), headers=JSON), "too_large"),
        ):
            assert answer.json()["data"] == {"error": word}


async def test_every_path_of_the_first_skill_api_answers_410(api: Any) -> None:
    async with client_for(api.url) as client:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            for path in ("", "/", "/some-skill", "/some-skill/enabled", "/a/b/c", "/a%0Ab", "/%0A", "/a%0A"):
                answer: httpx.Response = await client.request(method, f"/api/app-config/skills{path}")
                assert (answer.status_code, answer.json()) == (
                    410,
                    {
                        "code": 410,
                        "msg": "SKILL_API_MOVED",
                        "data": {"code": "SKILL_API_MOVED", "migrate_to": "/api/v2/skills"},
                    },
                )
        assert (await client.head("/api/app-config/skills/x")).status_code == 410
