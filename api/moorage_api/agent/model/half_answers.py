"""Recognise answers that are not what they seem: an announcement, or a call in the model's own notation."""

from __future__ import annotations

import re

CALL_NOTATION = re.compile(
    r"<\|?/?(tool_call|function_call|tool_use|tool_code|python_tag|tool_calls_section|tool_calls_begin|plugin|"
    r"action_start)"
    r"|<(function|invoke|tool|parameter|minimax:tool_call|antml:invoke)[= >]"
    r"|<｜(tool▁call|DSML)|\[(TOOL_CALLS|TOOL_CALL|TOOL_REQUEST)\]|<\|channel\|>.{0,40}to=|to=functions\."
    r"|```(tool_code|tool_call|tool_calls)|^\s*Action: .+\n+\s*Action Input:"
    r'|^\s*(```(json)?\s*)?\[?\s*\{\s*"(name|function|tool|tool_name|action)"\s*:',
    re.MULTILINE | re.DOTALL | re.IGNORECASE,
)
"""Of Hermes, Qwen, Llama, Mistral, DeepSeek, Kimi, GLM, MiniMax, gpt-oss, Gemma, InternLM, ReAct, and plain JSON."""

ANNOUNCEMENT = re.compile(
    r"(?:(?:sure|ok|okay|alright|great|now|first|next|then)[,.!]?\s+)?"
    r"(?:I'll\b(?! be (?:happy|glad))|I’ll\b(?! be (?:happy|glad))|I will\b|I am going to\b|I'm going to\b|"
    r"I’m going to\b|let me\b(?! know)|let's\b|let’s\b|"
    r"ich werde\b|lass mich\b|je vais\b|laissez-moi\b|voy a\b|déjame\b|vou\b|deixe-me\b|adesso\b|"
    r"сейчас я|давайте|я (?:сейчас|создам|сделаю)|我将|我会|让我|接下来|现在我|我来|我先|これから|まず)",
    re.IGNORECASE,
)
MAX_ANNOUNCEMENT_CHARS = 800
SENTENCE_END = re.compile(r"(?<=[.!?:。！？：])\s*|\n+")


def is_call_notation(text: str) -> bool:
    """The text contains a tool call that the server did not recognise. It also matches a text that quotes one."""
    return bool(CALL_NOTATION.search(text))


def is_announcement(text: str) -> bool:
    """The text says what its author is about to do: it begins so, or it ends so."""
    if len(text) > MAX_ANNOUNCEMENT_CHARS:
        return False
    sentences = [sentence for sentence in SENTENCE_END.split(text.strip()) if sentence.strip()]
    return any(ANNOUNCEMENT.match(sentence.strip()) for sentence in (*sentences[:1], *sentences[-1:]))
