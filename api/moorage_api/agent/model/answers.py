"""Build a model's answer from stream chunks, and find tool calls and JSON objects in plain text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from moorage_api.agent.model.foreign import (
    CALL_FIELDS,
    FUNCTION_FIELDS,
    MAX_PLAIN_ID_CHARS,
    MESSAGE_FIELDS,
    ForeignFields,
)
from moorage_api.agent.model.usage import Usage, read_usage
from moorage_api.agent.unicode import repair_unicode

MAX_ANSWER_CHARS = 4_000_000
"""An answer longer than this is an error, so that a server cannot fill the memory."""

MAX_DEPTH = 50
"""Deepest nesting of a call's arguments. Deeper values cannot be stored as an event."""

THOUGHTS = re.compile(r"^\s*<think(?:ing)?>.*?(?:</think(?:ing)?>\s*|\Z)", re.DOTALL)
"""Reasoning that some servers leave at the beginning of the text. It has no end tag while it still streams."""

CUT_REASONS = frozenset({"length", "max_tokens", "MAX_TOKENS", "model_length"})

TAGGED_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
FENCED = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)


class BadStreamError(Exception):
    """The server sent something that is not a chat completion."""


@dataclass(frozen=True)
class RawCall:
    """A tool call as the model wrote it. `arguments` should be a JSON object, but it is not checked yet."""

    name: str
    arguments: str
    foreign: str = ""
    """The call's fields that we do not understand, as JSON text; empty if there are none."""


@dataclass(frozen=True)
class Answer:
    text: str
    calls: tuple[RawCall, ...] = ()
    is_cut: bool = False
    """The server cut the answer off at its token limit."""
    foreign: str = ""
    """The message's fields that we do not understand, as JSON text; empty if there are none."""
    usage: Usage | None = field(default=None, compare=False)
    """What the server said about it; None if it said nothing."""


class _OpenCall:
    def __init__(self, call_id: str) -> None:
        self.id = call_id
        self.name = ""
        self.arguments: list[str] = []
        self.foreign = ForeignFields()

    def close(self) -> RawCall:
        if "__thought__" in self.id or len(self.id) > MAX_PLAIN_ID_CHARS:
            self.foreign.add({"id": self.id}, known=frozenset())
        return RawCall(self.name, repair_unicode("".join(self.arguments)), self.foreign.to_json())


class AnswerBuilder:
    """Collects chunks (dicts of the Chat Completions API). `answer()` returns the answer so far."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._calls: list[_OpenCall] = []
        self._by_index: dict[int, _OpenCall] = {}
        self._size = 0
        self._is_cut = False
        self.is_finished = False
        """The server said why the answer ends, so it is whole."""
        self.usage: Usage | None = None
        """The last usage that the server sent."""
        self.has_begun = False
        """The server sent a part of an answer, so it may bill the call."""
        self._foreign = ForeignFields()
        self._parts = ForeignFields()
        """The content as parts, for the models that send other parts than text."""
        self._has_foreign_parts = False

    def feed(self, chunk: object) -> None:
        """Raises BadStreamError."""
        if not isinstance(chunk, dict):
            raise BadStreamError("a chunk is not an object")
        self.usage = read_usage(chunk) or self.usage
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices:
            return  # usage, content filter results, keep-alives
        choice = choices[0]
        if not isinstance(choice, dict):
            raise BadStreamError("a choice is not an object")
        self.has_begun = True
        self.is_finished = self.is_finished or bool(choice.get("finish_reason"))
        self._is_cut = self._is_cut or choice.get("finish_reason") in CUT_REASONS
        delta = choice.get("delta") or choice.get("message") or {}
        if not isinstance(delta, dict):
            raise BadStreamError("a delta is not an object")
        self._foreign.add(delta, known=MESSAGE_FIELDS)
        self._add_text(delta.get("content"))
        for part in delta.get("tool_calls") or ():
            if not isinstance(part, dict):
                raise BadStreamError("a tool call is not an object")
            self._add_call(part)
        size = self._size + self._foreign.size + sum(call.foreign.size for call in self._calls)
        if self._has_foreign_parts:
            size += self._parts.size
        if size > MAX_ANSWER_CHARS:
            raise BadStreamError(f"the answer is longer than {MAX_ANSWER_CHARS} characters")

    def _add_text(self, content: object) -> None:
        if isinstance(content, list):  # content parts, as a few servers stream them
            parts = [part for part in content if isinstance(part, dict)]
            self._parts.add({"content": parts}, known=frozenset())
            self._has_foreign_parts = self._has_foreign_parts or any(part.get("type") != "text" for part in parts)
            content = "".join(str(part.get("text") or "") for part in parts if part.get("type", "text") == "text")
        elif isinstance(content, str) and content:
            self._parts.add({"content": [{"type": "text", "text": content}]}, known=frozenset())
        if content is not None and not isinstance(content, str):
            raise BadStreamError("the content is not text")
        if content:
            self._text.append(content)
            self._size += len(content)

    def _add_call(self, part: dict[str, Any]) -> None:
        call = self._call_of(part.get("index"), str(part.get("id") or ""))
        function = part.get("function") or {}
        if not isinstance(function, dict):
            raise BadStreamError("a function is not an object")
        call.foreign.add(part, known=CALL_FIELDS)
        if not function.keys() <= FUNCTION_FIELDS:
            more = {key: value for key, value in function.items() if key not in FUNCTION_FIELDS}
            call.foreign.add({"function": more}, known=frozenset())
        name, arguments = function.get("name"), function.get("arguments")
        if isinstance(name, str) and name != call.name:
            call.name += name
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments, ensure_ascii=False)
        if isinstance(arguments, str):
            call.arguments.append(arguments)
            self._size += len(arguments)

    def _call_of(self, index: object, call_id: str) -> _OpenCall:
        """Find the call that a part belongs to: by its index, otherwise the last call. A new id begins a new call."""
        last = self._calls[-1] if self._calls else None
        call = self._by_index.get(index) if isinstance(index, int) else last
        if call is None or (call_id and call.id and call_id != call.id):
            call = _OpenCall(call_id)
            self._calls.append(call)
            if isinstance(index, int):
                self._by_index[index] = call
        return call

    def answer(self) -> Answer:
        """The answer so far."""
        calls = tuple(call.close() for call in self._calls if call.name)
        return Answer(self._plain_text(), calls, self._is_cut, self._foreign_json(), self.usage)

    def _plain_text(self) -> str:
        return remove_thoughts(repair_unicode("".join(self._text)))

    def _foreign_json(self) -> str:
        fields = self._foreign.get() | (self._parts.get() if self._has_foreign_parts else {})
        return json.dumps(fields) if fields else ""


def remove_thoughts(text: str) -> str:
    return THOUGHTS.sub("", text, count=1)


def parse_object(text: str) -> dict[str, Any] | None:
    """Parse a JSON object that can be stored; None for anything else. An empty text is an empty object."""
    if not text.strip():
        return {}
    try:
        value = _parse(text)
        if isinstance(value, str):  # some models encode the object twice
            value = _parse(value)
    except (ValueError, RecursionError):
        return None
    return repair_unicode(value) if isinstance(value, dict) and _depth(value) <= MAX_DEPTH else None


def _parse(text: str) -> Any:
    """Like `json.loads`, but accept line breaks in strings, and refuse NaN and infinite numbers."""
    return json.loads(text, strict=False, parse_constant=_refuse_constant, parse_float=_parse_finite)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON")


def _parse_finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large")
    return number


def _depth(value: Any) -> int:
    items: Iterable[Any] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, items), default=0)


def objects_in(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a text: in <tool_call> tags, in code blocks, or the whole text."""
    stripped = text.strip()
    for candidate in (*TAGGED_CALL.findall(text), *FENCED.findall(text), stripped):
        if candidate.strip().startswith("{") and (value := parse_object(candidate)) is not None:
            yield value


CALL_TEXT = re.compile(
    r"\s*(?:(?:<tool_call>(?:(?!</tool_call>).)*(?:</tool_call>|\Z)\s*)+|```(?:json)?\s*\n[^`]*```|[{\[].*[}\]])\s*",
    re.DOTALL,
)
"""A text that is nothing but calls: tagged, in one code block, or plain JSON."""


def calls_in_text(text: str, names: Collection[str]) -> tuple[RawCall, ...]:
    """The calls that a text consists of. Servers without a parser for their model's format leave them there.

    Empty if there is anything else in the text, or anything that is not a call of a function in `names`.
    """
    if not CALL_TEXT.fullmatch(text):
        return ()
    calls = []
    for value in _objects_or_items(text):
        function = value.get("function")
        inner = function if isinstance(function, dict) else value
        name = inner.get("name") or (function if isinstance(function, str) else None)
        if name not in names:
            return ()
        arguments: Any = next((inner[key] for key in ("arguments", "parameters", "args") if key in inner), {})
        calls.append(
            RawCall(str(name), arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False))
        )
    return tuple(dict.fromkeys(calls))


def _objects_or_items(text: str) -> list[dict[str, Any]]:
    """The objects of a text, or the items of the list that it is."""
    if not text.lstrip().startswith("["):
        return list(objects_in(text))
    try:
        items = _parse(text)
    except (ValueError, RecursionError):
        return []
    return items if isinstance(items, list) and all(isinstance(item, dict) for item in items) else []
