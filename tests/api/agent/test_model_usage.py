"""What a model call used: read from the server wherever it says it, and estimated where it says nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from moorage_api.agent.model.incoming.usage import ModelCall, Usage, read_usage
from moorage_api.agent.model.llm import LlmClient
from moorage_api.agent.model.servers.errors import LlmError
from moorage_api.outbound import Outbound
from support.llm import Drop, Hang, Raw, Request, Say, ScriptedModel, Status, Tries, Turn

QUESTION = [{"role": "user", "content": "How are you?"}]
FULL = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}


@pytest.mark.parametrize(
    ("chunk", "usage"),
    [
        pytest.param({"usage": FULL}, Usage(100, 20), id="plain"),
        pytest.param(
            {
                "usage": FULL
                | {
                    "prompt_tokens_details": {"cached_tokens": 64},
                    "completion_tokens_details": {"reasoning_tokens": 15},
                }
            },
            Usage(100, 20, 64, 15),
            id="OpenAI",
        ),
        pytest.param({"usage": FULL | {"prompt_cache_hit_tokens": 64}}, Usage(100, 20, 64), id="DeepSeek"),
        pytest.param({"choices": [{"usage": FULL | {"cached_tokens": 9}}]}, Usage(100, 20, 9), id="Moonshot"),
        pytest.param({"choices": [], "x_groq": {"usage": FULL}}, Usage(100, 20), id="Groq"),
        pytest.param(
            {"usage": FULL | {"total_tokens": 150, "completion_tokens_details": {"reasoning_tokens": 30}}},
            Usage(100, 50, 0, 30),
            id="xAI: reasoning is only in the total",
        ),
        pytest.param({"usage": FULL | {"total_tokens": 150}}, Usage(100, 50, 0, 30), id="Gemini: unnamed reasoning"),
        pytest.param(
            {"usage": {"input_tokens": 10, "output_tokens": 20, "cache_read_input_tokens": 90}},
            Usage(100, 20, 90),
            id="Anthropic: cached input is counted apart",
        ),
        pytest.param({"usage": {"prompt_tokens": 7}}, None, id="only the input"),
        pytest.param({"usage": {"prompt_tokens": "7", "completion_tokens": -1}}, None, id="no numbers"),
        pytest.param({"usage": {"prompt_tokens": 0, "completion_tokens": 0}}, None, id="zeros of an early chunk"),
        pytest.param({"usage": FULL | {"prompt_tokens_details": 3}}, Usage(100, 20), id="odd details"),
        pytest.param({"usage": {"prompt_tokens": "1200", "completion_tokens": "3"}}, Usage(1200, 3), id="texts"),
        pytest.param({"usage": FULL | {"prompt_tokens": -5}}, None, id="a negative number"),
        pytest.param({"usage": FULL | {"prompt_tokens": 1e30}}, None, id="a huge number"),
        pytest.param({"usage": FULL | {"completion_tokens": "9" * 5_000}}, None, id="a huge text"),
        pytest.param({"usage": {"prompt_tokens": 7, "total_tokens": 9}}, Usage(7, 2, 0, 2), id="output in the total"),
        pytest.param({"usage": FULL | {"total_tokens": 10**9}}, Usage(100, 20), id="an absurd total"),
        pytest.param(
            {"usage": {"input_tokens": 20, "output_tokens": 5, "cache_creation_input_tokens": 9_000}},
            Usage(9_020, 5),
            id="Anthropic: what it put into its cache",
        ),
        pytest.param({"usage": None, "choices": None}, None, id="null"),
        pytest.param({"usage": "free", "choices": ["odd"]}, None, id="text"),
        pytest.param({}, None, id="nothing"),
    ],
)
def test_usage_is_read_wherever_a_server_says_it(chunk: dict[str, Any], usage: Usage | None) -> None:
    assert read_usage(chunk) == usage


async def ask(model: ScriptedModel, *, retries: int = 0) -> list[ModelCall]:
    calls: list[ModelCall] = []
    async with LlmClient(
        model.url, "sk-for-tests", "scripted", outbound=Outbound(), backoff_seconds=0.01, on_call=calls.append
    ) as llm:
        try:
            await llm.ask(QUESTION, max_retries=retries)
        except LlmError:
            assert not retries, "the retries were enough"
    return calls


async def test_a_call_reports_what_the_server_counted() -> None:
    with ScriptedModel([Say("Well.", reasoning="Hm")]) as model:
        calls = await ask(model)
        billed = model.billed[0]
        assert calls == [
            ModelCall("scripted", model.url, Usage(billed["prompt_tokens"], 7, 0, 2), "answered"),
        ]


async def test_a_call_is_estimated_and_marked_if_the_server_does_not_say_its_usage() -> None:
    with ScriptedModel([Say("Well, " * 70)], sends_usage=False) as model:
        [call] = await ask(model)
    assert call.usage.is_estimated
    assert 80 <= call.usage.output_tokens <= 140
    assert 5 <= call.usage.input_tokens <= 40


REFUSALS = [
    pytest.param({"error": {"message": "Unrecognized request argument: stream_options"}}, id="message"),
    pytest.param({"error": {"message": "Invalid value", "param": "stream_options"}}, id="param"),
    pytest.param({"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]}, id="list"),
]


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_server_that_refuses_to_send_usage_is_asked_without(refusal: object) -> None:
    def answer(request: Request) -> Turn:
        return Status(400, refusal) if "stream_options" in request else Say("Well.")

    calls: list[ModelCall] = []
    with ScriptedModel(answer) as model:
        async with LlmClient(model.url, "sk", "scripted", outbound=Outbound(), on_call=calls.append) as llm:
            await llm.ask(QUESTION)
            await llm.ask(QUESTION)
        assert ["stream_options" in request for request in model.requests] == [True, False, False]
    assert [(call.outcome, call.usage.is_estimated) for call in calls] == [("answered", True), ("answered", True)]


CHUNK = {"choices": [{"index": 0, "delta": {"content": "We"}}], "usage": FULL}
BROKEN = [
    pytest.param(Drop(Say("Well, this is cut."), after=3), True, id="cut connection"),
    pytest.param(Raw([CHUNK, "{not JSON"]), False, id="broken chunk after a usage"),
    pytest.param(Raw([CHUNK, {"error": {"message": "overloaded"}}]), False, id="error after a usage"),
]


@pytest.mark.parametrize(("turn", "is_estimated"), BROKEN)
async def test_an_answer_that_breaks_off_counts_beside_the_answer_of_the_retry(turn: Turn, is_estimated: bool) -> None:
    with ScriptedModel([Tries(turn, Say("Well."))]) as model:
        calls = await ask(model, retries=1)
    assert [call.outcome for call in calls] == ["failed", "answered"]
    assert [call.usage.is_estimated for call in calls] == [is_estimated, False]
    if not is_estimated:
        assert calls[0].usage == Usage(100, 20)


@pytest.mark.parametrize("turn", [Status(500), Status(429), Status(400, {"error": {"message": "no"}})])
async def test_a_refused_request_does_not_count(turn: Turn) -> None:
    with ScriptedModel([turn]) as model:
        assert await ask(model) == []


async def test_an_interrupted_answer_counts_with_an_estimate() -> None:
    calls: list[ModelCall] = []
    begun = asyncio.Event()

    async def progress(_: object) -> None:
        begun.set()

    with ScriptedModel([Say("word " * 200)], chunk_delay_seconds=0.05) as model:
        async with LlmClient(model.url, "sk", "scripted", outbound=Outbound(), on_call=calls.append) as llm:
            asking = asyncio.create_task(llm.ask(QUESTION, on_progress=progress))
            await begun.wait()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
    assert [(call.outcome, call.usage.is_estimated) for call in calls] == [("interrupted", True)]


@pytest.mark.parametrize(
    ("turn", "outcomes"),
    [
        pytest.param(Say("Well."), ["started", "answered"], id="answered"),
        pytest.param(
            Tries(Status(500), Say("Well.")), ["started", "refused", "started", "answered"], id="refused once"
        ),
        pytest.param(Hang(), ["started", "interrupted"], id="interrupted before the answer began"),
    ],
)
async def test_each_request_is_reported_before_it_is_sent_and_when_it_has_ended(
    turn: Turn, outcomes: list[str]
) -> None:
    calls: list[ModelCall] = []

    with ScriptedModel([turn]) as model:

        async def start(call: ModelCall) -> None:
            assert len(model.requests) == sum(call.outcome == "started" for call in calls)
            calls.append(call)

        async with LlmClient(
            model.url, "sk", "m", outbound=Outbound(), backoff_seconds=0.01, on_start=start, on_call=calls.append
        ) as llm:
            asking = asyncio.create_task(llm.ask(QUESTION))
            if isinstance(turn, Hang):
                await model.wait_for_requests(1)
                asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
    assert [call.outcome for call in calls] == outcomes
    assert [before.id == after.id for before, after in batched(calls)] == [True] * (len(calls) // 2)
    assert all(call.usage.input_tokens > 0 for call in calls if call.outcome != "refused")


def batched(calls: list[ModelCall]) -> list[tuple[ModelCall, ModelCall]]:
    return list(zip(calls[::2], calls[1::2], strict=True))


async def test_the_usage_of_a_response_without_a_stream_is_read() -> None:
    whole = {"choices": [{"message": {"content": "Well."}, "finish_reason": "stop"}], "usage": FULL}
    with ScriptedModel([Status(200, json.dumps(whole))]) as model:
        [call] = await ask(model)
    assert call.usage == Usage(100, 20)
