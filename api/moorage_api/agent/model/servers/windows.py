"""The size of a model's context window, as a server says it: in a refusal, in its list of models, or in its status."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, Self, get_args
from urllib.parse import quote, urlsplit

DEFAULT_TOKENS = 64_000
"""Assumed until the window is known."""
MOST_LISTED_TOKENS = 200_000
"""A larger window that a server lists is used only when the admin sets it, because a long request costs more."""

LEAST_TOKENS, MOST_TOKENS = 1_000, 20_000_000
"""Other numbers are no windows. llama.cpp says 0 for a model that is not loaded."""

Source = Literal["list", "refusal", "usage"]
DAYS: Mapping[Source, int] = {"list": 1, "refusal": 7, "usage": 7}
"""How long it is believed. Then it is learnt again, because the server may have been started with another window."""


@dataclass(frozen=True)
class Window:
    """What is known of a model's window. `tokens` is 0 if its server was asked and did not say it."""

    tokens: int
    source: Source
    learnt_on: date

    def is_fresh(self, today: date) -> bool:
        return 0 <= (today - self.learnt_on).days < DAYS[self.source]

    def to_fact(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "source": self.source, "on": self.learnt_on.isoformat()}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Self | None:
        """Returns None if no window is stored, or if this version does not understand what is stored."""
        fact = facts.get("window")
        try:
            if not isinstance(fact, Mapping) or fact["source"] not in get_args(Source):
                return None
            return cls(int(fact["tokens"]), fact["source"], date.fromisoformat(fact["on"]))
        except (KeyError, TypeError, ValueError):
            return None


NUMBER = r"(\d[\d,]*)"
NAMED = tuple(
    re.compile(pattern.replace("NUMBER", NUMBER), re.IGNORECASE)
    for pattern in (
        r"maximum (?:context|prompt|model|input) length (?:is|of)\W{0,3}NUMBER",  # OpenAI, OpenRouter, vLLM, xAI
        r"context length (?:is |of |only )*\(?NUMBER",  # SGLang, LM Studio
        r"> ?NUMBER (?:tokens? )?maximum",  # Anthropic
        r"context limit\W{1,3}\d+ \+ \d+ > NUMBER",  # Anthropic with max_tokens
        r"tokens allowed\W{1,3}NUMBER",  # Gemini
        r"input length should be \[\d+,\s*NUMBER\]",  # Qwen
        r"model token limit\W{1,3}NUMBER",  # Kimi
        r"max_new_tokens\W{0,3} must be <= NUMBER",  # Together
        r"too large for model with NUMBER maximum",  # Mistral
        r"context size \(?NUMBER",  # llama.cpp
        r"n_ctx\W{1,4}NUMBER",  # llama.cpp, LM Studio
        r"(?:exceeds|exceed) the (?:configured )?limit of NUMBER",  # Copilot, OpenAI
        r"maximum allowed length \(?NUMBER",  # SGLang
        r"context window (?:size )?(?:is|of)\W{0,3}NUMBER",
    )
)


def window_in_words(words: str) -> int | None:
    """The size of the window that a refusal names."""
    for pattern in NAMED:
        if (match := pattern.search(words)) and (tokens := _to_tokens(match[1].replace(",", ""))):
            return tokens
    return None


SERVED_KEYS = ("loaded_context_length", "n_ctx")
"""The window that the server was started with."""
LISTED_KEYS = (
    "context_length",  # OpenRouter, Kimi, Together, Ollama's /api/ps
    "max_model_len",  # vLLM, SGLang
    "context_window",  # Groq
    "max_context_length",  # Mistral
    "max_context",
    "context_size",
    "max_context_window_tokens",
    "max_prompt_tokens",
    "max_input_tokens",  # LiteLLM, Anthropic
    "inputTokenLimit",
    "input_token_limit",
)
"""What the server says of the model. Where it names several, the smallest applies."""
NAME_KEYS = ("id", "name", "model", "root", "canonical_slug")


def window_in_list(document: Any, model: str, *, takes_only_one: bool = False) -> int | None:
    """The window of `model` in a list of models of any known shape.

    `takes_only_one`: a server with one model, such as llama.cpp, answers under any name.
    """
    entries = [entry for entry in _list_entries(document) if isinstance(entry, Mapping)]
    named = [entry for entry in entries if _clean(model) in set(map(_clean, _names(entry)))]
    if not named and takes_only_one and len(entries) == 1:
        named = entries
    return next((tokens for entry in named if (tokens := _window_of(entry))), None)


def _list_entries(document: Any) -> list[Any]:
    if isinstance(document, Mapping):
        document = document.get("data") or document.get("models")
    return document if isinstance(document, list) else []


def _names(entry: Mapping[str, Any]) -> Iterator[str]:
    aliases = entry.get("aliases")
    for name in (*(entry.get(key) for key in NAME_KEYS), *(aliases if isinstance(aliases, list) else ())):
        if isinstance(name, str):
            yield name


def _clean(name: str) -> str:
    return name.lower().removeprefix("models/").removesuffix(":latest")


def _window_of(entry: Mapping[str, Any]) -> int | None:
    """The served window of the model, otherwise the smallest one that is listed, otherwise the one of its training."""
    meta = _inside(entry, "meta")
    served = [holder.get(key) for holder in (entry, meta) for key in SERVED_KEYS]
    instances = entry.get("loaded_instances")
    for instance in instances if isinstance(instances, list) else ():
        served.append(_inside(instance, "config").get("context_length"))
    holders = (entry, _inside(entry, "top_provider"), _inside(_inside(entry, "capabilities"), "limits"))
    listed = [holder.get(key) for holder in holders for key in LISTED_KEYS]
    for values in (served, listed, [meta.get("n_ctx_train")]):
        if found := [tokens for value in values if (tokens := _to_tokens(value))]:
            return min(found)
    return None


def _inside(holder: Any, key: str) -> Mapping[str, Any]:
    value = holder.get(key) if isinstance(holder, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _to_tokens(value: Any) -> int:
    """The number if it can be a window, otherwise 0. Some servers write numbers as texts."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not LEAST_TOKENS <= value <= MOST_TOKENS:
        return 0
    return int(value)


Get = Callable[[str], Awaitable[Any]]
"""Fetch a URL and return its JSON document; None if that fails."""


async def find_window(get: Get, *, base_url: str, model: str) -> int | None:
    """Ask the server for the model's window. None if it does not say it.

    A server without TLS is a local one. There the status of what is loaded counts more than the list of models, which
    names what the model could have (Ollama, llama.cpp, LM Studio).
    """
    listing = get(f"{base_url.rstrip('/')}/models")
    url = urlsplit(base_url)
    if url.scheme != "http":
        return window_in_list(await listing, model, takes_only_one=True)
    root = f"http://{url.netloc}"
    listed, running, props, loaded = await asyncio.gather(
        listing, get(f"{root}/api/ps"), get(f"{root}/props?model={quote(model, safe='')}"), get(f"{root}/api/v0/models")
    )
    candidates = (
        window_in_list(running, model),
        _to_tokens(_inside(props, "default_generation_settings").get("n_ctx")),
        window_in_list(loaded, model),
        window_in_list(listed, model, takes_only_one=True),
    )
    return next((tokens for tokens in candidates if tokens), None)
