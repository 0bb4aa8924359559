"""Build the body of a request, as the profile of its model wants it. Pure functions.

Providers cache the longest beginning that a request shares with earlier ones: `tools`, then `messages`. So the order of
keys is fixed here (PostgreSQL's jsonb does not keep it), and what changes between requests comes after the messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from moorage_api.agent.model.incoming.answers import Answer
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
MESSAGE_KEYS = ("role", "content", "tool_calls", "tool_call_id")
CALL_KEYS = ("id", "type", "function")
FUNCTION_KEYS = ("name", "arguments")
CACHE_MARK = {"type": "ephemeral"}


@dataclass(frozen=True)
class RequestSettings:
    """The settings of the model's configuration that a request needs. `extra` fields replace ours."""

    model: str
    temperature: float | None
    max_tokens: int | None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def with_limit(self, max_tokens: int | None) -> RequestSettings:
        """The settings with a smaller limit of the answer's tokens."""
        if max_tokens is None or self.max_tokens is None:
            return self
        return replace(self, max_tokens=min(max_tokens, self.max_tokens))


@dataclass(frozen=True)
class Offer:
    """The functions of a request. All requests of a session have the same ones, in the same order.

    `allowed`: names of the functions that may be called now; None for all. The others are masked by `tool_choice`.
    `force`: the answer must be a call.
    """

    functions: Sequence[Function] = ()
    allowed: frozenset[str] | None = None
    force: bool = False

    @property
    def callable_functions(self) -> list[Function]:
        return [item for item in self.functions if self.allowed is None or item.name in self.allowed]


def build_body(
    settings: RequestSettings,
    profile: Profile,
    messages: Sequence[Message],
    *,
    offer: Offer,
    earlier_tools: Mapping[str, Function],
    pictures: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """`earlier_tools`: functions by name that earlier requests offered. `pictures`: base64 by key."""
    messages = list(place(messages, sees=profile.sees, most=profile.max_pictures, data=pictures or {}))
    tools = offer.functions if profile.obeys_choice else offer.callable_functions
    choice = _tool_choice(offer, profile) if tools else None
    if not tools and profile.needs_tools_with_calls:
        tools = list(_called_functions(messages, earlier_tools))
    body: dict[str, Any] = {"model": settings.model, "stream": True}
    if tools:
        body["tools"] = [_to_tool(tool, profile) for tool in tools]
    adapted = list(_adapt_messages(messages, profile))
    body["messages"] = _mark_for_cache(adapted) if profile.takes_cache_marks else adapted
    if profile.sends_usage_option:
        body["stream_options"] = {"include_usage": True}
    if profile.sends_temperature and settings.temperature is not None:
        body["temperature"] = settings.temperature
    if settings.max_tokens is not None:
        limit = min(settings.max_tokens, profile.max_answer_tokens or settings.max_tokens)
        body[profile.max_tokens_field] = limit
    if profile.is_thinking_off:
        body["thinking"] = {"type": "disabled"}
    if choice is not None:
        body["tool_choice"] = choice
    if tools and profile.effort_with_tools:
        body["reasoning_effort"] = profile.effort_with_tools
    return body | dict(settings.extra)


def _tool_choice(offer: Offer, profile: Profile) -> str | dict[str, Any] | None:
    if offer.allowed is not None and not offer.allowed:
        return "none" if profile.can_forbid else None
    if not (offer.force and profile.can_force):
        return None
    callable_functions = offer.callable_functions
    if profile.can_name and len(callable_functions) == 1 and len(offer.functions) > 1 and profile.obeys_choice:
        return {"type": "function", "function": {"name": callable_functions[0].name}}
    return "required"


def restricts(body: Mapping[str, Any]) -> bool:
    """Whether the request's `tool_choice` forbids some calls, so that an answer to it can disobey."""
    choice = body.get("tool_choice")
    return choice == "none" or isinstance(choice, Mapping)


def disobeys(body: Mapping[str, Any], answer: Answer) -> bool:
    """Whether the answer calls a function that the request's `tool_choice` did not allow."""
    choice = body.get("tool_choice")
    if choice == "none":
        return bool(answer.calls) and not answer.text.strip()
    if not isinstance(choice, Mapping):
        return False
    return bool(answer.calls) and all(call.name != choice["function"]["name"] for call in answer.calls)


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
    return _order_keys(message)


def _order_keys(message: Message) -> Message:
    """The message with its keys in the order in which we first sent them. Foreign fields keep theirs, at the end."""
    message = _first(MESSAGE_KEYS, message)
    if isinstance(content := message.get("content"), list):
        message["content"] = [_first(("type",), part) if isinstance(part, dict) else part for part in content]
    if calls := message.get("tool_calls"):
        message["tool_calls"] = [
            _first(CALL_KEYS, call) | {"function": _first(FUNCTION_KEYS, call["function"])} for call in calls
        ]
    return message


def _first(keys: Sequence[str], value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value[key] for key in keys if key in value} | dict(value)


def _mark_for_cache(messages: Sequence[Message]) -> list[Message]:
    """Mark what Claude's provider shall cache: up to the system prompt, the end of the request before, and the end.

    The provider looks back a limited number of blocks from a mark, so one mark at the end is not enough.
    """
    answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    places = {0, len(messages) - 1} | ({answers[-1] - 1} if answers else set())
    return [_mark(message) if place in places else message for place, message in enumerate(messages)]


def _mark(message: Message) -> Message:
    """A text without characters cannot be marked."""
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) and content else content
    if not isinstance(parts, list) or not parts or message["role"] == "assistant":
        return message
    return message | {"content": [*parts[:-1], parts[-1] | {"cache_control": CACHE_MARK}]}


def has_cache_marks(messages: Sequence[Message]) -> bool:
    return any(
        "cache_control" in part
        for message in messages
        if isinstance(message.get("content"), list)
        for part in message["content"]
    )


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
