"""How many tokens a model call used: as the server says it, or estimated where the server says nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID, uuid4

OUTPUT_KEYS = ("completion_tokens", "output_tokens", "total_tokens")
"""Some servers name the output only in the total."""
MOST_UNNAMED = 1_000_000
"""A total that holds more tokens beside the input and the output than this is wrong."""

Outcome = Literal["started", "answered", "failed", "interrupted", "refused"]


@dataclass(frozen=True)
class Usage:
    """Tokens of one call. Cached tokens are a part of the input, reasoning tokens a part of the output."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    is_estimated: bool = False
    """The server did not say it, so it is our own estimate."""


@dataclass(frozen=True)
class ModelCall:
    """One request to a model, which its server may bill.

    `started`: it is sent next. `failed`: the answer broke off or was unusable. `interrupted`: the user stopped the run
    or wrote a message. `refused`: no answer began, so the call does not count.
    """

    model: str
    base_url: str
    usage: Usage
    outcome: Outcome
    id: UUID = field(default_factory=uuid4, compare=False)
    """The same when the call starts and when it ends."""


def read_usage(chunk: Mapping[str, Any]) -> Usage | None:
    """Read the usage of a chunk or of a whole response; None if it says no usage.

    Most servers send it at the top of the last chunk, Moonshot in its choice, Groq in `x_groq`.
    """
    for found in _places(chunk):
        usage = _to_usage(found)
        if usage is not None and (usage.input_tokens or usage.output_tokens):
            return usage
    return None


def _places(chunk: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    choices = chunk.get("choices")
    inside = [*choices[:1], chunk.get("x_groq")] if isinstance(choices, list) else [chunk.get("x_groq")]
    for holder in (chunk, *inside):
        if isinstance(holder, Mapping) and isinstance(usage := holder.get("usage"), Mapping):
            yield usage


def _to_usage(counts: Mapping[str, Any]) -> Usage | None:
    """None if a side is missing or is no number of tokens, so that the caller estimates it."""
    if not (_is_said(counts, "prompt_tokens", "input_tokens") and _is_said(counts, *OUTPUT_KEYS)):
        return None
    prompt = _number(counts, "prompt_tokens", "input_tokens")
    completion = _number(counts, "completion_tokens", "output_tokens")
    if "prompt_tokens" not in counts:  # Anthropic counts its cache apart from the other input
        prompt += _number(counts, "cache_read_input_tokens") + _number(counts, "cache_creation_input_tokens")
    inner, outer = _details(counts, "prompt_tokens_details"), _details(counts, "completion_tokens_details")
    cached = _number(inner, "cached_tokens") or _number(
        counts, "prompt_cache_hit_tokens", "cache_read_input_tokens", "cached_tokens"
    )
    reasoning = _number(outer, "reasoning_tokens") or _number(counts, "reasoning_tokens")
    unnamed = max(_number(counts, "total_tokens") - prompt - completion, 0)
    unnamed = unnamed if unnamed <= MOST_UNNAMED else 0
    if cached > prompt or (cached and unnamed == cached):
        prompt += cached  # Anthropic counts the tokens that it read from its cache apart from the others
    elif unnamed:
        completion += unnamed  # xAI and Gemini count reasoning only in the total
        reasoning = reasoning or unnamed
    elif reasoning > completion:
        completion += reasoning
    return Usage(prompt, completion, cached, reasoning)


def _details(counts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = counts.get(name) or counts.get(name.replace("prompt", "input").replace("completion", "output"))
    return found if isinstance(found, Mapping) else {}


def _is_said(counts: Mapping[str, Any], *names: str) -> bool:
    """One of the fields is there, and each that is there is a number of tokens."""
    said = [counts[name] for name in names if counts.get(name) is not None]
    return bool(said) and None not in map(_tokens, said)


def _number(counts: Mapping[str, Any], *names: str) -> int:
    """The first of the fields that is a positive number, or 0 if no field is one."""
    return next((tokens for name in names if (tokens := _tokens(counts.get(name)))), 0)


def _tokens(value: object) -> int | None:
    """A number of tokens, which some servers write as a text; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value[:11])
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 2**31:
        return None
    return int(value)
