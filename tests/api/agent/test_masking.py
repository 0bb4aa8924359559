"""A secret of the configuration that a server repeats never leaves the client, whatever shape its answer has."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moorage_api.agent.model.llm import LlmClient
from moorage_api.agent.model.servers.errors import LlmError
from moorage_api.outbound import Outbound
from support.llm import Body, Raw, ScriptedModel, Status, Turn

KEY = "sk-Key/of+the-API=="
HEADER = "Secret/of+the-header=="
HEADERS = {"X-Auth": HEADER, "X-Other": f"Bearer {HEADER}2"}
WORDS = "The server says"


def document(text: str) -> dict[str, Any]:
    return {"error": {"message": text, "type": "server_error"}}


def escaped(text: str) -> str:
    return json.dumps(document(text)).replace("/", "\\/").replace("+", "\\u002b")


def shapes(secret: str) -> dict[str, Turn]:
    text = f"{WORDS} no to {secret}"
    long = f"{WORDS} {'x' * 470} {secret} and more"
    return {
        "a refusal": Status(400, document(text)),
        "a refusal with escapes": Status(400, escaped(text)),
        "a refusal that is cut": Status(400, document(long)),
        "a refusal without JSON": Status(400, text),
        "a refusal with broken JSON": Status(400, escaped(text)[:-1]),
        "an error of the server": Status(503, document(text)),
        "a refused key": Status(401, document(text)),
        "an unknown model": Status(404, document(text)),
        "a full window": Status(400, document(f"{text}: maximum context length is 9000 tokens")),
        "a rate limit": Status(429, document(text), {"Retry-After": "90000"}),
        "a document with status 200": Body([json.dumps(document(text)).encode()], content_type="application/json"),
        "a page with status 200": Body([f"<p>{text}</p>".encode()], content_type="text/html"),
        "an error in a stream": Raw([document(text)]),
        "an error in a stream with escapes": Raw([escaped(text)]),
        "a named error event": Body([f"event: error\ndata: {text}\n\n".encode()]),
        "an event that is no JSON": Raw([text]),
        "an event that is no JSON, with escapes": Raw([escaped(text)[:-1]]),
        "the reason of an end": Raw([{"choices": [{"delta": {"content": "x"}, "finish_reason": f"error: {text}"}]}]),
    }


@pytest.mark.parametrize("shape", shapes("").keys())
@pytest.mark.parametrize("secret", [KEY, HEADER, f"Bearer {HEADER}2", f"{HEADER}2"])
async def test_an_error_does_not_show_a_secret(shape: str, secret: str) -> None:
    reasons: list[str] = []

    async def note_reason(reason: str, _seconds: float) -> None:
        reasons.append(reason)

    with ScriptedModel([shapes(secret)[shape]]) as model:
        client = LlmClient(model.url, KEY, "scripted", outbound=Outbound(), backoff_seconds=0.01, headers=HEADERS)
        async with client:
            with pytest.raises(LlmError) as caught:
                await client.ask([{"role": "user", "content": "Hello?"}], max_retries=1, on_wait=note_reason)
    for shown in (str(caught.value), *reasons):
        assert WORDS.lower() in shown.lower()
        assert not any(
            part in shown.lower() for part in ("key/of", "secret/of", "key\\/of", "secret\\/of", "the-header")
        )
        assert "sk-key" not in shown.lower()
