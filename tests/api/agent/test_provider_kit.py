"""The fake providers are strict: they refuse what the agent must not send, and cut what they cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from support.agent import shell
from support.llm import Calls, Request, Say
from support.providers import families, rules
from support.providers.server import Family, FamilyServer, Issued, Rule

SYSTEM = {"role": "system", "content": "You are an agent."}
USER = {"role": "user", "content": "List the files"}
SAID = {"role": "assistant", "content": "I list them."}


def tool(name: str = "shell_execute", **schema: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"command": {"type": "string"}}} | schema
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def history(**fields: Any) -> list[dict[str, Any]]:
    """A request after one call. `fields` change the message with the call."""
    function = {"name": "shell_execute", "arguments": "{}"}
    call = {"id": "call00001", "type": "function", "function": function}
    message = {"role": "assistant", "content": "", "tool_calls": [call]} | fields
    return [SYSTEM, USER, message, {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "a.txt"}]


def call(**fields: Any) -> list[dict[str, Any]]:
    """A request after one call that differs by `fields`."""
    return history(tool_calls=[history()[2]["tool_calls"][0] | fields])


TOOLS = [tool()]


def schema_of(**schema: Any) -> dict[str, Any]:
    """A request with a tool whose argument has this schema."""
    return {"messages": [USER], "tools": [tool(properties={"command": schema})]}


FOREIGN = history(reasoning_content="I think")
FORGED = [{"type": "thinking", "thinking": "I think", "signature": "forged"}]
BAD_ARGUMENTS = call(function={"name": "shell_execute", "arguments": "{'a': 1}"})
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
SEEN = [*history()[:3], history()[3] | {"content": [PICTURE]}]
UNNAMED = {"command": {"description": "No type"}}
BOTH = {"command": {"type": "string", "anyOf": [{"type": "string"}]}}

ILL_FORMED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown role": ({"messages": [{"role": "robot", "content": "Hi"}]}, "robot"),
    "no content": ({"messages": [USER, {"role": "assistant", "content": None}, USER]}, "expected a string"),
    "a call without its result": ({"messages": history()[:3]}, "must be followed by tool messages"),
    "a result that comes late": ({"messages": [*history()[:3], USER, history()[3]]}, "must be followed"),
    "a result without a call": ({"messages": [USER, history()[3]]}, "must be a response to"),
    "arguments that are no object": ({"messages": BAD_ARGUMENTS}, "Invalid function arguments"),
}
REFUSED: dict[str, tuple[Family, dict[str, Any], str]] = {
    "a foreign field": (families.OPENAI, {"messages": FOREIGN}, "Unknown parameter"),
    "a foreign field of a call": (families.OPENAI, {"messages": call(extra_content={})}, "extra_content"),
    "a choice without tools": (families.OPENAI, {"messages": [USER], "tool_choice": "auto"}, "only allowed when"),
    "a very long id": (families.OPENAI, {"messages": call(id="c" * 41)}, "maximum length 40"),
    "a name with a dot": (families.OPENAI, {"messages": [USER], "tools": [tool("a.b")]}, "tools[0].function.name"),
    "a foreign field, gpt-5": (families.OPENAI_REASONING, {"messages": FOREIGN}, "Unknown parameter"),
    "a choice without tools, gpt-5": (
        families.OPENAI_REASONING,
        {"messages": [USER], "tool_choice": "auto"},
        "only allowed when",
    ),
    "a very long id, gpt-5": (families.OPENAI_REASONING, {"messages": call(id="c" * 41)}, "maximum length 40"),
    "a name with a dot, gpt-5": (
        families.OPENAI_REASONING,
        {"messages": [USER], "tools": [tool("a.b")], "reasoning_effort": "none"},
        "tools[0].function.name",
    ),
    "a picture in a result": (families.OPENAI, {"messages": SEEN}, "only allowed for messages with role 'user'"),
    "a picture in a result, gpt-5": (families.OPENAI_REASONING, {"messages": SEEN}, "only allowed for messages"),
    "a picture in a result, Mistral": (families.MISTRAL, {"messages": SEEN, "tools": TOOLS}, "only allowed for"),
    "a picture, DeepSeek": (families.DEEPSEEK, {"messages": [USER | {"content": [PICTURE]}]}, "unknown variant"),
    "a mark of another provider": (
        families.MISTRAL,
        {"messages": [USER | {"content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}]},
        "cache_control",
    ),
    "max_tokens": (families.OPENAI_REASONING, {"messages": [USER], "max_tokens": 5}, "max_completion_tokens"),
    "a temperature": (families.OPENAI_REASONING, {"messages": [USER], "temperature": 0.7}, "temperature"),
    "tools of a thinking model": (families.OPENAI_REASONING, {"messages": [USER], "tools": TOOLS}, "/v1/responses"),
    "a required call, DeepSeek": (families.DEEPSEEK, {"messages": [USER], "tool_choice": "required"}, "Thinking mode"),
    "missing reasoning, DeepSeek": (families.DEEPSEEK, {"messages": history()}, "must be passed back"),
    "an answer without reasoning": (families.DEEPSEEK, {"messages": [USER, SAID, USER]}, "must be passed back"),
    "a long answer, DeepSeek": (families.DEEPSEEK, {"messages": [USER], "max_tokens": 8193}, "[1, 8192]"),
    "a temperature, Kimi": (families.KIMI, {"messages": [USER], "temperature": 0.7}, "only 1 is allowed"),
    "a required call, Kimi": (families.KIMI, {"messages": [USER], "tool_choice": "required"}, "incompatible"),
    "missing reasoning, Kimi": (families.KIMI, {"messages": history()}, "at index 2"),
    "changed reasoning": (families.KIMI, {"messages": FOREIGN}, "at index 2"),
    "a schema that is no object": (families.KIMI, {"messages": [USER], "tools": [tool(type="string")]}, "is required"),
    "a schema without a type": (
        families.KIMI,
        {"messages": [USER], "tools": [tool(properties=UNNAMED)]},
        "type is not defined",
    ),
    "a type beside anyOf": (families.KIMI, {"messages": [USER], "tools": [tool(properties=BOTH)]}, "in anyOf items"),
    "a required call": (families.QWEN, {"messages": [USER], "tool_choice": "required"}, "thinking mode"),
    "a long answer, Qwen": (families.QWEN, {"messages": [USER], "max_tokens": 65_537}, "[1, 65536]"),
    "no user": (families.GLM, {"messages": [SYSTEM]}, "1214"),
    "a choice without tools, GLM": (families.GLM, {"messages": [USER], "tool_choice": "auto"}, "1210"),
    "a required call, GLM": (
        families.GLM,
        {"messages": [USER], "tools": TOOLS, "tool_choice": "required"},
        "must be auto",
    ),
    "no call, GLM": (
        families.GLM,
        {"messages": [USER], "tools": TOOLS, "tool_choice": "none"},
        "must be auto",
    ),
    "a foreign field, Gemini": (families.GEMINI, {"messages": FOREIGN}, "Cannot find field"),
    "thinking, Gemini": (
        families.GEMINI,
        {"messages": [USER], "thinking": {"type": "disabled"}},
        "Cannot find field",
    ),
    "a missing signature": (families.GEMINI, {"messages": history()}, "thought_signature"),
    "a call behind a text": (families.GEMINI, {"messages": [USER, SAID, *history()[2:]]}, "immediately after a user"),
    "additionalProperties": (
        families.GEMINI,
        {"messages": [USER], "tools": [tool(additionalProperties=False)]},
        "additionalProperties",
    ),
    "a list of types": (families.GEMINI, schema_of(type=["string", "null"]), "cannot start list"),
    "an enum of numbers": (families.GEMINI, schema_of(type="integer", enum=[1]), "(TYPE_STRING), 1"),
    "no type, Gemini": (families.GEMINI, schema_of(description="Any"), "must be specified"),
    "an array without items": (families.GEMINI, schema_of(type="array"), "items: missing field"),
    "a schema without properties": (families.GEMINI, {"messages": [USER], "tools": [tool(properties={})]}, "non-empty"),
    "a name with a digit": (families.GEMINI, {"messages": [USER], "tools": [tool("1st")]}, "Invalid function name"),
    "tools left out, LiteLLM": (families.CLAUDE_LITELLM, {"messages": history()}, "Anthropic expects the `tools=`"),
    "a temperature, LiteLLM": (families.CLAUDE_LITELLM, {"messages": [USER], "temperature": 0.7}, "only be set to 1"),
    "a required call, LiteLLM": (
        families.CLAUDE_LITELLM,
        {"messages": [USER], "tool_choice": "required"},
        "forces tool use",
    ),
    "a missing block": (families.CLAUDE_LITELLM, {"messages": history(), "tools": TOOLS}, "Expected `thinking`"),
    "a forged block": (
        families.CLAUDE_LITELLM,
        {"messages": history(thinking_blocks=FORGED), "tools": TOOLS},
        "Invalid `signature`",
    ),
    "a prefill, LiteLLM": (families.CLAUDE_LITELLM, {"messages": [USER, SAID]}, "must end with a user message"),
    "a blank text, LiteLLM": (
        families.CLAUDE_LITELLM,
        {"messages": [USER, SAID | {"content": "\n\n"}, USER]},
        "non-whitespace",
    ),
    "tools left out, Bedrock": (families.CLAUDE_BEDROCK, {"messages": history()}, "toolConfig"),
    "a first message of the model": (families.CLAUDE_BEDROCK, {"messages": [SYSTEM, SAID, USER]}, "must start with"),
    "two messages of the user": (families.CLAUDE_BEDROCK, {"messages": [USER, USER]}, "must alternate"),
    "a prefill, Bedrock": (families.CLAUDE_BEDROCK, {"messages": [USER, SAID]}, "must end with a user message"),
    "a blank text, Bedrock": (
        families.CLAUDE_BEDROCK,
        {"messages": history(content=" "), "tools": TOOLS},
        "non-whitespace",
    ),
    "a foreign field, Mistral": (families.MISTRAL, {"messages": FOREIGN}, "extra_forbidden"),
    "stream_options": (families.MISTRAL, {"messages": [USER], "stream_options": {}}, "include_usage"),
    "the user behind a result": (families.MISTRAL, {"messages": [*history(), USER]}, "after role 'tool'"),
    "a long id": (families.MISTRAL, {"messages": call(id="call_12345678")}, "with a length of 9"),
    "a last message of the model": (families.MISTRAL, {"messages": [USER, SAID]}, "Expected last role User or Tool"),
    "no content, xAI": (families.XAI, {"messages": [USER | {"content": []}]}, "at least one content element"),
    "an effort": (families.XAI, {"messages": [USER], "reasoning_effort": "none"}, "not supported on this model"),
    "missing details": (families.OPENROUTER, {"messages": history()}, "reasoning details to be preserved"),
    "a call behind a text, OpenRouter": (
        families.OPENROUTER,
        {"messages": [USER, SAID, *history()[2:]]},
        "immediately after a user",
    ),
    "a late system message": (families.LLAMA_CPP, {"messages": [USER, SYSTEM]}, "at the beginning"),
    "a prefill, llama.cpp": (families.LLAMA_CPP, {"messages": [USER, SAID]}, "incompatible with enable_thinking"),
}
each_family = pytest.mark.parametrize("family", families.FAMILIES, ids=[family.name for family in families.FAMILIES])


def ask(server: FamilyServer, body: dict[str, Any]) -> httpx2.Response:
    return httpx2.post(f"{server.url}/chat/completions", json={"model": server.family.model, "stream": True} | body)


def biting(family: Family, request: Request) -> Iterator[tuple[Rule, str]]:
    """The rules that refuse the request, each with its words."""
    for rule in family.rules:
        if (refusal := rule({"model": family.model} | request, Issued())) is not None:
            yield rule, str(family.error_body(refusal))


@pytest.mark.parametrize(("family", "body", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_family_refuses_what_its_provider_refuses(family: Family, body: dict[str, Any], words: str) -> None:
    assert any(words in text for _, text in biting(family, body))
    with FamilyServer(family, [Say("Yes")] * 3) as server:
        assert ask(server, body).status_code >= 400
        assert len(server.refusals) == 1


@each_family
@pytest.mark.parametrize(("body", "words"), ILL_FORMED.values(), ids=ILL_FORMED.keys())
def test_an_ill_formed_conversation_is_refused(family: Family, body: dict[str, Any], words: str) -> None:
    found = [text for _, text in biting(family, body)]
    expected = "The messages parameter is illegal" if family is families.GLM else words
    assert any(expected in text for text in found)


@each_family
def test_every_rule_of_a_family_has_a_request_that_it_refuses(family: Family) -> None:
    bodies = [body for other, body, _ in REFUSED.values() if other is family]
    bodies += [body for body, _ in ILL_FORMED.values()]
    bitten = {id(rule) for body in bodies for rule, _ in biting(family, body)}
    assert [rule for rule in family.rules if id(rule) not in bitten] == []


@each_family
def test_a_family_takes_a_plain_request(family: Family) -> None:
    effort = {"reasoning_effort": "none"} if family is families.OPENAI_REASONING else {}
    assert [*biting(family, {"messages": [SYSTEM, USER], "tools": TOOLS} | effort)] == []
    with FamilyServer(family, [Say("Yes")]) as server:
        assert ask(server, {"messages": [SYSTEM, USER]}).status_code == 200


@each_family
def test_every_field_of_another_provider_is_noticed(family: Family) -> None:
    with FamilyServer(family, [Say("Yes")] * 3) as server:
        ask(server, {"messages": [*history(whatever_comes_next="x"), USER]})
        ask(server, {"messages": [*call(whatever_comes_next="x"), USER]})
    assert server.strangers == ["messages[2].whatever_comes_next"] * 2


@each_family
def test_a_request_longer_than_the_window_is_refused_or_cut(family: Family) -> None:
    older = USER | {"content": "word " * 4_000}
    body = {"messages": [SYSTEM, older, USER], "stream_options": {"include_usage": True}}
    seen: list[Request] = []

    def answer(request: Request) -> Say:
        seen.append(request)
        return Say("Yes")

    with FamilyServer(family, answer, window_tokens=1_000) as server:
        status = ask(server, body).status_code
    if family.window_refusal is not None:
        assert (status, server.window_refusals, seen) == (400, 1, [])
    else:
        assert status == 200
        assert server.usages[0]["prompt_tokens"] < 1_000
        assert seen[0]["messages"] == [SYSTEM, USER], "the system message and the newest messages are read"


@each_family
def test_a_server_that_reserves_the_answer_refuses_a_request_without_room_for_it(family: Family) -> None:
    with FamilyServer(family, [Say("Yes")], window_tokens=4_000) as server:
        ask(server, {"messages": [USER], "max_tokens": 4_000})
    assert server.window_refusals == family.counts_answer


def test_parallel_calls_have_ids_of_their_own() -> None:
    for family in families.FAMILIES:
        with FamilyServer(family, [Calls(shell("ls"), shell("pwd"))]) as server:
            tools = {"tools": TOOLS, "reasoning_effort": "none"} if family is families.OPENAI_REASONING else {}
            text = ask(server, {"messages": [SYSTEM, USER]} | tools).text
        assert text.count('"name": "shell_execute"') == 2, family.name


def test_no_server_issues_the_same_value_as_another() -> None:
    assert Issued().issue("reasoning") != Issued().issue("reasoning")


def test_nested_schemas_are_checked() -> None:
    nested = {"type": "array", "items": {"anyOf": [{"type": "object", "additionalProperties": False}]}}
    found = {path for _, path, _ in rules.schemas({"tools": [tool(properties={"a": nested})]})}
    assert "properties.a.items.anyOf" in found
