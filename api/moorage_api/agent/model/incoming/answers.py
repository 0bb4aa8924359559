"""Build a model's answer from stream chunks, and find tool calls and JSON objects in plain text."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from moorage_api.agent.model.incoming.calls import LEGACY_INDEX, BadPartError, CallsBuilder
from moorage_api.agent.model.incoming.calls import RawCall as RawCall
from moorage_api.agent.model.incoming.foreign import MESSAGE_FIELDS, ForeignFields
from moorage_api.agent.model.incoming.json_objects import parse_json
from moorage_api.agent.model.incoming.json_objects import parse_object as parse_object
from moorage_api.agent.model.incoming.repetition import Repetition
from moorage_api.agent.model.incoming.usage import Usage, read_usage
from moorage_api.agent.unicode import repair_unicode

THOUGHTS = re.compile(
    r"^\s*(?:<(think|thinking|thought|seed:think)>.*?(?:</\1>\s*|\Z)|\[THINK\].*?(?:\[/THINK\]\s*|\Z)"
    r"|◁think▷.*?(?:◁/think▷\s*|\Z))",
    re.DOTALL,
)
"""Reasoning that some servers leave at the beginning of the text. It has no end tag while it still streams."""
UNOPENED_THOUGHTS = re.compile(r"\A(?:(?!<think|```|`</think).)*?</think(?:ing)?>[ \t]*\n\s*", re.DOTALL)
"""The same from servers whose prompt already holds the first tag, so that only the last one is in the text."""

TROUBLE_REASONS = re.compile(r"error|abort|malformed|cancel|insufficient_system|timeout|fail|unexpected_tool_call")
CUT_REASONS = re.compile(r"length|max_|token_limit|context_window|incomplete|truncat")
FILTER_REASONS = re.compile(
    r"filter|sensitive|safety|recitation|prohibited|blocklist|refusal|guardrail|spii|moderation"
)
"""Parts of a `finish_reason`, in lower case. The first that is found counts; any other reason is a regular end."""
CALL_REASONS = frozenset({"tool_calls", "tool_call", "tool_use", "function_call"})
TEXT_PARTS = frozenset({"text", "output_text"})

TAGGED_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
FENCED = re.compile(r"```(?:json)?+[^\S\n]*+\n(.*?)```", re.DOTALL)


class BadStreamError(Exception):
    """The server sent something that is not a chat completion. `server_text`: its own words, if there are any."""

    def __init__(self, reason: str, *, server_text: str = "") -> None:
        super().__init__(reason)
        self.server_text = server_text


class AnswerLimitError(BadStreamError):
    """The answer is larger than a limit, or has no end."""


@dataclass(frozen=True)
class AnswerLimits:
    """What one answer may be. They are settings, so that a server cannot fill the memory or answer without end."""

    max_chars: int = 4_000_000
    max_repeated_chars: int = 20_000


@dataclass(frozen=True)
class Answer:
    text: str
    calls: tuple[RawCall, ...] = ()
    is_cut: bool = False
    """The server cut the answer off at its token limit."""
    foreign: str = ""
    """The message's fields that we do not understand, as JSON text; empty without such fields."""
    usage: Usage | None = field(default=None, compare=False)
    """What the server said about it; None if it said nothing."""
    is_filtered: bool = False
    """A content filter of the server ended the answer."""
    lacks_call: bool = field(default=False, compare=False)
    """The server says that the answer has calls, or sent parts of one, but there is no call in it."""


DEFAULT_LIMITS = AnswerLimits()


class AnswerBuilder:
    """Collects chunks (dicts of the Chat Completions API). `answer()` returns the answer so far."""

    def __init__(self, limits: AnswerLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._repetitions: dict[str, Repetition] = {}
        self._blank_chars = 0
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls = CallsBuilder()
        self._size = 0
        self._reason = ""
        self._went_on = False
        """Parts of the answer came after a reason for its end."""
        self._main: object = None
        """Key of the choice that is the answer."""
        self._others: AnswerBuilder | None = None
        """The other choices. Some gateways put the text of an answer into one choice and its calls into another."""
        self.usage: Usage | None = None
        """The last usage that the server sent."""
        self.is_document = False
        """The answer came as one document and not as a stream, so it is whole."""
        self.has_begun = False
        """The server sent a part of an answer, so it may bill the call."""
        self._foreign = ForeignFields()
        self._parts = ForeignFields()
        """The content as parts, for the models that send other parts than text."""
        self._has_foreign_parts = False

    def is_whole(self, *, has_end: bool) -> bool:
        """The server said why the answer ends. `has_end`: it marked the end of the stream.

        Some gateways give a reason behind each part of the answer; there only the mark says that it is whole.
        """
        return self.is_document or (bool(self._reason) and (has_end or not self._went_on))

    @property
    def trouble(self) -> str:
        """The reason of an answer that its server could not finish; otherwise empty."""
        return self._reason if TROUBLE_REASONS.search(self._reason) else ""

    def feed(self, chunk: object) -> None:
        """Raises BadStreamError."""
        if not isinstance(chunk, dict):
            raise BadStreamError("a chunk is not an object")
        self.usage = read_usage(chunk) or self.usage
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            return  # usage, content filter results, keep-alives
        for place, choice in enumerate(choices):
            if not isinstance(choice, dict):
                raise BadStreamError("a choice is not an object")
            key = choice["index"] if isinstance(choice.get("index"), int) else place
            if self._main is None:
                self._main = key
            if key == self._main:
                self._feed_choice(choice)
            else:
                self._others = self._others or AnswerBuilder(self._limits)
                self._others._feed_choice(choice)

    def _feed_choice(self, choice: dict[str, Any]) -> None:
        self.has_begun = True
        had_reason, size_before = bool(self._reason), self._size + self._calls.size
        self._reason = str(choice.get("finish_reason") or "").lower() or self._reason
        delta = choice.get("delta") or self._missing_parts(choice.get("message") or {})
        if not isinstance(delta, dict):
            raise BadStreamError("a delta is not an object")
        self._foreign.add(delta, known=MESSAGE_FIELDS)
        self._add_text(delta.get("content"))
        if isinstance(refusal := delta.get("refusal"), str):
            self._refusal.append(refusal)
        self._add_calls(delta)
        self._went_on = self._went_on or (had_reason and self._size + self._calls.size > size_before)
        size = self._size + self._foreign.size + self._calls.size
        if self._has_foreign_parts:
            size += self._parts.size
        if size > self._limits.max_chars:
            raise AnswerLimitError(f"is longer than {self._limits.max_chars} characters (MOORAGE_LLM_ANSWER_CHARS)")
        self._check_repetition(delta)

    def _check_repetition(self, delta: dict[str, Any]) -> None:
        """Look at text and thoughts. In the arguments of a call only white space counts, because files may repeat."""
        limit = self._limits.max_repeated_chars
        for name, value in delta.items():
            if isinstance(value, str) and self._repetitions.setdefault(name, Repetition(limit)).add(value):
                raise AnswerLimitError(f"repeats the same words for {limit} characters (MOORAGE_LLM_REPEATED_CHARS)")
        if self._blank_chars > limit:
            raise AnswerLimitError(f"has {limit} blank characters in a call (MOORAGE_LLM_REPEATED_CHARS)")

    def _missing_parts(self, message: Any) -> Any:
        """What has not come yet of a message that repeats the whole answer, as some servers send at the end."""
        if not isinstance(message, dict) or not (self._text or self._calls.has_calls):
            return message
        names = [] if self._calls.has_calls else ["tool_calls", "function_call"]
        return {name: message[name] for name in names if name in message}

    def _add_text(self, content: object) -> None:
        if isinstance(content, dict):
            content = [content]
        if isinstance(content, list):  # content parts, as a few servers stream them
            parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
            parts = [part for part in parts if isinstance(part, dict)]
            self._parts.add({"content": parts}, known=frozenset())
            self._has_foreign_parts = self._has_foreign_parts or any(part.get("type") != "text" for part in parts)
            texts = [part.get("text") for part in parts if str(part.get("type", "text")) in TEXT_PARTS]
            content = "".join(text for text in texts if isinstance(text, str))
        elif isinstance(content, str) and content:
            self._parts.add({"content": [{"type": "text", "text": content}]}, known=frozenset())
        if content is not None and not isinstance(content, str):
            raise BadStreamError("the content is not text")
        if content:
            self._text.append(content)
            self._size += len(content)

    def _add_calls(self, delta: dict[str, Any]) -> None:
        parts = delta.get("tool_calls") or ()
        parts = [parts] if isinstance(parts, dict) else list(parts)
        if isinstance(legacy := delta.get("function_call"), dict):
            parts.append({"index": LEGACY_INDEX, "function": legacy})
        try:
            for place, part in enumerate(parts):
                arguments = self._calls.add(part, is_first=place == 0)
                self._blank_chars = self._blank_chars + len(arguments) if not arguments.strip() else 0
        except BadPartError as error:
            raise BadStreamError(str(error)) from error

    def answer(self) -> Answer:
        """The answer so far."""
        calls, reason = self._calls.close(), self._reason
        if not calls and self._others is not None:
            calls = self._others.answer().calls
        is_cut = bool(CUT_REASONS.search(reason)) and not self.trouble
        return Answer(
            self._plain_text(),
            calls,
            is_cut,
            self._foreign_json(),
            self.usage,
            is_filtered=bool(FILTER_REASONS.search(reason)) and not is_cut and not self.trouble,
            lacks_call=not calls and (reason in CALL_REASONS or self._calls.has_nameless),
        )

    def _plain_text(self) -> str:
        return remove_thoughts(repair_unicode("".join(self._text or self._refusal)))

    def _foreign_json(self) -> str:
        fields = self._foreign.get() | (self._parts.get() if self._has_foreign_parts else {})
        return json.dumps(fields) if fields else ""


def remove_thoughts(text: str) -> str:
    return UNOPENED_THOUGHTS.sub("", THOUGHTS.sub("", text, count=1), count=1)


def objects_in(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a text: in <tool_call> tags, in code blocks, or the whole text."""
    stripped = text.strip()
    for candidate in (*TAGGED_CALL.findall(text), *FENCED.findall(text), stripped):
        if candidate.strip().startswith("{") and (value := parse_object(candidate)) is not None:
            yield value


WHOLE_OBJECT = re.compile(r"```(?:json)?+[^\S\n]*+\n[^`]*+```|\{.*\}", re.DOTALL)


def whole_object(text: str) -> dict[str, Any] | None:
    """The object that a text consists of, perhaps in a code block; None if there is anything else in the text."""
    return next(objects_in(text), None) if WHOLE_OBJECT.fullmatch(text.strip()) else None


CALL_TEXT = re.compile(
    r"(?:<tool_call>(?:(?!</tool_call>).)*+(?:</tool_call>|\Z)\s*+)++"
    r"|```(?:json)?+[^\S\n]*+\n[^`]*+```|[{\[].*[}\]]",
    re.DOTALL,
)
"""A text that is nothing but calls: tagged, in one code block, or plain JSON."""


def calls_in_text(text: str, names: Collection[str]) -> tuple[RawCall, ...]:
    """The calls that a text consists of. Servers without a parser for their model's format leave them there.

    Empty if there is anything else in the text, or anything that is not a call of a function in `names`.
    """
    if not CALL_TEXT.fullmatch(text.strip()):
        return ()
    calls = []
    for value in _objects_or_items(text):
        function = value.get("function")
        inner = function if isinstance(function, dict) else value
        name = inner.get("name") or (function if isinstance(function, str) else None)
        if not isinstance(name, str) or name not in names:
            return ()
        arguments: Any = next((inner[key] for key in ("arguments", "parameters", "args") if key in inner), {})
        calls.append(
            RawCall(name, arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False))
        )
    return tuple(dict.fromkeys(calls))


def _objects_or_items(text: str) -> list[dict[str, Any]]:
    """The objects of a text, or the items of the list that it is."""
    if not text.lstrip().startswith("["):
        return list(objects_in(text))
    try:
        items = parse_json(text)
    except (ValueError, RecursionError):
        return []
    return items if isinstance(items, list) and all(isinstance(item, dict) for item in items) else []
