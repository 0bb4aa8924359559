"""Rules that families share. A rule reads a request and returns a refusal, or None if it finds nothing wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import pairwise
from typing import Any

from support.llm import Request
from support.providers.server import MESSAGE_FIELDS, Issued, OwnFields, Refusal, Rule, extra_fields

Words = Callable[[int, str], Refusal]
"""The refusal for the message with this index and this name of a field."""


def assistant_calls(request: Request) -> Iterator[tuple[int, dict[str, Any]]]:
    """The assistant messages with tool calls, each with its index in the request."""
    for index, message in enumerate(request["messages"]):
        if message["role"] == "assistant" and message.get("tool_calls"):
            yield index, message


def has_pictures(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(part.get("type") == "image_url" for part in content)


def messages_are_well_formed(request: Request, _issued: Issued) -> Refusal | None:
    """Known roles, text or parts as content, arguments that are objects, and behind calls exactly their results.

    Only messages of the user have pictures.
    """
    messages = request["messages"]
    expected: list[str] = []
    for index, message in enumerate(messages):
        if message["role"] not in MESSAGE_FIELDS:
            return Refusal(f"Invalid value: '{message['role']}'.", param=f"messages[{index}].role")
        if not isinstance(message.get("content"), (str, list)):
            return Refusal(f"Invalid value for 'content': expected a string, got null. (messages[{index}])")
        if message["role"] != "user" and has_pictures(message):
            return Refusal("Invalid value: 'image_url'. Supported values are: 'text'.", param=f"messages[{index}]")
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
        calls = message.get("tool_calls", ())
        if not all(is_object(call["function"]["arguments"]) for call in calls):
            return Refusal("Invalid function arguments: not a JSON object", param=f"messages[{index}].tool_calls")
        expected = [call["id"] for call in calls]
    if expected:
        return Refusal(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(expected)}"
        )
    return None


def is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def extra_fields_are_refused(words: Words, own: OwnFields | None = None) -> Rule:
    """Messages, calls and parts of a content may have the standard fields and `own`."""

    def rule(request: Request, _issued: Issued) -> Refusal | None:
        return next((words(*found) for found in extra_fields(request, own or OwnFields())), None)

    return rule


def body_fields_are_refused(fields: Collection[str], words: Callable[[str], Refusal]) -> Rule:
    def rule(request: Request, _issued: Issued) -> Refusal | None:
        return next((words(name) for name in sorted(fields) if request.get(name) is not None), None)

    return rule


def only_these_body_fields(fields: Collection[str], words: Callable[[str], Refusal]) -> Rule:
    def rule(request: Request, _issued: Issued) -> Refusal | None:
        return next((words(name) for name in sorted(request.keys() - set(fields))), None)

    return rule


def max_tokens_are_at_most(limit: int, words: str) -> Rule:
    def rule(request: Request, _issued: Issued) -> Refusal | None:
        return Refusal(words.format(limit=limit)) if (request.get("max_tokens") or 0) > limit else None

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


def tool_choice_needs_tools(request: Request, _issued: Issued) -> Refusal | None:
    if request.get("tool_choice") is None or request.get("tools"):
        return None
    words = "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified."
    return Refusal(words, param="tool_choice")


def reasoning_is_given_back(words: str, *, of_texts: bool = False) -> Rule:
    """Each message with calls has the reasoning that the server sent, unchanged; with `of_texts`, each answer."""

    def rule(request: Request, issued: Issued) -> Refusal | None:
        if not is_thinking(request):
            return None
        for index, message in enumerate(request["messages"]):
            is_asked = message["role"] == "assistant" and (of_texts or message.get("tool_calls"))
            if is_asked and message.get("reasoning_content") not in issued.values:
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


def last_message_is_not_of_the_assistant(words: str) -> Rule:
    def rule(request: Request, _issued: Issued) -> Refusal | None:
        return Refusal(words) if request["messages"][-1]["role"] == "assistant" else None

    return rule


def texts_are_not_blank(words: str) -> Rule:
    """Each text has a letter. Gateways leave out an empty text beside calls."""

    def rule(request: Request, _issued: Issued) -> Refusal | None:
        for index, message in enumerate(request["messages"]):
            content = message["content"]
            is_left_out = content == "" and message.get("tool_calls")
            if isinstance(content, str) and not content.strip() and not is_left_out:
                return Refusal(words.format(index=index))
        return None

    return rule


def call_ids_have_9_characters(request: Request, _issued: Issued) -> Refusal | None:
    for _, message in assistant_calls(request):
        for call in message["tool_calls"]:
            if not re.fullmatch("[a-zA-Z0-9]{9}", call["id"]):
                words = f"Tool call id was {call['id']} but must be a-z, A-Z, 0-9, with a length of 9."
                return Refusal(words, code="3280", kind="invalid_function_call")
    return None


def call_ids_have_at_most(limit: int) -> Rule:
    def rule(request: Request, _issued: Issued) -> Refusal | None:
        for index, message in assistant_calls(request):
            for place, call in enumerate(message["tool_calls"]):
                if len(call["id"]) > limit:
                    param = f"messages[{index}].tool_calls[{place}].id"
                    words = f"Invalid '{param}': string too long. Expected a string with maximum length {limit}"
                    return Refusal(f"{words}, but got a string with length {len(call['id'])} instead.", param=param)
        return None

    return rule


def schemas(request: Request) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Every schema in the tools, nested ones too, with the index of its tool and its path."""

    def walk(schema: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        if not isinstance(schema, dict):
            return  # `true`, or a list in the place of a schema
        yield path, schema
        for name, item in (schema.get("properties") or {}).items():
            yield from walk(item, f"{path}.properties.{name}".removeprefix("."))
        yield from walk(schema.get("items"), f"{path}.items".removeprefix("."))
        for key in ("anyOf", "oneOf", "allOf"):
            for item in schema.get(key) or ():
                yield from walk(item, f"{path}.{key}".removeprefix("."))

    for index, tool in enumerate(request.get("tools") or ()):
        for path, schema in walk(tool["function"]["parameters"], ""):
            yield index, path, schema


def function_names_match(pattern: str, words: str) -> Rule:
    def rule(request: Request, _issued: Issued) -> Refusal | None:
        for index, tool in enumerate(request.get("tools") or ()):
            if not re.fullmatch(pattern, tool["function"]["name"]):
                return Refusal(words.format(index=index))
        return None

    return rule


def parts(request: Request) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """The parts of contents that are lists, each with the index and the role of its message."""
    for index, message in enumerate(request["messages"]):
        if isinstance(message["content"], list):
            yield from ((index, message["role"], part) for part in message["content"])


def pictures_only_of_the_user(request: Request, _issued: Issued) -> Refusal | None:
    for index, role, part in parts(request):
        if part["type"] == "image_url" and role != "user":
            return Refusal(
                f"Invalid 'messages[{index}]'. Image URLs are only allowed for messages with role 'user', but this "
                f"message with role '{role}' contains an image URL."
            )
    return None


def no_pictures(words: str) -> Rule:
    def rule(request: Request, _issued: Issued) -> Refusal | None:
        found = (index for index, _, part in parts(request) if part["type"] == "image_url")
        return next((Refusal(words.format(index=index)) for index in found), None)

    return rule
