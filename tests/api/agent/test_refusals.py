"""Error documents of many servers: their words reach the user, and full windows, limits and waits are recognised."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moorage_api.agent.model.refusals import mask_secret, read_refusal

NO_HEADERS: dict[str, str] = {}

SAID: dict[str, str] = {
    "an object": '{"error": {"message": "no such thing", "type": "x"}}',
    "a list": '[{"error": {"code": 400, "message": "no such thing", "status": "INVALID_ARGUMENT"}}]',
    "a text as error": '{"error": "no such thing"}',
    "a detail": '{"detail": "no such thing"}',
    "a list of details": '{"detail": [{"loc": ["body"], "msg": "no such thing", "type": "value_error"}]}',
    "a message at the top": '{"object": "error", "message": "no such thing", "code": 40303}',
    "raw words of the server behind a gateway": json.dumps(
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {"raw": json.dumps({"error": {"message": "no such thing"}}), "provider_name": "M"},
            }
        }
    ),
    "raw words that are text": '{"error": {"message": "Provider error", "metadata": {"raw": "no such thing"}}}',
    "plain text": "no such thing",
    "a page": "<html><head><title>502</title></head><body><h1>no such thing</h1></body></html>",
    "a JSON text": '"no such thing"',
}


@pytest.mark.parametrize("body", SAID.values(), ids=SAID.keys())
def test_the_servers_own_words_are_found(body: str) -> None:
    assert "no such thing" in read_refusal(400, body, NO_HEADERS).said


def error(message: str, **fields: Any) -> str:
    return json.dumps({"error": {"message": message} | fields})


WINDOWS: dict[str, tuple[int, str]] = {
    "OpenAI": (400, error("This is too long", code="context_length_exceeded")),
    "llama.cpp": (400, error("the request exceeds the available context size", type="exceed_context_size_error")),
    "Anthropic": (400, error("prompt is too long: 215000 tokens > 200000 maximum", type="invalid_request_error")),
    "Anthropic's 413": (413, error("Request exceeds the maximum size", type="request_too_large")),
    "Anthropic with max_tokens": (400, error("input length and `max_tokens` exceed context limit: 1 + 2 > 3")),
    "Gemini": (400, f"[{error('The input token count (1200000) exceeds the maximum number of tokens allowed (9)')}]"),
    "Bedrock": (400, '{"message": "Input is too long for requested model."}'),
    "Qwen": (400, error("<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]")),
    "Kimi": (400, error("Invalid request: Your request exceeded model token limit: 131072")),
    "GLM": (400, error("Prompt exceeds max length", code="1261")),
    "xAI": (400, '{"error": "This model\'s maximum prompt length is 131072 but the request contains 150000 tokens."}'),
    "Together": (422, error("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9")),
    "vLLM": (400, '{"message": "The decoder prompt (length 5) is longer than the maximum model length of 4"}'),
    "vLLM's older text": (400, '{"message": "This model\'s maximum context length is 4096 tokens"}'),
    "Mistral": (400, '{"message": "Prompt contains 40000 tokens, too large for model with 32768 maximum context"}'),
    "Groq": (413, error("Please reduce the length of the messages or completion.")),
    "a gateway's 500": (500, error("litellm.APIError: prompt is too long: 3 tokens > 2 maximum")),
    "inside a stream": (0, error("exceeds the context window")),
    "behind OpenRouter": (400, SAID["raw words that are text"].replace("no such thing", "Input is too long for")),
}


@pytest.mark.parametrize(("status", "body"), WINDOWS.values(), ids=WINDOWS.keys())
def test_a_full_window_is_recognised(status: int, body: str) -> None:
    assert read_refusal(status, body, NO_HEADERS).is_window_full


OTHERS: dict[str, tuple[int, str]] = {
    "a rate limit that speaks of tokens": (429, error("Too many tokens per minute; reduce the length of the messages")),
    "a rate limit inside a stream": (0, error("too many tokens", code=429)),
    "a bad parameter": (400, error("temperature must be at most 2")),
    "no key": (401, error("invalid context size of key")),
}


@pytest.mark.parametrize(("status", "body"), OTHERS.values(), ids=OTHERS.keys())
def test_other_errors_are_no_full_window(status: int, body: str) -> None:
    assert not read_refusal(status, body, NO_HEADERS).is_window_full


DATE = "Wed, 21 Oct 2026 07:28:00 GMT"
WAITS: dict[str, tuple[dict[str, str], str, float | None]] = {
    "a header": ({"retry-after": "7"}, "{}", 7),
    "milliseconds": ({"retry-after-ms": "1500"}, "{}", 1.5),
    "a date": ({"retry-after": "Wed, 21 Oct 2026 07:28:09 GMT", "date": DATE}, "{}", 9),
    "a past date": ({"retry-after": "Wed, 21 Oct 2026 07:27:00 GMT", "date": DATE}, "{}", 0),
    "the body": ({}, '{"error": {"message": "slow", "retry_after": 3}}', 3),
    "Google's body": ({}, '[{"error": {"details": [{"@type": "RetryInfo", "retryDelay": "12.5s"}]}}]', 12.5),
    "a day": ({"retry-after": "86400"}, "{}", 600),
    "nonsense": ({"retry-after": "soon"}, "{}", None),
    "nothing": ({}, "slow down", None),
}


@pytest.mark.parametrize(("headers", "body", "seconds"), WAITS.values(), ids=WAITS.keys())
def test_the_time_to_wait_is_read(headers: dict[str, str], body: str, seconds: float | None) -> None:
    assert read_refusal(429, body, headers).retry_after_seconds == seconds


@pytest.mark.parametrize(
    ("secret", "text", "masked"),
    [
        ("sk-0123456789", "The key sk-0123456789 is wrong", "The key … is wrong"),
        ("sk-0123456789", "key=sk-0123456789.", "key=…."),
        ("sk-0123456789", "xsk-01234567890", "xsk-01234567890"),
        ("k", "the key of k", "the key of k"),
        ("ollama", "start ollama first", "start ollama first"),
        ("", "nothing", "nothing"),
    ],
)
def test_only_a_long_key_is_masked_and_only_as_a_whole(secret: str, text: str, masked: str) -> None:
    assert mask_secret(text, secret) == masked
    assert read_refusal(401, text, NO_HEADERS, secret=secret).said == masked
