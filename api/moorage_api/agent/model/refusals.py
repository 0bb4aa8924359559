"""Read what a server answered instead of a completion, wherever its words are, and recognise what it means.

The status and the structure count first; words are looked at last.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

MAX_CHARS = 500
MAX_DEPTH = 6
LONGEST_WAIT_SECONDS = 600.0

WINDOW_CODES = frozenset(
    {"context_length_exceeded", "exceed_context_size_error", "context_window_exceeded", "request_too_large", "1261"}
)
WINDOW_STATUSES = frozenset({0, 400, 413, 422, 500, 503})
"""0 stands for an error inside a stream. A rate limit (429) never means that the window is full."""
WINDOW_WORDS = re.compile(
    r"context[_ -]?(length|window|size)|maximum context|too many tokens|prompt is too long|input is too long|"
    r"exceed context limit|input token count|input tokens? exceed|range of input length|exceeded model token limit|"
    r"exceeds? max(imum)? length|maximum prompt length|longer than the maximum model length|"
    r"reduce the length of (the|your) (messages|prompt|input)|"
    r"inputs?.{0,40}max_new_tokens.{0,20}must be <=|too large for model with \d+ maximum",
    re.IGNORECASE | re.DOTALL,
)
"""OpenAI, vLLM (both texts), Anthropic, Bedrock, Gemini, Qwen, Kimi, GLM, xAI, Together, Groq, Mistral, llama.cpp."""

NO_CREDIT_CODES = frozenset(
    {"insufficient_quota", "insufficient_balance", "insufficient_credits", "billing_hard_limit"}
)
WORD_KEYS = ("message", "msg", "error_msg", "detail", "error_description", "reason", "title", "error", "raw")
CODE_KEYS = ("code", "type", "status", "error_code", "error_type")
WAIT_KEYS = ("retry_after", "retryAfter", "retry_after_seconds", "retryDelay", "retry-after")


@dataclass(frozen=True)
class Refusal:
    """`said`: the server's own words. `codes`: what it calls the error, in lower case. `param`: the fields it names."""

    status: int
    said: str
    codes: frozenset[str] = frozenset()
    param: str = ""
    retry_after_seconds: float | None = None
    words: str = field(default="", compare=False)
    """All words of the document, for recognition."""

    @property
    def is_window_full(self) -> bool:
        if self.status not in WINDOW_STATUSES or "429" in self.codes or "rate_limit_exceeded" in self.codes:
            return False
        return self.status == 413 or bool(self.codes & WINDOW_CODES) or bool(WINDOW_WORDS.search(self.words))

    @property
    def is_no_credit(self) -> bool:
        return self.status == 402 or bool(self.codes & NO_CREDIT_CODES)

    @property
    def reason(self) -> str:
        return f"{self.param} {self.words}".lower()


def read_refusal(status: int, body: str, headers: Mapping[str, str], *, secret: str = "") -> Refusal:
    """Read an error document of any shape. The API key `secret` is removed from the words."""
    document = _parse(body)
    if document is None:
        words, found = [_plain_text(body)], {}
    else:
        words, found = list(dict.fromkeys(_words(document))), document
    nodes = list(_nodes(found))
    codes = {str(node[key]).lower() for node in nodes for key in CODE_KEYS if isinstance(node.get(key), str | int)}
    params = [str(node["param"]) for node in nodes if isinstance(node.get("param"), str)]
    params += [str(part) for node in nodes if isinstance(node.get("loc"), list) for part in node["loc"]]
    everything = mask_secret(" ".join(" ".join(words).split()), secret)
    # the last words are the innermost: those of the server behind a gateway
    said = mask_secret(" ".join(": ".join(words[:1] + words[-1:] if len(words) > 1 else words).split()), secret)
    return Refusal(
        status=status,
        said=said if len(said) <= MAX_CHARS else f"{said[:MAX_CHARS]}…",
        codes=frozenset(codes),
        param=" ".join(params),
        retry_after_seconds=_retry_after(headers, nodes),
        words=everything,
    )


MIN_SECRET_CHARS = 8


def mask_secret(text: str, secret: str) -> str:
    """Replace the API key, which some servers repeat. A short key such as "ollama" is no secret and stays."""
    if len(secret) < MIN_SECRET_CHARS:
        return text
    return re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", "…", text)


def secrets_of_headers(headers: Mapping[str, str]) -> list[str]:
    """The values of configured headers, and those behind a word such as `Bearer`, longest first."""
    values = {part for value in headers.values() for part in (value, value.partition(" ")[2].strip())}
    return sorted(values, key=len, reverse=True)


def _parse(text: str) -> Any:
    """The JSON object or list in the text; None if it is something else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list | str) else None


def _nodes(value: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """All objects of the document, outermost first. A text that is a document counts, as gateways pack them."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        value = _parse(value)
    if depth > MAX_DEPTH:
        return
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _nodes(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _nodes(item, depth + 1)


def _words(value: Any, depth: int = 0) -> Iterator[str]:
    if depth > MAX_DEPTH:
        return
    if isinstance(value, str):
        inner = _parse(value) if value.lstrip().startswith(("{", "[")) else None
        if inner is not None:
            yield from _words(inner, depth + 1)
        elif value.strip():
            yield value.strip()
    elif isinstance(value, list):
        for item in value:
            yield from _words(item, depth + 1)
    elif isinstance(value, dict):
        for key in WORD_KEYS:
            if key in value:
                yield from _words(value[key], depth + 1)
        for key in ("errors", "metadata", "details"):
            if isinstance(value.get(key), dict | list):
                yield from _words(value[key], depth + 1)


def _plain_text(body: str) -> str:
    """The text of a page, without its tags and scripts."""
    text = re.sub(r"<(script|style|head)\b.*?</\1>", " ", body, flags=re.DOTALL | re.IGNORECASE)
    return html.unescape(re.sub(r"<[^>]+>", " ", text))


def _retry_after(headers: Mapping[str, str], nodes: list[dict[str, Any]]) -> float | None:
    """Seconds to wait, from the headers or the document. A date is converted by the server's own clock."""
    if (milliseconds := _seconds(headers.get("retry-after-ms", ""))) is not None:
        return min(milliseconds / 1000, LONGEST_WAIT_SECONDS)
    candidates: list[object] = [headers.get("retry-after", "")]
    candidates += [node[key] for node in nodes for key in WAIT_KEYS if key in node]
    for candidate in candidates:
        seconds = _seconds(candidate)
        if seconds is None and isinstance(candidate, str) and "date" in headers:
            seconds = _seconds_between(headers["date"], candidate)
        if seconds is not None:
            return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS)
    return None


def _seconds(value: object) -> float | None:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*s?\s*", str(value))
    return float(match[1]) if match else None


def _seconds_between(now: str, then: str) -> float | None:
    try:
        return (parsedate_to_datetime(then) - parsedate_to_datetime(now)).total_seconds()
    except (ValueError, TypeError):
        return None
