"""Build the body of a request, as the profile of its model wants it. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moorage_api.agent.model.incoming.foreign import MESSAGE_FIELDS
from moorage_api.agent.model.outgoing.pictures import place
from moorage_api.agent.model.outgoing.profiles import Profile
from moorage_api.agent.model.outgoing.schemas import fill_empty_objects, simplify_schema
from moorage_api.agent.ports import Function, Message

PLACEHOLDER = " "
"""Value of a required field that an answer did not have. Some servers treat an empty text as missing."""
BRIDGE: Message = {"role": "assistant", "content": "I have read the results."}
"""Stands between a tool result and a user message for the servers that refuse the one after the other."""
NO_TEXT = "(no text)"
"""Stands for a text without a letter. Anthropic and Bedrock refuse those."""


@dataclass(frozen=True)
class RequestSettings:
    """From the configuration of the model. `extra` fields replace ours."""

    model: str
    temperature: float | None
    max_tokens: int | None
    extra: Mapping[str, Any] = field(default_factory=dict)


def build_body(
    settings: RequestSettings,
    profile: Profile,
    messages: Sequence[Message],
    *,
    tools: Sequence[Function],
    force: bool,
    earlier_tools: Mapping[str, Function],
    pictures: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """`earlier_tools`: functions by name that earlier requests offered. `pictures`: base64 by key."""
    messages = list(place(messages, sees=profile.sees, most=profile.max_pictures, data=pictures or {}))
    body: dict[str, Any] = {
        "model": settings.model,
        "messages": list(_adapt_messages(messages, profile)),
        "stream": True,
    }
    if profile.sends_usage_option:
        body["stream_options"] = {"include_usage": True}
    if profile.sends_temperature and settings.temperature is not None:
        body["temperature"] = settings.temperature
    if settings.max_tokens is not None:
        limit = min(settings.max_tokens, profile.max_answer_tokens or settings.max_tokens)
        body[profile.max_tokens_field] = limit
    if profile.is_thinking_off:
        body["thinking"] = {"type": "disabled"}
    if not tools and profile.needs_tools_with_calls:
        tools = list(_called_functions(messages, earlier_tools))
    if tools:
        body["tools"] = [_to_tool(tool, profile) for tool in tools]
        if force and profile.can_force:
            body["tool_choice"] = "required"
        if profile.effort_with_tools:
            body["reasoning_effort"] = profile.effort_with_tools
    return body | dict(settings.extra)


def _called_functions(messages: Sequence[Message], earlier: Mapping[str, Function]) -> Iterator[Function]:
    """The functions that the history calls, each once and in order."""
    names = dict.fromkeys(call["function"]["name"] for message in messages for call in message.get("tool_calls", ()))
    for name in names:
        empty = {"type": "object", "properties": {}}
        yield earlier.get(name) or Function(name, "Not available now; do not call it", empty)


def _adapt_messages(messages: Sequence[Message], profile: Profile) -> Iterator[Message]:
    before = ""
    for message in messages:
        if message["role"] == "user" and before == "tool" and not profile.allows_user_after_tool:
            yield BRIDGE
        before = message["role"]
        yield _adapt_message(message, profile)


def _adapt_message(message: Message, profile: Profile) -> Message:
    refused = set(profile.refused_fields)
    if refused & foreign_names([message]):
        message = {key: value for key, value in message.items() if key not in refused}
        if calls := message.get("tool_calls"):
            message["tool_calls"] = [
                {key: value for key, value in call.items() if key not in refused} for call in calls
            ]
    if message.get("tool_calls") and profile.required_field and profile.required_field not in message:
        message = message | {profile.required_field: PLACEHOLDER}
    content = message.get("content")
    if isinstance(content, str) and not content.strip():
        message = message | {"content": "" if message.get("tool_calls") else NO_TEXT}
    return message


def foreign_names(messages: Sequence[Message]) -> set[str]:
    """Names of the fields of messages and calls that are not part of the Chat Completions API."""
    names: set[str] = set()
    for message in messages:
        names |= message.keys() - MESSAGE_FIELDS - {"tool_call_id"}
        for call in message.get("tool_calls", ()):
            names |= call.keys() - {"id", "type", "function"}
    return names


def _to_tool(tool: Function, profile: Profile) -> dict[str, Any]:
    parameters = simplify_schema(tool.parameters) if profile.plain_schemas else tool.parameters
    if profile.needs_properties:
        parameters = fill_empty_objects(parameters)
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": parameters},
    }
