"""Fields of a model's answer that we do not understand: collect them, store them, and give them back.

Examples are `reasoning_content`, `reasoning_details`, `thinking_blocks`, and `extra_content` with a thought signature
on a tool call. Some models refuse the next request without them, and another model may refuse a request with them.

They are stored as JSON text, because PostgreSQL's jsonb sorts keys and refuses some characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from moorage_api.agent.ports import OFFER
from moorage_api.agent.unicode import repair_unicode

STORED = "moorage_foreign"
"""Key of a stored message that holds the fields and the identity of their model. It is never sent to a model."""
OUR_KEYS = frozenset({STORED, OFFER})
"""Keys of stored messages that no model gets."""

OUR_PREFIX = "moorage_"
"""Begins the keys that stored messages have for us. A field of a model with such a name is ignored."""

MESSAGE_FIELDS = frozenset({"role", "content", "tool_calls", "function_call"})
CALL_FIELDS = frozenset({"index", "id", "type", "function"})
FUNCTION_FIELDS = frozenset({"name", "arguments"})

NAMING_KEYS = re.compile(r"(^|.*_)(type|id|format|name|role|object|provider|model|status|phase)", re.DOTALL)
"""Texts that a server repeats in each chunk. They are replaced; other texts are concatenated."""
TEXT_KEYS = frozenset({"thinking", "text", "summary", "reasoning", "content"})
"""Texts of a list item that a server sends in pieces."""
CLOSING_KEYS = re.compile(r"data|.*(signature|encrypted|opaque).*", re.DOTALL | re.IGNORECASE)
"""Texts that complete a list item. They are opaque, so a repetition is the same value and not a continuation."""
MAX_COMPARED = 100
"""A list item is compared with this many before it, so that a long list does not take ever more time."""
MAX_PLAIN_ID_CHARS = 64
"""A longer call id holds more than a name: one gateway puts the thought signature into it."""


class ForeignFields:
    """Collects the unknown fields of one object from its chunks.

    Texts are concatenated, objects are merged, list items are merged by their index or appended, other values replace.
    """

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}
        self.size = 0
        """Characters of all texts, so that the caller can limit them."""

    def add(self, chunk: Mapping[str, Any], *, known: frozenset[str]) -> None:
        for key, value in chunk.items():
            if key not in known and value is not None and not key.startswith(OUR_PREFIX):
                self.size += _count_chars(value)
                self._fields[key] = _merge(key, self._fields.get(key), value)

    def get(self) -> dict[str, Any]:
        """The fields so far, with valid Unicode."""
        fields: dict[str, Any] = repair_unicode(_close(self._fields))
        return fields

    def to_json(self) -> str:
        """The fields as ASCII JSON text; empty without fields."""
        return json.dumps(self.get()) if self._fields else ""


def _count_chars(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(len(key) + _count_chars(item) for key, item in value.items())
    if isinstance(value, list):
        return sum(map(_count_chars, value)) + len(value)
    return 8


class _Pieces:
    """A text that still grows. Joined once at the end, so that a long stream takes linear time."""

    def __init__(self, text: str) -> None:
        self.pieces = [text]


def _open(value: Any) -> Any:
    if isinstance(value, str):
        return _Pieces(value)
    if isinstance(value, Mapping):
        return {key: _open(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_open(item) for item in value]
    return value


def _close(value: Any) -> Any:
    if isinstance(value, _Pieces):
        return "".join(value.pieces)
    if isinstance(value, dict):
        return {key: _close(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_close(item) for item in value]
    return value


def _merge(key: str, old: Any, new: Any) -> Any:
    if new is None:
        return old
    if isinstance(old, _Pieces) and isinstance(new, str):
        if NAMING_KEYS.fullmatch(key) or (CLOSING_KEYS.fullmatch(key) and "".join(old.pieces) == new):
            return _Pieces(new or "".join(old.pieces))
        old.pieces.append(new)
        return old
    if isinstance(old, dict) and isinstance(new, Mapping):
        for name, item in new.items():
            old[name] = _merge(name, old.get(name), item)
        return old
    if isinstance(old, list) and isinstance(new, list):
        for place, item in enumerate(new):
            _merge_item(old, item, is_first=place == 0)
        return old
    return _open(new)


def _merge_item(items: list[Any], new: Any, *, is_first: bool) -> None:
    """Continue the item with the same index; without an index, the last item if it is unfinished text."""
    if isinstance(new, Mapping) and items:
        recent = items[-MAX_COMPARED:]
        if _is_closed(new) and any(_close(item) == new for item in recent):
            return  # the whole item again
        if isinstance(new.get("index"), int):
            known = next((item for item in recent if _is_same(item, new) and item.get("index") == new["index"]), None)
        elif is_first and _is_same(items[-1], new) and _continues(items[-1], new):
            known = items[-1]
        else:
            known = None
        if known is not None:
            _merge("", known, new)
            return
    items.append(_open(new))


def _is_same(old: Any, new: Mapping[str, Any]) -> bool:
    """Whether the type and the id do not contradict each other."""
    if not isinstance(old, dict):
        return False
    return all(not old.get(key) or not new.get(key) or _close(old[key]) == new[key] for key in ("type", "id"))


def _continues(old: dict[str, Any], new: Mapping[str, Any]) -> bool:
    is_text = any(key in old for key in TEXT_KEYS)
    is_more = any(key in TEXT_KEYS or CLOSING_KEYS.fullmatch(key) for key in new)
    return is_text and is_more and not _is_closed(old)


def _is_closed(item: Mapping[str, Any]) -> bool:
    return any(CLOSING_KEYS.fullmatch(key) and _close(value) for key, value in item.items())


def attach(
    message: dict[str, Any], identity: str, *, text: str, fields: str, calls: Sequence[str] = ()
) -> dict[str, Any]:
    """The transcript message with the fields of its model: those of the message and of each call, as JSON text.

    `text` is the text of the answer. A message with another text does not get the content parts of the answer.
    """
    if fields and message["content"].strip() != text.strip():
        kept = {key: value for key, value in _parse(fields).items() if key != "content"}
        fields = json.dumps(kept) if kept else ""
    if not fields and not any(calls):
        return message
    return message | {STORED: {"model": identity, "fields": fields, "calls": list(calls)}}


def restore(transcript: Sequence[Mapping[str, Any]], identity: str) -> list[dict[str, Any]]:
    """The messages as `identity` gets them: with its own fields as it sent them, without those of other models.

    A call that came with an id of its own gets that id back, and so does its result.
    """
    ids: dict[str, str] = {}
    messages = []
    for stored in transcript:
        message = {key: value for key, value in stored.items() if key not in OUR_KEYS}
        kept = stored.get(STORED)
        if kept and kept["model"] == identity:
            message |= _parse(kept["fields"])
            for call, fields in zip(message.get("tool_calls", ()), map(_parse, kept["calls"]), strict=False):
                ids[call["id"]] = fields.get("id", call["id"])
            message |= _restore_calls(message, kept["calls"])
        elif message.get("tool_call_id") in ids:
            message["tool_call_id"] = ids[message["tool_call_id"]]
        messages.append(message)
    return messages


def remove(message: dict[str, Any]) -> dict[str, Any]:
    """A restored message without its model's fields. Those of calls stay: they are short, and models require them."""
    return {key: value for key, value in message.items() if key in MESSAGE_FIELDS or key == "tool_call_id"}


def _restore_calls(message: Mapping[str, Any], kept: Sequence[str]) -> dict[str, Any]:
    if not message.get("tool_calls"):
        return {}
    fields = [*map(_parse, kept), *({} for _ in message["tool_calls"][len(kept) :])]
    return {
        "tool_calls": [
            call | item | {"function": call["function"] | item.get("function", {})}
            for call, item in zip(message["tool_calls"], fields, strict=True)
        ]
    }


def _parse(text: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(text) if text else {}
    return {key: value for key, value in fields.items() if not key.startswith(OUR_PREFIX)}
