"""What one answer of a server changes for all users: only what is sure, and only after the other form was answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from moorage_api.agent.model.llm import LlmClient, LlmError
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
