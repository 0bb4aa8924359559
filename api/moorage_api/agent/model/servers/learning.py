"""Learn from a refusal what a server does not accept, so that the request can be sent again in another form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from moorage_api.agent.model.outgoing.pictures import count_parts
from moorage_api.agent.model.outgoing.profiles import Profile
from moorage_api.agent.model.outgoing.request import foreign_names, has_cache_marks
from moorage_api.agent.model.servers.refusals import Refusal

LEARNT_FROM = frozenset({0, 400, 404, 415, 422, 500})
"""Some gateways turn the refusal of the server behind them into a 500."""

UNCLEAR_STATUSES = frozenset({0, 500})
"""Such an answer may be trouble of the moment that passes by itself, so that the other form did not help."""
CLEAR_FACTS = frozenset({"needs_tools_with_calls", "sees"})
"""The words that show one of these mean nothing else, and local servers send them with 500."""
ABOUT_VALUES = re.compile(r"between|range|less than|greater than|at most|at least|[<>]=|maximum|minimum|\[\d")
"""The server takes the parameter, but not this value, which the admin can change."""

LEAST_ANSWER_TOKENS = 1_024
"""A smaller number in a refusal is hardly the longest answer of a model."""
ANSWER_LIMIT = re.compile(
    r"(?:at most|up to|<=|≤|less than or equal(?: to)?)\W{0,3}(\d{4,7})|tokens\W{1,3}\d+ > (\d{4,7})|"
    r"\bmax(?:imum)?(?: (?:allowed|value|number|output|completion|tokens?|of|is|for|`?max_\w*tokens`?))*"
    r"\W{1,3}(\d{4,7})|"
    r"[\[(]\s*\d+\s*,\s*(\d{4,7})\s*[\])]|between \d+ and (\d{4,7})|from \d+(?: \(\w+\))? to (\d{4,7})"
)
"""OpenAI, Groq, Cohere; Anthropic; the value itself; DeepSeek, Qwen; others; Gemini"""
NO_ANSWER_LIMIT = re.compile(r"\binputs?\b|prompt|\btier|\brate\b|quota|budget|per (minute|hour|day)|context window")
"""Sentences with numbers of something else."""
NAMED_STATUSES = frozenset({400, 404, 422})
"""With these, a server names a field that it does not know."""
BETWEEN = (
    r"(?:[\W\d]|\b(?:messages?|body|user|system|assistant|tool|tool_calls|function|content|request|field|key|property|"
    r"properties|argument|parameter|input|inputs|name|value|supplied|are|is|was|not|permitted|allowed|the|in|at|for|of)s?\b)*"
)
"""What may stand between the name of a field and the word that refuses it: other parts of its path, and such words."""
REFUSING = (
    r"(?:unknown|unrecogni[sz]ed|unexpected|extra|additional|unsupported|invalid|forbidden|"
    r"not (?:permitted|allowed|supported|recogni[sz]ed|exist)|(?:not|n't) support)"
)

IS_MISSING = re.compile(
    r"missing|must be (passed|provided|included|sent)|passed back|required|must (have|include|contain)"
)
IS_REFUSED = re.compile(
    r"support|unknown|unrecognized|unexpected|extra|permitted|allowed|additional|invalid|forbidden|not exist"
)
REQUIRED_FIELD = re.compile(r"reasoning_content|reasoning_details|thinking_blocks|thought_signature")
FEWER_PICTURES = re.compile(r"(?:at most|up to|maximum(?: number)? of|max(?:imum)?|limit(?:ed to| is| of)) (\d+) image")
NO_PICTURES = re.compile(
    # about the part: DeepSeek, OpenAI, Groq, and servers that check the schema
    r"image_url.{0,60}(only supported|not supported|unsupported|not allowed|not permitted)|unknown variant .?image_url|"
    r"content.{0,60}(must|should) be a? ?(valid )?string|content.{0,60}valid string|"
    r"only (supports? )?text(?! below)|\['text'\]|"
    # about the model: OpenRouter, Ollama, vLLM, Kimi, Bedrock, Mistral, llama.cpp
    r"(not|n't|found that|cannot) (support|accept|see|take)s? (the )?"
    r"(image|vision|multi-?modal|visual|picture)\w*\b(?! (format|type|size|data|file))|"
    r"(image|vision|multi-?modal|visual)s?( (input|content|url|part|block|capabilit)\w*){0,2} (is |are )?(not |un)"
    r"(supported|enabled|allowed|available)|not (a |an )?(multi-?modal|vision)|missing data required for image|mmproj"
)
"""Words of servers whose model does not see. They must not match the refusal of one picture for its format or size."""
ABOUT_SCHEMAS = re.compile(
    r"additionalproperties|\$schema|json[ _-]?schema|function_?declaration|function[._ ]parameters|input_schema|"
    r"(invalid|unsupported) schema"
)
"""Gemini, Vertex, Kimi, Anthropic, OpenAI, Mistral"""
FORCED = re.compile(r"tool[_ ]?choice|forced? (function|tool)|function[_ ]calling[_ ]?(config|mode)|mode\W{0,3}any\b")
NO_MARKS = re.compile(r"cache_?(control|point)|prompt caching")
NO_PARTS = re.compile(r"\bcontent.{0,80}\b(string|str)\b", re.DOTALL)
"""The server refuses texts as lists of parts. Only marked messages and those with pictures have them."""
USER_AFTER_TOOL = re.compile(r"user\W{0,3}(role )?\W{0,3}(after|follow\w*|cannot follow)\W{1,3}(role )?\W{0,3}tool")


def learn(profile: Profile, refusal: Refusal, body: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that the refusal of `body` shows; empty if it names nothing that we can change."""
    if refusal.status not in LEARNT_FROM:
        return {}
    reason = refusal.reason
    for rule in (_from_pictures, _from_tools, _from_fields, _from_parameters, _from_schemas):
        if (facts := rule(profile, reason, body)) and (
            "refused_fields" not in facts or refusal.status in NAMED_STATUSES
        ):
            return facts
    return {}


def select_lasting(facts: Mapping[str, Any], refusal: Refusal) -> dict[str, Any]:
    """The facts that are sure enough to be stored for all users; the others apply to this client only."""
    if refusal.status in UNCLEAR_STATUSES:
        return {name: value for name, value in facts.items() if name in CLEAR_FACTS}
    if "sends_temperature" in facts and ABOUT_VALUES.search(refusal.reason):
        return {}
    return dict(facts)


def _from_pictures(profile: Profile, reason: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A server that takes no pictures, or fewer. A refusal of one picture, such as a damaged one, teaches nothing."""
    sent = count_parts(body["messages"])
    if not sent:
        return {}
    if most := FEWER_PICTURES.search(reason):
        number = int(most[1])
        return {"sees": False} if number == 0 else {"max_pictures": number} if number < sent else {}
    return {"sees": False} if NO_PICTURES.search(reason) else {}


def _from_tools(profile: Profile, reason: str, body: Mapping[str, Any]) -> dict[str, Any]:
    messages = body["messages"]
    has_calls = any(message.get("tool_calls") for message in messages)
    if "tool_choice" in body and FORCED.search(reason):
        return _from_tool_choice(body["tool_choice"], reason)
    if "reasoning_effort" in reason:
        if profile.effort_with_tools and "reasoning_effort" in body:
            return {"effort_with_tools": ""}
        return {"effort_with_tools": "none"} if "tools" in body and "reasoning_effort" not in body else {}
    if has_calls and "tools" not in body and re.search(r"\btools\b|toolconfig|tools=", reason):
        return {"needs_tools_with_calls": True}
    if profile.allows_user_after_tool and USER_AFTER_TOOL.search(reason):
        return {"allows_user_after_tool": False}
    return {}


def _from_tool_choice(choice: object, reason: str) -> dict[str, Any]:
    if choice == "none":
        return {"can_forbid": False}
    if isinstance(choice, Mapping) and not re.search(r"thinking|required|forc", reason):
        return {"can_name": False}
    return {"can_force": False}


def _from_fields(profile: Profile, reason: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the history that are missing or not accepted."""
    if has_cache_marks(body["messages"]):
        is_about_parts = bool(NO_PARTS.search(reason)) and not count_parts(body["messages"])
        if is_about_parts or NO_MARKS.search(reason):
            return {"takes_cache_marks": False}
    with_calls = [message for message in body["messages"] if message.get("tool_calls")]
    named = REQUIRED_FIELD.search(reason)
    if named and IS_MISSING.search(reason):
        if named[0] == "thought_signature":
            return {}  # it cannot be made up, and Gemini has no such switch: the calls have to become text
        if any(named[0] not in message for message in with_calls):
            return {"required_field": named[0]}
        return {} if profile.is_thinking_off else {"is_thinking_off": True}
    for name in sorted(foreign_names(body["messages"])):
        field = rf"\b{re.escape(name.lower())}\b"
        if re.search(rf"{REFUSING}\b{BETWEEN}{field}|{field}{BETWEEN}\b{REFUSING}", reason):
            return {"refused_fields": sorted({*profile.refused_fields, name})}
    return {}


def _from_parameters(profile: Profile, reason: str, body: Mapping[str, Any]) -> dict[str, Any]:
    if "thinking" in body and re.search(r"\bthinking\b", reason) and IS_REFUSED.search(reason):
        return {"is_thinking_off": False}
    if "max_tokens" in body and "max_completion_tokens" in reason and "context" not in reason:
        return {"max_tokens_field": "max_completion_tokens"}
    if "max_completion_tokens" in body and "max_completion_tokens" in reason and IS_REFUSED.search(reason):
        return {"max_tokens_field": "max_tokens"}
    if re.search(r"max_(completion_|output_|new_)?tokens", reason):
        limit = body.get("max_tokens") or body.get("max_completion_tokens")
        sent = limit if isinstance(limit, int) else 0
        window = re.search(r"context length (?:is|of) (\d+)", reason)
        if window and LEAST_ANSWER_TOKENS < int(window[1]) <= sent:
            return {"max_answer_tokens": int(window[1]) // 4}
        if not window and (most := _find_answer_limit(reason, below=sent)):
            return {"max_answer_tokens": most}
    if "stream_options" in body and re.search(r"stream_options|include_usage", reason):
        return {"sends_usage_option": False}
    if "temperature" in body and "temperature" in reason:
        return {"sends_temperature": False}
    return {}


def _find_answer_limit(reason: str, *, below: int) -> int:
    """The largest answer that the words allow; 0 if they do not clearly name one."""
    sentences = [words for words in re.split(r"(?<=[.;!?])\s", reason) if not NO_ANSWER_LIMIT.search(words)]
    found = [int(next(filter(None, match.groups()))) for words in sentences for match in ANSWER_LIMIT.finditer(words)]
    return max((number for number in found if LEAST_ANSWER_TOKENS <= number < below), default=0)


def _from_schemas(profile: Profile, reason: str, body: Mapping[str, Any]) -> dict[str, Any]:
    if "tools" not in body:
        return {}
    if not profile.needs_properties and "properties" in reason and re.search(r"empty|at least one", reason):
        return {"needs_properties": True}
    if not profile.plain_schemas and ABOUT_SCHEMAS.search(reason):
        return {"plain_schemas": True}
    return {}
