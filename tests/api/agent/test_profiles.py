"""Servers that refuse a part of our requests: it is left out or changed, learnt once, and known from then on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from moorage_api.agent.model.llm import LlmClient
from moorage_api.agent.model.outgoing import profiles
from moorage_api.agent.ports import Function
from moorage_api.agent.toolsets.function_schema import function, text
from moorage_api.outbound import Outbound
from support.llm import Request, Say, ScriptedModel, Status, Turn

TOOL = function("ls", "List", {"path": text("Where")})
EMPTY_TOOL = Function("now", "The time", {"type": "object", "properties": {}})
CALL = {"id": "call00001", "type": "function", "function": {"name": "ls", "arguments": "{}"}}
HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": "Go"},
    {"role": "assistant", "content": "", "tool_calls": [CALL | {"extra_content": {"x": 1}}], "reasoning": "Hm"},
    {"role": "tool", "tool_call_id": "call00001", "content": "a.txt"},
    {"role": "user", "content": "And now?"},
]


def roles(request: Request) -> list[str]:
    return [message["role"] for message in request["messages"]]


def schemas(request: Request) -> list[dict[str, Any]]:
    return [tool["function"]["parameters"] for tool in request.get("tools", ())]


def refuse(words: str, when: Callable[[Request], bool], *, status: int = 400) -> Callable[[Request], Turn]:
    def answer(request: Request) -> Turn:
        return Status(status, {"error": {"message": words}}) if when(request) else Say("Fine")

    return answer


EFFORT = (
    "Function tools with reasoning_effort are not supported for gpt-5.6 in /v1/chat/completions. To use function "
    "tools, use /v1/responses or set reasoning_effort to 'none'."
)
RULES: dict[str, tuple[Callable[[Request], Turn], bool]] = {
    "an explicit effort with tools": (
        refuse(EFFORT, lambda request: "tools" in request and request.get("reasoning_effort") != "none"),
        True,
    ),
    "tools with each history that has calls": (
        refuse("Bedrock doesn't support tool calling without `tools=` param specified.", lambda r: "tools" not in r),
        False,
    ),
    "tools, in Bedrock's own words, behind a 500": (
        refuse(
            "The toolConfig field must be defined when using toolUse and toolResult content blocks.",
            lambda request: "tools" not in request,
            status=500,
        ),
        False,
    ),
    "no user message behind a result": (
        refuse(
            "Unexpected role 'user' after role 'tool'",
            lambda request: ("tool", "user") in zip(roles(request), roles(request)[1:], strict=False),
        ),
        True,
    ),
    "no additionalProperties": (
        refuse(
            'Invalid JSON payload received. Unknown name "additionalProperties" at tools[0]: Cannot find field.',
            lambda request: any("additionalProperties" in schema for schema in schemas(request)),
        ),
        True,
    ),
    "properties that are not empty": (
        refuse(
            "tools[1].function.parameters.properties: should be non-empty for OBJECT type",
            lambda request: any(not schema["properties"] for schema in schemas(request)),
        ),
        True,
    ),
    "no foreign field in a message": (
        refuse(
            "property 'messages.1.reasoning' is unsupported", lambda r: any("reasoning" in m for m in r["messages"])
        ),
        True,
    ),
    "no foreign field in a call": (
        refuse(
            "Extra inputs are not permitted: messages.1.tool_calls.0.extra_content",
            lambda request: any("extra_content" in c for m in request["messages"] for c in m.get("tool_calls", ())),
            status=422,
        ),
        True,
    ),
    "a smaller answer": (
        refuse(
            "max_tokens is too large: 8192. This model supports at most 4096 completion tokens",
            lambda request: request["max_tokens"] > 4096,
        ),
        True,
    ),
}


@pytest.mark.parametrize(("answer", "with_tools"), RULES.values(), ids=RULES.keys())
async def test_a_refused_request_is_sent_in_another_form_and_the_next_client_knows_it(
    answer: Callable[[Request], Turn], with_tools: bool
) -> None:
    facts: dict[str, Any] = {}

    async def store(learnt: Mapping[str, Any]) -> None:
        facts.update(learnt)

    tools = [TOOL, EMPTY_TOOL] if with_tools else []
    with ScriptedModel(answer) as model:
        for expected in (2, 3):
            client = LlmClient(
                model.url, "", "scripted", outbound=Outbound(), facts=facts, on_learnt=store, backoff_seconds=0.01
            )
            async with client:
                assert (await client.ask(HISTORY, tools=tools)).text == "Fine"
            assert len(model.requests) == expected


async def test_a_server_that_refuses_again_and_again_gets_a_bounded_number_of_requests() -> None:
    with ScriptedModel(
        refuse("tool_choice temperature max_completion_tokens reasoning_effort", lambda _: True)
    ) as model:
        async with LlmClient(model.url, "", "gpt-5.6", outbound=Outbound()) as client:
            with pytest.raises(Exception, match="tool_choice temperature"):
                await client.ask(HISTORY, tools=[TOOL], force=True)
        assert len(model.requests) < 12


FAMILIES: dict[str, dict[str, Any]] = {
    "gpt-5.6-terra": {"effort_with_tools": "none", "max_tokens_field": "max_completion_tokens"},
    "openai/gpt-5.4": {"effort_with_tools": "none", "sends_temperature": False},
    "gpt-5-mini": {"effort_with_tools": "", "sends_temperature": False},
    "o3": {"max_tokens_field": "max_completion_tokens"},
    "gpt-4o": {"max_tokens_field": "max_tokens", "sends_temperature": True},
    "kimi-k2.5": {"required_field": "reasoning_content"},
    "moonshotai/kimi-k2-thinking": {"required_field": "reasoning_content"},
    "mistral-large-latest": {"allows_user_after_tool": False},
    "anthropic.claude-sonnet-4-5": {"needs_tools_with_calls": True},
    "qwen3:8b": {},
}


@pytest.mark.parametrize(("model", "facts"), FAMILIES.items(), ids=FAMILIES.keys())
def test_a_family_is_known_by_its_name(model: str, facts: dict[str, Any]) -> None:
    profile = profiles.choose(model)
    assert {name: getattr(profile, name) for name in facts} == facts


def test_stored_facts_of_another_version_do_no_harm() -> None:
    facts = {"no_such_fact": 1, "can_force": "yes", "refused_fields": ["a"], "max_answer_tokens": 5}
    profile = profiles.correct(profiles.Profile(), facts)
    assert (profile.can_force, profile.refused_fields, profile.max_answer_tokens) == (True, ("a",), 5)
