"""Read what a server answered instead of a completion, wherever its words are, and recognise what it means.

The status and the structure count first; words are looked at last.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moorage_api.agent.model.servers.waits import read_wait
from moorage_api.agent.model.servers.windows import window_in_words

MAX_CHARS = 500
MAX_READ_CHARS = 64 * 1024
"""Of a page, and of all words of a document. Some servers repeat the whole request in their error."""
MAX_DEPTH = 6

WINDOW_CODES = frozenset(
    {"context_length_exceeded", "exceed_context_size_error", "context_window_exceeded", "request_too_large", "1261"}
)
WINDOW_STATUSES = frozenset({0, 400, 413, 422, 500, 503})
"""0 stands for an error inside a stream. A rate limit (429) never means that the window is full."""
WINDOW_WORDS = re.compile(
    r"context[_ -]?(length|window|size)|maximum context|too many tokens|prompt is too long|input is too long|"
    r"exceed context limit|input token count|input tokens? exceed|range of input length|exceeded model token limit|"
    r"exceeds? (the )?max(imum)? (allowed )?length|maximum prompt length|longer than the maximum model length|"
    r"prompt token count.{0,20} exceeds|exceeds the maximum number of (input )?tokens|n_keep.{0,20}n_ctx|"
    r"reduce the length of either one|too many (input|total)( text)? (tokens|bytes)|model_context_window_exceeded|"
    r"reduce the length of (the|your) (messages|prompt|input)|"
    r"inputs?.{0,40}max_new_tokens.{0,20}must be <=|too large for model with \d+ maximum",
    re.IGNORECASE | re.DOTALL,
)
"""OpenAI, vLLM (both texts), SGLang, Anthropic, Bedrock, Gemini, Qwen, Kimi, GLM, xAI, Together, Groq, Mistral,
OpenRouter, Copilot, llama.cpp, LM Studio."""

FULL_WINDOW_REASON = "model_context_window_exceeded"
"""`finish_reason` of z.ai and Claude for an answer that ends because the window is full."""

UNREAD_CALL_CODES = frozenset({"tool_use_failed"})
UNREAD_CALL_STATUSES = frozenset({0, 400, 422, 500})
UNREAD_CALL_WORDS = re.compile(
    r"error parsing tool call|failed to (parse|call) (a |the )?(tool|function)|failed to parse input at pos",
    re.IGNORECASE,
)
"""Groq, Ollama, vLLM, llama.cpp."""

NO_CREDIT_CODES = frozenset(
    {
        "insufficient_quota",
        "insufficient_user_quota",
        "exceeded_current_quota_error",
        "insufficient_balance",
        "insufficientbalance",
        "insufficient_credits",
        "credit_balance_too_low",
        "billing_hard_limit",
        "billing_hard_limit_reached",
        "billing_not_active",
        "arrearage",
        "accountoverdueerror",
        "1113",
    }
)
NO_CREDIT_WORDS = re.compile(
    r"credit balance is too low|insufficient[ _](account )?(balance|credits?|funds)|out of credits|not enough credits|"
    r"spending limit|余额不足|欠费|insufficient_quota|insufficient_user_quota|exceeded_current_quota_error",
    re.IGNORECASE,
)
STATUS_OF_CODES = {
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "bad_request": 400,
    "bad_request_error": 400,
    "invalid_argument": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "unauthenticated": 401,
    "unauthorized": 401,
    "permission_error": 403,
    "permission_denied": 403,
    "forbidden": 403,
    "not_found_error": 404,
    "notfounderror": 404,
    "not_found": 404,
    "model_not_found": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "resource_exhausted": 429,
    "too_many_requests": 429,
    "overloaded_error": 529,
}
"""The status that a server would have sent, if it names the error only in a stream that has already begun."""
WORD_KEYS = (
    "message",
    "msg",
    "error_msg",
    "error_message",
    "errormessage",
    "status_msg",
    "detail",
    "error_description",
    "description",
    "reason",
    "title",
    "error",
    "raw",
)
"""The keys are in lower case. A document's keys are compared without regard to case. Earlier keys count first."""
INNER_KEYS = ("errors", "metadata", "details", "base_resp", "cause", "innererror", "response")
CODE_KEYS = ("code", "type", "status", "error_code", "error_type", "status_code")


@dataclass(frozen=True)
class Refusal:
    """`server_text`: the server's words. `codes`: its codes of the error, lower case. `param`: the fields it names."""

    status: int
    server_text: str
    codes: frozenset[str] = frozenset()
    param: str = ""
    retry_after_seconds: float | None = None
    words: str = field(default="", compare=False)
    """All words of the document, for recognition."""
    generation: str = field(default="", compare=False)
    """What the model wrote and the server could not read, if it is in the document."""

    @property
    def is_unread_call(self) -> bool:
        """The server could not read a call that its own model wrote. Nothing is wrong with the request."""
        if self.codes & UNREAD_CALL_CODES:
            return True
        return self.status in UNREAD_CALL_STATUSES and bool(UNREAD_CALL_WORDS.search(self.words))

    @property
    def is_window_full(self) -> bool:
        if self.status not in WINDOW_STATUSES or "429" in self.codes or "rate_limit_exceeded" in self.codes:
            return False
        return self.status == 413 or bool(self.codes & WINDOW_CODES) or bool(WINDOW_WORDS.search(self.words))

    @property
    def window_tokens(self) -> int | None:
        """The size of the window, if the words name it."""
        return window_in_words(self.words)

    @property
    def is_no_credit(self) -> bool:
        if self.status == 402 or self.codes & NO_CREDIT_CODES:
            return True
        return self.status in (0, 400, 403, 429) and bool(NO_CREDIT_WORDS.search(self.words))

    @property
    def reason(self) -> str:
        return f"{self.param} {self.words}".lower()


def read_refusal(status: int, body: str, headers: Mapping[str, str], *, secrets: Sequence[str] = ()) -> Refusal:
    """Read an error document of any shape. The `secrets` are removed from the words, after escapes were resolved."""
    document = _parse(body)
    words = list(dict.fromkeys(_words(document) if document is not None else ()))
    words = words or [_plain_text(body[:MAX_READ_CHARS]).strip(" {}[]")]
    nodes = list(_nodes(document))
    codes = [str(node[key]).lower() for node in nodes for key in CODE_KEYS if isinstance(node.get(key), str | int)]
    params = [str(node["param"]) for node in nodes if isinstance(node.get("param"), str)]
    params += [str(part) for node in nodes if isinstance(node.get("loc"), list) for part in node["loc"]]
    everything = mask_secrets(" ".join(" ".join(words).split()), secrets)[:MAX_READ_CHARS]
    # the last words are the innermost: those of the server behind a gateway
    text = mask_secrets(" ".join(": ".join(words[:1] + words[-1:] if len(words) > 1 else words).split()), secrets)
    return Refusal(
        status=status or _status_of(codes),
        server_text=text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}…",
        codes=frozenset(codes),
        param=" ".join(params),
        retry_after_seconds=read_wait(headers, nodes, everything),
        words=everything,
        generation=mask_secrets(_find_generation(nodes), secrets),
    )


def _find_generation(nodes: Iterable[Mapping[str, Any]]) -> str:
    found = (node.get("failed_generation") for node in nodes)
    return next((text for text in found if isinstance(text, str)), "")[:MAX_READ_CHARS]


def _status_of(codes: Iterable[str]) -> int:
    """The status that the codes of an error stand for; 0 if they say nothing about it."""
    for code in codes:
        if code.isdecimal() and len(code) == 3 and 400 <= int(code) < 600:
            return int(code)
        if code in STATUS_OF_CODES:
            return STATUS_OF_CODES[code]
    return 0


MIN_SECRET_CHARS = 8


def mask_secret(text: str, secret: str) -> str:
    """Replace the API key, which some servers repeat. A short key such as "ollama" is no secret and stays.

    It is found in any case, and also where its special characters are escaped as in JSON or in a URL.
    """
    if len(secret) < MIN_SECRET_CHARS:
        return text
    pattern = "".join(char if char.isalnum() else _escaped(char) for char in secret)
    return re.sub(rf"(?:(?<![A-Za-z0-9])|(?<=\\[nrt])){pattern}(?![A-Za-z0-9])", "…", text, flags=re.IGNORECASE)


def _escaped(char: str) -> str:
    """A pattern for the character as it is, and as JSON and URLs write it."""
    return rf"(?:\\{{0,8}}{re.escape(char)}|\\{{1,8}}u{ord(char):04x}|%{ord(char):02x})"


def mask_secrets(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = mask_secret(text, secret)
    return text


def find_secrets(api_key: str, headers: Mapping[str, str]) -> list[str]:
    """The API key, the values of configured headers, and those behind a word such as `Bearer`, longest first."""
    values = {part for value in headers.values() for part in (value, value.partition(" ")[2].strip())}
    return sorted({api_key, *values}, key=len, reverse=True)


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
        named = {key.lower(): item for key, item in value.items()}
        for key in WORD_KEYS:
            if key in named:
                yield from _words(named[key], depth + 1)
        for key in INNER_KEYS:
            if isinstance(named.get(key), dict | list):
                yield from _words(named[key], depth + 1)


def _plain_text(body: str) -> str:
    """The text of a page, without its tags and scripts."""
    for name in ("script", "style", "head"):
        body = _remove_elements(body, name)
    text = re.sub(r"<[^<>]+>", " ", body)
    try:
        return html.unescape(text)
    except ValueError:  # a character with thousands of digits
        return text


def _remove_elements(page: str, name: str) -> str:
    """What follows the last end tag is not searched: looking there for an end again and again takes long."""
    ends = [tag.end() for tag in re.finditer(f"</{name}>", page, re.IGNORECASE)]
    last = ends[-1] if ends else 0
    elements = re.compile(rf"<{name}\b.*?</{name}>", re.DOTALL | re.IGNORECASE)
    return elements.sub(" ", page[:last]) + page[last:]
