"""What a family of models, or the server in front of it, accepts. Facts as data.

A profile is chosen by the model's name. What a server refused is learnt once and corrects the profile
(`servers/learning.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Profile:
    """The defaults describe the Chat Completions API as most servers implement it."""

    max_tokens_field: str = "max_tokens"
    sends_temperature: bool = True
    sends_usage_option: bool = True
    """`stream_options`, which asks for the usage, is accepted."""
    can_force: bool = True
    """`tool_choice: "required"` is accepted."""
    can_name: bool = True
    """A `tool_choice` that names a function is accepted."""
    can_forbid: bool = True
    """`tool_choice: "none"` is accepted."""
    obeys_choice: bool = True
    """`tool_choice` has an effect. Otherwise a request offers only the functions that may be called now."""
    takes_cache_marks: bool = False
    """The provider caches what `cache_control` marks, and nothing without such marks."""
    effort_with_tools: str = ""
    """`reasoning_effort` of requests with tools; empty to leave it out."""
    needs_tools_with_calls: bool = False
    """Every request whose history has tool calls must have `tools`."""
    allows_user_after_tool: bool = True
    required_field: str = ""
    """A field that every assistant message with tool calls must have."""
    refused_fields: tuple[str, ...] = ()
    """Fields that the server sends but does not accept."""
    plain_schemas: bool = False
    """The schemas of tools may have only the keywords that every provider knows."""
    needs_properties: bool = False
    """The schema of an object must have at least one property."""
    max_answer_tokens: int = 0
    """Largest accepted value of `max_tokens`; 0 if it is not known."""
    is_thinking_off: bool = False
    """Thinking is switched off, because the server refuses a history without the thoughts of earlier answers."""
    sees: bool = False
    """Pictures in messages of the user are accepted."""
    max_pictures: int = 0
    """Most pictures in one request; 0 if it is not known."""
    leaves_calls_in_text: bool = False
    """The server has no parser for its model's calls, so they arrive as text."""
    has_native_calls: bool = False
    """The server has sent a call as a call. Its texts are then never read as calls."""


FAMILIES: tuple[tuple[str, dict[str, Any]], ...] = (
    # platform.openai.com, "Reasoning models": the older parameter and a temperature are refused
    (r"(^|/)(o[1-9]|gpt-5)", {"max_tokens_field": "max_completion_tokens", "sends_temperature": False}),
    # openai-openapi#541, litellm#34569: with tools, only an explicit "none" is accepted on Chat Completions
    (r"(^|/)gpt-5\.([4-9]|\d\d)", {"effort_with_tools": "none"}),
    # kimi-cli#1616, opencode#10996: the field is required with thinking, which is on by default
    (r"kimi-k2\.[5-9]|kimi-k[3-9]|kimi.*thinking|kimi-for-coding", {"required_field": "reasoning_content"}),
    (r"kimi-k2\.[5-9]|kimi-k[3-9]|kimi.*thinking", {"can_force": False}),
    # hermes-agent#20154
    (r"mi[sx]tral|codestral|devstral|magistral|ministral", {"allows_user_after_tool": False}),
    # The models that their providers' lists mark as taking pictures
    (r"gpt-4o|gpt-4\.[15]|gpt-4-(turbo|vision)|gpt-[5-9]|(^|/)o[1-9]", {"sees": True}),
    (r"claude|gemini|gemma-?[3-9]|grok-([4-9]|2-vision)|(amazon\.|/)nova-(lite|pro|premier)", {"sees": True}),
    (r"qwen.*(vl|omni)|qwen-?3\.[5-9]|qvq|kimi-k2\.[5-9]|kimi-k[3-9]|kimi-(vl|latest)", {"sees": True}),
    (r"pixtral|(mistral-(medium|small|large)|magistral|ministral)-?(latest|3|25|26)", {"sees": True}),
    (r"llama-?4|llama-?3\.2-(11|90)b|llava|moondream|minicpm-(v|o)|internvl|phi-4-multimodal", {"sees": True}),
    (r"glm-\d(\.\d)?v|vision|[-_.:]vl\b|multimodal", {"sees": True}),
    # kolega-code#695, sjtu-agent#182: V4.1 sees, and `deepseek-flash` is its name
    (r"deepseek-flash|deepseek-v4\.1", {"sees": True}),
    (r"o[13]-mini|o1-preview|gpt-oss|gemma-?3[:-](1b|270m)|claude-(2|instant)|grok-code|nova-micro", {"sees": False}),
    (r"gpt-4o.*(audio|realtime|transcribe|search)|mistral-small-2501", {"sees": False}),
    # opencode#2915, agentgateway#2192: gateways in front of Claude
    (r"claude|anthropic|bedrock", {"needs_tools_with_calls": True}),
    # platform.claude.com, "Tool use with prompt caching": another tool_choice makes the cache of the messages invalid
    (r"claude|anthropic", {"takes_cache_marks": True, "can_force": False, "can_forbid": False}),
    # docs.z.ai, "Chat Completion": only "auto" is supported
    (r"(^|/)glm-", {"can_force": False, "can_forbid": False}),
)
"""Pattern of the model's name, and what differs from the defaults. All patterns that match apply, in this order."""


def choose(model: str) -> Profile:
    profile = Profile()
    for pattern, facts in FAMILIES:
        if re.search(pattern, model, re.IGNORECASE):
            profile = replace(profile, **facts)
    return profile


def correct(profile: Profile, facts: Mapping[str, Any]) -> Profile:
    """The profile with learnt facts. Facts that another version stored and this one does not know are ignored."""
    known: dict[str, Any] = {}
    for field in fields(Profile):
        default = getattr(Profile, field.name)
        value = facts.get(field.name)
        if isinstance(default, tuple) and isinstance(value, list | tuple):
            known[field.name] = tuple(str(item) for item in value)
        elif type(value) is type(default):
            known[field.name] = value
    return replace(profile, **known)
