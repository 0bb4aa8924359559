"""A client that disconnects is not logged as an error of the api."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request

from moorage_api.http import errors as http_errors


async def test_a_client_that_disconnects_while_it_sends_is_not_logged(caplog: Any) -> None:
    app = FastAPI()
    http_errors.install(app)

    @app.post("/")
    async def read(request: Request) -> None:
        await request.body()

    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": [], "http_version": "1.1"}
    await app(scope, receive, send)
    assert sent[0]["status"] == 400
    assert not caplog.records
