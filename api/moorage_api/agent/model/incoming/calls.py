"""Collect the tool calls of an answer from its chunks. Servers number, name and repeat their parts in many ways."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moorage_api.agent.model.incoming.foreign import CALL_FIELDS, FUNCTION_FIELDS, MAX_PLAIN_ID_CHARS, ForeignFields
from moorage_api.agent.model.incoming.json_objects import parse_object, split_objects
from moorage_api.agent.unicode import repair_unicode

NO_ARGUMENTS = frozenset({"null", "None", '""', "[]"})
"""Texts that some servers send for a call without arguments."""
LEGACY_INDEX = -1
"""Place of the call in the older field `function_call`."""


MAX_CALLS = 1_000
"""An answer with more calls is an error, because each part is compared with the calls before it."""


class BadPartError(Exception):
    """A part of a call is not an object, or there are too many calls."""


@dataclass(frozen=True)
class RawCall:
    """A tool call as the model wrote it. `arguments` should be a JSON object, but it is not checked yet."""

    name: str
    arguments: str
    foreign: str = ""
    """The call's fields that we do not understand, as JSON text; empty without such fields."""


class _OpenCall:
    def __init__(self, call_id: str) -> None:
        self.id = call_id
        self.name = ""
        self.arguments: list[str] = []
        self.foreign = ForeignFields()

    @property
    def size(self) -> int:
        """Characters without the arguments."""
        return len(self.id) + len(self.name) + self.foreign.size

    @property
    def text(self) -> str:
        return "".join(self.arguments)

    def is_whole(self) -> bool:
        """The arguments so far are an object. The first check avoids parsing them again for each part."""
        return (
            bool(self.arguments) and self.arguments[-1].rstrip().endswith("}") and parse_object(self.text) is not None
        )

    def add_name(self, name: str) -> None:
        """A name arrives at once, in pieces, or again and again, possibly longer each time."""
        if name.startswith(self.name):
            self.name = name
        elif not self.name.endswith(name):
            self.name += name

    def close(self) -> list[RawCall]:
        if "__thought__" in self.id or len(self.id) > MAX_PLAIN_ID_CHARS:
            self.foreign.add({"id": self.id}, known=frozenset())
        texts = self._arguments()
        own = self.foreign.to_json()
        return [RawCall(self.name, repair_unicode(text), own if place == 0 else "") for place, text in enumerate(texts)]

    def _arguments(self) -> list[str]:
        """The arguments; of several calls if the server has joined them."""
        text = self.text
        if text.strip() in NO_ARGUMENTS:
            return ["{}"]
        if parse_object(text) is not None:
            return [text]
        # some gateways begin with an empty object, or send the arguments again
        objects = list(dict.fromkeys(item for item in split_objects(text) if parse_object(item)))
        if objects:
            return objects
        last = self.arguments[-1] if self.arguments else ""
        is_repeated = len(self.arguments) > 1 and last.startswith(self.arguments[0]) and parse_object(last) is not None
        return [last if is_repeated and last.strip() else text]


class CallsBuilder:
    """Takes the items of `tool_calls` in the order of arrival."""

    def __init__(self) -> None:
        self._calls: list[_OpenCall] = []
        self._by_index: dict[int, _OpenCall] = {}
        self._size = 0

    @property
    def has_calls(self) -> bool:
        return any(call.name for call in self._calls)

    @property
    def has_nameless(self) -> bool:
        return any(not call.name for call in self._calls)

    @property
    def size(self) -> int:
        """Characters of all names, ids, arguments and unknown fields."""
        return self._size

    def add(self, part: object, *, is_first: bool) -> str:
        """Returns the new arguments. `is_first`: the first item of its chunk. Raises BadPartError."""
        if not isinstance(part, Mapping):
            raise BadPartError("a tool call is not an object")
        function = part.get("function") or {}
        if not isinstance(function, Mapping):
            raise BadPartError("a function is not an object")
        given_name = function.get("name")
        name, arguments = (
            (given_name if isinstance(given_name, str) else ""),
            _arguments_text(function.get("arguments")),
        )
        call = self._call_of(part, name, arguments, is_first=is_first)
        size_before = call.size
        call.foreign.add(part, known=CALL_FIELDS)
        if not function.keys() <= FUNCTION_FIELDS:
            more = {key: value for key, value in function.items() if key not in FUNCTION_FIELDS}
            call.foreign.add({"function": more}, known=frozenset())
        if name:
            call.add_name(name)
        if arguments and not (call.is_whole() and parse_object(arguments) == parse_object(call.text)):
            call.arguments.append(arguments)
            self._size += len(arguments)
        self._size += call.size - size_before
        return arguments

    def _call_of(self, part: Mapping[str, Any], name: str, arguments: str, *, is_first: bool) -> _OpenCall:
        """Find the call that a part belongs to: by its index, otherwise the last call."""
        index, call_id = _whole_number(part.get("index")), str(part.get("id") or "")
        last = self._calls[-1] if self._calls else None
        call = last if index is None else self._by_index.get(index)
        if last is not None and not name and (call is None or index is None):
            same_id = next((item for item in self._calls if call_id and item.id == call_id), None)
            call = same_id or call or (last if not call_id and last.name and not last.is_whole() else None)
        is_beside = index is None and not is_first and bool(name)
        if call is None or is_beside or _is_another(call, call_id, name, arguments):
            if len(self._calls) >= MAX_CALLS:
                raise BadPartError(f"the answer has more than {MAX_CALLS} calls")
            call = _OpenCall(call_id)
            self._size += call.size
            self._calls.append(call)
        if call_id and not call.id:
            call.id = call_id
            self._size += len(call_id)
        if index is not None:
            self._by_index[index] = call
        return call

    def close(self) -> tuple[RawCall, ...]:
        """The calls so far. One in the older field is left out if the server sends it in both."""
        legacy = self._by_index.get(LEGACY_INDEX)
        named = [call for call in self._calls if call.name]
        calls = [call for call in named if call is not legacy] or named
        return tuple(raw for call in calls for raw in call.close())


def _is_another(call: _OpenCall, call_id: str, name: str, arguments: str) -> bool:
    """The part begins a call of its own, although its index is that of `call` or missing."""
    if call_id and call.id and call_id != call.id:
        # one server makes a new id for each chunk of the same call
        is_open = bool(call.text.strip() or not name) and not call.is_whole()
        return not is_open or bool(name and name != call.name)
    if not name or not call.name:
        return False
    if name != call.name:
        return bool(call.text.strip())  # a name is complete when its arguments begin
    if not call.is_whole() or not arguments.strip():
        return False
    earlier, new = parse_object(call.text), parse_object(arguments)
    return bool(earlier) and new is not None and new != earlier


def _whole_number(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and value.isdecimal():
        return int(value[:9])
    return int(value) if isinstance(value, int | float) and abs(value) < 10**9 else None


def _arguments_text(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)
