"""Error documents of many servers: their words reach the user, and full windows, limits and waits are recognised."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moorage_api.agent.model.llm import LlmClient
from moorage_api.agent.model.servers.errors import WindowFullError
from moorage_api.agent.model.servers.refusals import mask_secret, read_refusal
from moorage_api.agent.model.servers.waits import describe_seconds
from moorage_api.outbound import Outbound
from support.llm import Raw, Say, ScriptedModel, Tries

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
    "capital letters": '{"Message": "no such thing"}',
    "errors by field": '{"errors": {"model": ["no such thing"]}}',
    "a list of errors": '{"errors": ["no such thing"]}',
    "another key": '{"status": 400, "explanation": "no such thing"}',
    "MiniMax": '{"base_resp": {"status_code": 2013, "status_msg": "no such thing"}}',
    "a list of texts": '["no such thing"]',
}


@pytest.mark.parametrize("body", SAID.values(), ids=SAID.keys())
def test_the_servers_own_words_are_found(body: str) -> None:
    assert "no such thing" in read_refusal(400, body, NO_HEADERS).server_text


ODD_WAITS: dict[str, tuple[dict[str, str], str, float | None]] = {
    "a year of fourteen digits": ({"retry-after": "Mon, 01 Jan 99999999999999 00:00:00 GMT"}, "{}", None),
    "such a year as the date": (
        {"date": "Mon, 01 Jan 99999999999999 00:00:00 GMT", "retry-after": "5"},
        "",
        5,
    ),
    "the end of time": ({"date": "Mon, 01 Jan 0001 00:00:00 +2300", "retry-after": "5"}, "", 5),
    "the last day in the far west": ({"retry-after": "Fri, 31 Dec 9999 23:59:59 -2300"}, "{}", None),
    "400 digits": ({"retry-after": "9" * 400}, "{}", None),
    "400 digits of milliseconds": ({"retry-after-ms": "9" * 400}, "{}", None),
    "400 digits in the body": ({}, json.dumps({"retry_after": "9" * 400}), None),
    "400 digits in words": ({}, f"retry in {'9' * 400} s", None),
    "endless": ({"x-ratelimit-reset": "inf"}, json.dumps({"retry_after": 5}), 5),
    "no number": ({"x-ratelimit-reset": "nan"}, "{}", None),
    "twenty digits": ({"retry-after": "9" * 20}, "{}", 10**8),
    "a long s": ({}, "retry in 5\u017f", None),
    "Arabic digits": ({"retry-after": "\u0665"}, "{}", None),
}


@pytest.mark.parametrize(("headers", "body", "seconds"), ODD_WAITS.values(), ids=ODD_WAITS.keys())
def test_an_impossible_wait_is_ignored_or_cut(headers: dict[str, str], body: str, seconds: float | None) -> None:
    wait = read_refusal(429, body, headers).retry_after_seconds
    assert wait == seconds
    assert describe_seconds(wait or 0)


@pytest.mark.parametrize("code", ["0500" + "9" * 5_000, "4" * 5_000, "5\u0660\u0660"])
def test_a_code_that_is_no_status_is_not_taken_for_one(code: str) -> None:
    assert read_refusal(0, json.dumps({"error": {"message": "no", "code": code}}), NO_HEADERS).status in (0, 500)


def test_a_page_that_never_ends_or_has_an_impossible_character_keeps_its_words() -> None:
    for page in ("<html><head><title>no such thing", f"no such thing &#{'9' * 5_000};", "<" * 9 + "no such thing"):
        assert "no such thing" in read_refusal(502, page, NO_HEADERS).server_text


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
    "SGLang": (400, error("The input (61709 tokens) is longer than the model's context length (40960 tokens).")),
    "SGLang without memory": (
        400,
        error("Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens)."),
    ),
    "SGLang inside a stream": (
        400,
        '{"error": {"object": "error", "message": "The input is longer than the model\'s '
        'context length", "type": "BadRequestError", "param": null, "code": 400}}',
    ),
    "LM Studio": (
        400,
        '{"error": "Trying to keep the first 13055 tokens when context the overflows. However, the model '
        'is loaded with context length of only 4096 tokens"}',
    ),
    "LM Studio's n_keep": (
        400,
        '{"error": "tokens to keep from the initial prompt is greater (n_keep: 13055>= n_ctx: 4096)"}',
    ),
    "Copilot": (400, error("prompt token count of 93854 exceeds the limit of 90000", code="model_max_prompt_tokens")),
    "Azure": (400, error("Input tokens exceed the configured limit of 272000 tokens.", code="context_length_exceeded")),
    "Bedrock's Nova": (
        400,
        '{"detail": "Too many input tokens. Max input tokens: 300000, request input token count: 5"}',
    ),
    "Gemini's text": (400, f"[{error('The input token count exceeds the maximum number of tokens allowed 1048576.')}]"),
    "OpenRouter": (
        400,
        error("This endpoint's maximum context length is 9 tokens. Please reduce the length of either one"),
    ),
    "MiniMax": (400, error("invalid params, context window exceeds limit (2013)")),
    "Venice inside a stream": (
        0,
        '{"error_type": "context_length_exceeded", "error_message": "too many for this model"}',
    ),
    "z.ai's reason for an end": (0, error("The answer ended: model_context_window_exceeded")),
    "only a status": (413, ""),
    "behind OpenRouter": (400, SAID["raw words that are text"].replace("no such thing", "Input is too long for")),
}


@pytest.mark.parametrize(("status", "body"), WINDOWS.values(), ids=WINDOWS.keys())
def test_a_full_window_is_recognised(status: int, body: str) -> None:
    assert read_refusal(status, body, NO_HEADERS).is_window_full


OTHERS: dict[str, tuple[int, str]] = {
    "a rate limit that speaks of tokens": (429, error("Too many tokens per minute; reduce the length of the messages")),
    "a rate limit inside a stream": (0, error("too many tokens", code=429)),
    "Groq's tokens per minute": (
        413,
        error("Request too large for model `m` on tokens per minute (TPM): Limit 6000", code="rate_limit_exceeded"),
    ),
    "OpenAI's tokens per minute": (429, error("Request too large for gpt-4o: Limit 30000, Requested 342389")),
    "a bad parameter": (400, error("temperature must be at most 2")),
    "no key": (401, error("invalid context size of key")),
}


@pytest.mark.parametrize(("status", "body"), OTHERS.values(), ids=OTHERS.keys())
def test_other_errors_are_no_full_window(status: int, body: str) -> None:
    assert not read_refusal(status, body, NO_HEADERS).is_window_full


CREDIT: dict[str, tuple[int, str]] = {
    "402": (402, "{}"),
    "OpenAI": (429, error("You exceeded your current quota", code="insufficient_quota")),
    "Moonshot": (429, error("Your account is suspended", type="exceeded_current_quota_error")),
    "Anthropic": (400, error("Your credit balance is too low to access the Anthropic API")),
    "GLM": (429, error("余额不足或无可用资源包,请充值。", code="1113")),
    "Qwen": (400, error("Access denied", code="Arrearage")),
    "behind LiteLLM": (429, error("litellm.RateLimitError: {'code': 'insufficient_quota'}")),
}


@pytest.mark.parametrize(("status", "body"), CREDIT.values(), ids=CREDIT.keys())
def test_an_empty_account_is_recognised(status: int, body: str) -> None:
    assert read_refusal(status, body, NO_HEADERS).is_no_credit


def test_a_limit_that_passes_is_no_empty_account() -> None:
    text = "You exceeded your current quota, please check your plan and billing details. Please retry in 17s."
    assert not read_refusal(429, error(text, status="RESOURCE_EXHAUSTED"), NO_HEADERS).is_no_credit


DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


def error_of(message: str) -> str:
    return json.dumps({"error": {"message": message, "type": "tokens", "code": "rate_limit_exceeded"}})


WAITS: dict[str, tuple[dict[str, str], str, float | None]] = {
    "a header": ({"retry-after": "7"}, "{}", 7),
    "milliseconds": ({"retry-after-ms": "1500"}, "{}", 1.5),
    "a date": ({"retry-after": "Wed, 21 Oct 2026 07:28:09 GMT", "date": DATE}, "{}", 9),
    "a past date": ({"retry-after": "Wed, 21 Oct 2026 07:27:00 GMT", "date": DATE}, "{}", 0),
    "the body": ({}, '{"error": {"message": "slow", "retry_after": 3}}', 3),
    "Google's body": ({}, '[{"error": {"details": [{"@type": "RetryInfo", "retryDelay": "12.5s"}]}}]', 12.5),
    "a day": ({"retry-after": "86400"}, "{}", 86_400),
    "a duration": ({"retry-after": "1m30.5s"}, "{}", 90.5),
    "a day without a clock": ({"retry-after": "2026-10-21T07:28:09Z", "date": DATE}, "{}", 9),
    "milliseconds in the body": ({}, '{"error": {"message": "slow", "retry_after_ms": 2500}}', 2.5),
    "another key": ({}, '{"error": {"message": "slow", "retryAfter": "20"}}', 20),
    "gRPC": ({}, '{"error": {"details": [{"@type": "RetryInfo", "retryDelay": "34s"}]}}', 34),
    "gRPC as an object": ({}, '{"error": {"details": [{"retryDelay": {"seconds": 34}}]}}', 34),
    "Groq's words": ({}, error_of("Limit 15000, Used 11972. Please try again in 5.289s. Visit the page"), 5.289),
    "OpenAI's words": ({}, error_of("Rate limit reached. Please try again in 1m30.5s."), 90.5),
    "OpenAI's milliseconds": ({}, error_of("Please try again in 6ms. Visit"), 0.006),
    "Azure's words": ({}, error_of("Please retry after 25 seconds."), 25),
    "Gemini's words": ({}, error_of("Quota exceeded. Please retry in 17.500000001s."), 17.500000001),
    "hours in words": ({}, error_of("Try again in 1 hour and 5 minutes"), 3_900),
    "words in raw": ({}, json.dumps({"error": {"message": "P", "metadata": {"raw": "try again in 20s"}}}), 20),
    "the time of a reset": ({"x-ratelimit-reset": "1792567710", "date": DATE}, "{}", 30),
    "the same in milliseconds": (
        {"date": DATE},
        '{"error": {"metadata": {"headers": {"X-RateLimit-Reset": "1792567710000"}}}}',
        30,
    ),
    "words without a time": ({}, error_of("Please try again later. Limit 15 s"), None),
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
        ("sk-01234/56789", "the key sk-01234\\/56789 or SK-01234%2f56789", "the key … or …"),
        ("k", "the key of k", "the key of k"),
        ("ollama", "start ollama first", "start ollama first"),
        ("", "nothing", "nothing"),
    ],
)
def test_only_a_long_key_is_masked_and_only_as_a_whole(secret: str, text: str, masked: str) -> None:
    assert mask_secret(text, secret) == masked
    assert read_refusal(401, text, NO_HEADERS, secrets=[secret]).server_text == masked


FULL = "This model's maximum context length is 8192 tokens"
ENDS = {"choices": [{"index": 0, "delta": {}, "finish_reason": "model_context_window_exceeded"}]}
IN_STREAMS: dict[str, object] = {
    "an error": {"error": {"message": FULL}},
    "with a status": {"error": {"object": "error", "message": FULL, "code": 400}},
    "with a status as text": {"error": {"message": FULL, "code": "400"}},
    "an error as text": {"error": FULL},
    "without a field for it": {"object": "error", "message": FULL, "code": 400},
    "Venice": {"error_type": "context_length_exceeded", "error_message": "too many"},
    "a detail": {"detail": FULL},
    "a failed response": {"type": "response.failed", "response": {"error": {"code": "context_length_exceeded"}}},
    "in the choice": {"choices": [{"index": 0, "delta": {}, "error": {"message": FULL}}]},
    "as the reason of the end": ENDS,
}


@pytest.mark.parametrize("document", IN_STREAMS.values(), ids=IN_STREAMS.keys())
async def test_a_full_window_is_recognised_inside_a_stream(document: object) -> None:
    begun = {"choices": [{"index": 0, "delta": {"content": "We"}}]}
    for events in ([document], [begun, document]):
        with ScriptedModel([Raw([*events, "[DONE]"])]) as model:
            async with LlmClient(model.url, "", "m", outbound=Outbound()) as llm:
                with pytest.raises(WindowFullError) as caught:
                    await llm.ask([{"role": "user", "content": "Hello?"}])
        assert caught.value.window_tokens in (8192, None)
        assert len(model.requests) == 1


async def test_a_rate_limit_inside_a_stream_is_waited_out() -> None:
    limited = Raw([{"error": {"message": "too many tokens", "code": "429"}}])
    with ScriptedModel([Tries(limited, Say("Hello"))]) as model:
        async with LlmClient(model.url, "", "m", outbound=Outbound(), backoff_seconds=0.01) as llm:
            assert (await llm.ask([{"role": "user", "content": "Hello?"}])).text == "Hello"
