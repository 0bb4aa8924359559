"""Every request has an id that a log line and the response share."""

from __future__ import annotations

import json
import logging

import httpx2
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from moorage_api.http import errors
from moorage_api.http.request_id import RequestId
from moorage_common.logging_setup import JsonFormatter


async def get_logged_id(request: Request) -> PlainTextResponse:
    record = logging.makeLogRecord({"msg": "working"})
    return PlainTextResponse(json.loads(JsonFormatter().format(record))["request_id"])


def client() -> httpx2.AsyncClient:
    app = RequestId(Starlette(routes=[Route("/", get_logged_id)]))
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://test")


async def test_a_request_without_an_id_gets_one_of_its_own() -> None:
    async with client() as http:
        first, second = [await http.get("/") for _ in range(2)]
    assert first.headers["X-Request-ID"] == first.text
    assert first.text != second.text
    assert len(first.text) == 16


async def test_the_id_of_a_client_or_a_proxy_is_kept() -> None:
    async with client() as http:
        response = await http.get("/", headers={"X-Request-ID": "from-the-proxy.1"})
    assert response.headers["X-Request-ID"] == response.text == "from-the-proxy.1"


@pytest.mark.parametrize("odd", ["", "a b", "x" * 65, 'a"b', "a=b"])
async def test_an_id_that_could_disturb_a_log_is_replaced(odd: str) -> None:
    async with client() as http:
        response = await http.get("/", headers={"X-Request-ID": odd})
    assert response.headers["X-Request-ID"] == response.text != odd


async def test_an_unexpected_error_carries_the_id_of_its_request(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_: Request) -> PlainTextResponse:
        raise LookupError("broken")

    app = FastAPI()
    app.add_route("/", fail)
    errors.install(app)
    app.add_middleware(RequestId)
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
        response = await http.get("/", headers={"X-Request-ID": "from-the-proxy.1"})
    assert response.status_code == 500
    assert response.headers.get_list("X-Request-ID") == ["from-the-proxy.1"]
    assert response.json()["data"]["request_id"] == "from-the-proxy.1"
    assert "Unexpected error" in caplog.text
