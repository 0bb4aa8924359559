"""What one answer of a server changes for all users: only what is sure, and only after the other form was answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from moorage_api.agent.model.llm import LlmClient
from moorage_api.agent.model.outgoing.profiles import Profile
from moorage_api.agent.model.servers.errors import LlmError
from moorage_api.agent.model.servers.learning import learn
from moorage_api.agent.model.servers.refusals import Refusal
from moorage_api.agent.toolsets.function_schema import function, text
from moorage_api.outbound import Outbound
from support.llm import Call, Calls, Request, Responder, Say, ScriptedModel, Status, Turn

QUESTION = [{"role": "user", "content": "Hello?"}]
PLAN, LIST = (function(name, name, {"path": text("Where")}) for name in ("make_plan", "ls"))


async def ask(script: Responder | Sequence[Turn], *, times: int = 1, **options: Any) -> dict[str, Any]:
    """Ask so many times, and return the facts that are stored for all users."""
    facts: dict[str, Any] = {}

    async def store(learnt: Mapping[str, Any]) -> None:
        facts.update(learnt)

    with ScriptedModel(script if callable(script) else list(script)) as model:
        client = LlmClient(
            model.url, "", "scripted", outbound=Outbound(), on_learnt=store, backoff_seconds=0.01, **options
        )
        async with client:
            for _ in range(times):
                await client.ask(QUESTION, tools=[PLAN, LIST], allowed={"make_plan"}, force=True, max_retries=1)
    facts.pop("has_native_calls", None)
    return facts


@pytest.mark.parametrize("status", [400, 422, 500])
async def test_nothing_is_learnt_from_refusals_that_no_other_form_avoids(status: int) -> None:
    words = "Unexpected trouble with temperature, tool_choice, stream_options, reasoning_effort, additionalProperties"
    facts: dict[str, Any] = {}

    async def store(learnt: Mapping[str, Any]) -> None:
        facts.update(learnt)

    with ScriptedModel(lambda _: Status(status, {"error": {"message": words}})) as model:
        async with LlmClient(
            model.url, "", "scripted", outbound=Outbound(), on_learnt=store, backoff_seconds=0.01
        ) as client:
            for _ in range(2):
                model.requests.clear()
                with pytest.raises(LlmError):
                    await client.ask(QUESTION, tools=[PLAN], force=True, max_retries=0)
                assert "temperature" in model.requests[0], "this client keeps its form, too"
                assert "stream_options" in model.requests[0]
    assert facts == {}


def refuse(words: str, field: str, *, status: int = 400) -> Responder:
    def answer(request: Request) -> Turn:
        return Status(status, {"error": {"message": words}}) if field in request else Say("Fine")

    return answer


STORED: dict[str, tuple[Responder, dict[str, Any]]] = {
    "a parameter that is refused": (
        refuse("'temperature' does not support 0.7. Only the default (1) is supported", "temperature"),
        {"sends_temperature": False},
    ),
    "a value that is too large": (refuse("temperature must be in the range [0, 1]", "temperature"), {}),
    "a value between others": (refuse("temperature must be between 0 and 1", "temperature"), {}),
    "trouble that passes": (refuse("Unexpected failure: temperature", "temperature", status=500), {}),
}


@pytest.mark.parametrize(("answer", "expected"), STORED.values(), ids=STORED.keys())
async def test_a_temperature_is_left_out_for_all_users_only_where_no_value_of_it_is_accepted(
    answer: Responder, expected: dict[str, Any]
) -> None:
    assert await ask(answer) == expected


@pytest.mark.parametrize(("is_between", "is_stored"), [(True, False), (False, True)])
async def test_a_server_ignores_tool_choice_only_if_two_answers_in_a_row_show_it(
    is_between: bool, is_stored: bool
) -> None:
    answers = 0

    def answer(request: Request) -> Turn:
        nonlocal answers
        if len(request["tools"]) == 1:
            return Calls(Call("make_plan", {"path": "."}))  # offered once more, after it called what it must not call
        answers += 1
        is_obeying = answers == 2 and is_between
        return Calls(Call("make_plan" if is_obeying else "ls", {"path": "."}))

    assert ("obeys_choice" in await ask(answer, times=3 if is_between else 2)) == is_stored


async def test_a_limit_of_the_answer_that_is_no_number_does_no_harm() -> None:
    with pytest.raises(LlmError, match="integer below 8192"):
        await ask(
            [Status(400, {"error": {"message": "max_tokens must be an integer below 8192"}})],
            extra_body={"max_tokens": "9000"},
        )


BODY: dict[str, Any] = {
    "messages": [{"role": "assistant", "content": "Hm", "reasoning": "I think"}],
    "max_tokens": 8192,
}


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        ("max_tokens is too large: 8192. This model supports at most 4096 completion tokens", 4096),
        ("`max_tokens` must be less than or equal to `4096`, the maximum value for `max_tokens`", 4096),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 4096]", 4096),
        ("max_tokens: 8192 > 4096, which is the maximum allowed number of output tokens for this model", 4096),
        ("max_output_tokens must be in a range from 1 (inclusive) to 4097 (exclusive)", 4097),
        ("max_tokens must be <= 4096; error 8001 on 2026-11-28", 4096),
        ("max_tokens 8192 is over the maximum of 4096", 4096),
        ("max_tokens + prompt length (8192 + 3000) exceeds the context window of 8193", 0),
        ("Given: 3000 `inputs` tokens and 8192 `max_new_tokens`, their sum must be <= 8100", 0),
        ("Rate: max_tokens 8192 not allowed for tier 1 (code 1004)", 0),
        ("Quota: 5000 of the max_tokens budget 8192 left", 0),
        ("max_tokens must be at most 300", 0),
        ("max_tokens is refused (error 4001 on 2026-11-28)", 0),
    ],
)
def test_a_longest_answer_is_learnt_only_from_words_that_clearly_name_it(words: str, limit: int) -> None:
    facts = learn(Profile(), Refusal(400, words, words=words), BODY)
    assert facts == ({"max_answer_tokens": limit} if limit else {})


@pytest.mark.parametrize(
    ("status", "words", "is_learnt"),
    [
        (400, "property 'messages.1.reasoning' is unsupported", True),
        (422, "Extra inputs are not permitted: messages.1.reasoning", True),
        (400, "Unknown name \"reasoning\" at 'messages[1]': Cannot find field.", True),
        (400, "Additional properties are not allowed ('reasoning' was unexpected)", True),
        (400, "unknown field `reasoning`, expected one of `role`, `content`", True),
        (400, "Unrecognized request argument supplied: reasoning", True),
        (400, "messages[1].reasoning: not supported", True),
        (500, "property 'messages.1.reasoning' is unsupported", False),
        (500, "Unexpected failure in the reasoning engine", False),
        (400, "The content was flagged by our reasoning safety model and is not allowed", False),
        (400, "This reasoning model cannot be used: unsupported region", False),
    ],
)
def test_a_field_is_left_out_only_if_the_server_says_that_it_does_not_know_it(
    status: int, words: str, is_learnt: bool
) -> None:
    facts = learn(Profile(), Refusal(status, words, words=words), BODY)
    assert facts == ({"refused_fields": ["reasoning"]} if is_learnt else {})


@pytest.mark.parametrize(
    "words",
    [
        "tool_call_id must be a valid string",
        "id: Input should be a valid string",
        "user must be a string; only text below 64 characters",
    ],
)
def test_a_text_that_another_field_must_have_does_not_take_the_pictures_away(words: str) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    body = {"messages": [{"role": "user", "content": [picture]}]}
    assert learn(Profile(sees=True), Refusal(400, words, words=words), body) == {}
