"""The fake providers are strict: they refuse what the agent must not send, and cut what they cut."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from support.agent import shell
from support.llm import Calls, Say
from support.providers import families
from support.providers.server import Family, FamilyServer

SYSTEM = {"role": "system", "content": "You are an agent."}
USER = {"role": "user", "content": "List the files"}
TOOLS = [{"type": "function", "function": {"name": "shell_execute", "parameters": {"type": "object"}}}]


def history(**fields: Any) -> list[dict[str, Any]]:
    function = {"name": "shell_execute", "arguments": "{}"}
    call = {"id": "call00001", "type": "function", "function": function}
    said = {"role": "assistant", "content": "", "tool_calls": [call]} | fields
    return [SYSTEM, USER, said, {"role": "tool", "tool_call_id": "call00001", "content": "a.txt"}]


WITHOUT_RESULT = {"messages": history()[:3], "tools": TOOLS}
LATE_USER = {"messages": [*history(), USER], "tools": TOOLS}
LONG_ID = history(tool_calls=[history()[2]["tool_calls"][0] | {"id": "call_12345678"}])
LONG_ID[3] = LONG_ID[3] | {"tool_call_id": "call_12345678"}
FOREIGN = history(reasoning_content="I think")
FORGED = [{"type": "thinking", "thinking": "I think", "signature": "forged"}]

REFUSED: dict[str, tuple[Family, dict[str, Any], str]] = {
    "a call without its result": (families.OPENAI, WITHOUT_RESULT, "must be followed by tool messages"),
    "a foreign field": (families.OPENAI, {"messages": FOREIGN, "tools": TOOLS}, "Unknown parameter"),
    "max_tokens": (families.OPENAI_REASONING, {"messages": [USER], "max_tokens": 5}, "max_completion_tokens"),
    "a temperature": (families.OPENAI_REASONING, {"messages": [USER], "temperature": 0.7}, "temperature"),
    "tools of a thinking model": (families.OPENAI_REASONING, {"messages": [USER], "tools": TOOLS}, "/v1/responses"),
    "missing reasoning, DeepSeek": (families.DEEPSEEK, {"messages": history()}, "must be passed back"),
    "missing reasoning, Kimi": (families.KIMI, {"messages": history()}, "at index 2"),
    "changed reasoning": (families.KIMI, {"messages": FOREIGN}, "at index 2"),
    "a required call": (families.QWEN, {"messages": [USER], "tool_choice": "required"}, "thinking mode"),
    "no user": (families.GLM, {"messages": [SYSTEM]}, "1214"),
    "a missing signature": (families.GEMINI, {"messages": history()}, "thought_signature"),
    "tools left out, LiteLLM": (families.CLAUDE_LITELLM, {"messages": history()}, "Anthropic expects the `tools=`"),
    "tools left out, Bedrock": (families.CLAUDE_BEDROCK, {"messages": history()}, "toolConfig"),
    "a missing block": (families.CLAUDE_LITELLM, {"messages": history(), "tools": TOOLS}, "Expected `thinking`"),
    "a forged block": (
        families.CLAUDE_LITELLM,
        {"messages": history(thinking_blocks=FORGED), "tools": TOOLS},
        "Invalid `signature`",
    ),
    "the user behind a result": (families.MISTRAL, LATE_USER, "after role 'tool'"),
    "a long id": (families.MISTRAL, {"messages": LONG_ID, "tools": TOOLS}, "with a length of 9"),
    "a foreign field, Mistral": (families.MISTRAL, {"messages": FOREIGN, "tools": TOOLS}, "extra_forbidden"),
    "an effort": (families.XAI, {"messages": [USER], "reasoning_effort": "none"}, "not supported on this model"),
    "missing details": (families.OPENROUTER, {"messages": history()}, "reasoning details to be preserved"),
    "a late system message": (families.LLAMA_CPP, {"messages": [USER, SYSTEM]}, "at the beginning"),
}


def ask(server: FamilyServer, body: dict[str, Any]) -> httpx2.Response:
    return httpx2.post(f"{server.url}/chat/completions", json={"model": server.family.model, "stream": True} | body)


@pytest.mark.parametrize(("family", "body", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_family_refuses_what_its_provider_refuses(family: Family, body: dict[str, Any], words: str) -> None:
    with FamilyServer(family, [Say("Yes")] * 3) as server:
        answer = ask(server, body)
        assert answer.status_code >= 400
        assert words in answer.text
        assert len(server.refusals) == 1


@pytest.mark.parametrize("family", families.FAMILIES, ids=[family.name for family in families.FAMILIES])
def test_a_request_longer_than_the_window_is_refused_or_cut(family: Family) -> None:
    body = {"messages": [SYSTEM, USER | {"content": "word " * 4_000}]}
    with FamilyServer(family, [Say("Yes")], window_tokens=1_000) as server:
        answer = ask(server, body | {"stream_options": {"include_usage": True}})
        if family.window_refusal is None:
            assert answer.status_code == 200
            assert '"prompt_tokens": 1000' in answer.text
            assert len(server.cut_requests) == 1
        else:
            assert answer.status_code == 400


def test_parallel_calls_have_ids_of_their_own() -> None:
    for family in families.FAMILIES:
        with FamilyServer(family, [Calls(shell("ls"), shell("pwd"))]) as server:
            tools = {"tools": TOOLS, "reasoning_effort": "none"} if family is families.OPENAI_REASONING else {}
            text = ask(server, {"messages": [SYSTEM, USER]} | tools).text
        assert text.count('"name": "shell_execute"') == 2, family.name
