"""Rules that families share. A rule reads a request and returns a refusal, or None if it finds nothing wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import pairwise
from typing import Any

from support.llm import Request
from support.providers.server import Issued, Refusal, Rule

MESSAGE_FIELDS: Mapping[str, frozenset[str]] = {
    "system": frozenset({"role", "content", "name"}),
    "developer": frozenset({"role", "content", "name"}),
    "user": frozenset({"role", "content", "name"}),
    "assistant": frozenset({"role", "content", "name", "tool_calls", "refusal"}),
    "tool": frozenset({"role", "content", "tool_call_id"}),
}
CALL_FIELDS = frozenset({"id", "type", "function"})


def assistant_calls(request: Request) -> Iterator[tuple[int, dict[str, Any]]]:
    """The assistant messages with tool calls, each with its index in the request."""
    for index, message in enumerate(request["messages"]):
        if message["role"] == "assistant" and message.get("tool_calls"):
            yield index, message


def messages_are_well_formed(request: Request, _issued: Issued) -> Refusal | None:
    """Known roles, text or parts as content, and after each message with calls exactly the results of these calls."""
    messages = request["messages"]
    expected: list[str] = []
    for index, message in enumerate(messages):
        if message["role"] not in MESSAGE_FIELDS:
            return Refusal(f"Invalid value: '{message['role']}'.", param=f"messages[{index}].role")
        if not isinstance(message.get("content"), (str, list)):
            return Refusal(f"Invalid value for 'content': expected a string, got null. (messages[{index}])")
        if message["role"] == "tool":
            if message["tool_call_id"] not in expected:
                return Refusal(
                    "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.",
                    param=f"messages[{index}].role",
                )
            expected.remove(message["tool_call_id"])
            continue
        if expected:
            break
        expected = [call["id"] for call in message.get("tool_calls", ())]
    if expected:
        return Refusal(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(expected)}"
        )
    return None


def extra_fields_are_refused(
    words: Callable[[int, str], Refusal], *, message: Collection[str] = (), call: Collection[str] = ()
) -> Rule:
    """Messages and calls may have the standard fields and those named here. `words` gets the index and the field."""

    def rule(request: Request, _issued: Issued) -> Refusal | None:
        for index, item in enumerate(request["messages"]):
            unknown = item.keys() - MESSAGE_FIELDS[item["role"]] - set(message)
            for tool_call in item.get("tool_calls", ()):
                unknown |= tool_call.keys() - CALL_FIELDS - set(call)
            if unknown:
                return words(index, sorted(unknown)[0])
        return None

    return rule


def body_fields_are_refused(fields: Collection[str], words: Callable[[str], Refusal]) -> Rule:
    def rule(request: Request, _issued: Issued) -> Refusal | None:
        return next((words(name) for name in fields if request.get(name) is not None), None)

    return rule


def temperature_must_be_1(words: str) -> Rule:
    def rule(request: Request, _issued: Issued) -> Refusal | None:
        if request.get("temperature") in (None, 1):
            return None
        return Refusal(words.format(value=request["temperature"]), param="temperature", code="unsupported_value")

    return rule


def is_forced(request: Request) -> bool:
    return request.get("tool_choice") not in (None, "auto", "none")


def is_thinking(request: Request) -> bool:
    """Thinking is on unless the request turns it off, in the way of DeepSeek and Kimi or in that of Qwen."""
    is_off = (request.get("thinking") or {}).get("type") == "disabled" or request.get("enable_thinking") is False
    return not is_off


def no_forced_call_while_thinking(words: str) -> Rule:
    def rule(request: Request, _issued: Issued) -> Refusal | None:
        return Refusal(words) if is_forced(request) and is_thinking(request) else None

    return rule


def reasoning_is_given_back(words: str, *, key: str = "reasoning_content", only_this_turn: bool = False) -> Rule:
    """Each assistant message with calls has the reasoning that the server sent, unchanged.

    `only_this_turn` asks for it behind the last message of the user only.
    """

    def rule(request: Request, issued: Issued) -> Refusal | None:
        if not is_thinking(request):
            return None
        users = [index for index, message in enumerate(request["messages"]) if message["role"] == "user"]
        for index, message in assistant_calls(request):
            is_old = only_this_turn and index < users[-1]
            if not is_old and message.get(key) not in issued.values:
                return Refusal(words.format(index=index))
        return None

    return rule


def tools_are_sent_with_calls(words: str) -> Rule:
    """A request whose history has calls or results also has `tools`."""

    def rule(request: Request, _issued: Issued) -> Refusal | None:
        has_calls = any(message.get("tool_calls") or message["role"] == "tool" for message in request["messages"])
        return Refusal(words) if has_calls and not request.get("tools") else None

    return rule


def thinking_blocks_are_given_back(words: str) -> Rule:
    """The last assistant message with calls begins with the signed thinking block that the server sent."""

    def rule(request: Request, issued: Issued) -> Refusal | None:
        for index, message in reversed(list(assistant_calls(request))):
            blocks = message.get("thinking_blocks") or []
            if not blocks:
                return Refusal(words.format(index=index))
            for place, block in enumerate(blocks):
                if not issued.is_for(block.get("signature"), block.get("thinking", "")):
                    return Refusal(f"messages.{index}.content.{place}: Invalid `signature` in `thinking` block")
            return None
        return None

    return rule


def no_user_after_tool(request: Request, _issued: Issued) -> Refusal | None:
    roles = [message["role"] for message in request["messages"]]
    if ("tool", "user") not in pairwise(roles):
        return None
    return Refusal("Unexpected role 'user' after role 'tool'", code="3230", kind="invalid_request_message_order")


def call_ids_have_9_characters(request: Request, _issued: Issued) -> Refusal | None:
    for _, message in assistant_calls(request):
        for call in message["tool_calls"]:
            if not re.fullmatch("[a-zA-Z0-9]{9}", call["id"]):
                words = f"Tool call id was {call['id']} but must be a-z, A-Z, 0-9, with a length of 9."
                return Refusal(words, code="3280", kind="invalid_function_call")
    return None
