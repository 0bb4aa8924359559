"""A strict fake of one provider: it refuses what the provider refuses, in the provider's own words and error shape.

A `Family` describes a provider with data and small functions; `families.py` holds the descriptions. A `FamilyServer`
plays a script over a real socket, as `ScriptedModel` does, and checks every request against the rules of its family.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from support.llm import Call, Calls, Raw, Request, Responder, Say, ScriptedModel, Status, Turn, play_script

CHARS_PER_TOKEN = 4
"""How a `FamilyServer` counts tokens. Real tokenizers differ; the agent may not depend on an exact number."""

UNLIMITED_TOKENS = 10_000_000

Delta = dict[str, Any]


@dataclass(frozen=True)
class Refusal:
    """What a rule found wrong with a request."""

    message: str
    status: int = 400
    param: str | None = None
    code: str | None = None
    kind: str = "invalid_request_error"
    details: Mapping[str, Any] = field(default_factory=dict)
    is_length: bool = False


class Issued:
    """The opaque values that the server sent: reasoning, signatures, ids. No server issues the same value again."""

    _servers = itertools.count(1)

    def __init__(self) -> None:
        self._server = next(self._servers)
        self.values: dict[str, str] = {}
        """Each value, and what it was issued for."""

    def issue(self, kind: str, *, owner: str = "") -> str:
        value = f"{kind} {len(self.values)} of {owner or 'a message'} by {self._server} \u2026/+=\u00fc"
        self.values[value] = owner
        return value

    def is_for(self, value: object, owner: str) -> bool:
        return isinstance(value, str) and self.values.get(value) == owner


@dataclass
class Answering:
    """What a family needs to know of an answer: the turn, the request and the values that it issues."""

    turn: Say
    request: Request
    issued: Issued
    place: int

    def call_id(self, index: int) -> str:
        return f"call_{self.place}_{index}"


Rule = Callable[[Request, Issued], Refusal | None]

MESSAGE_FIELDS: Mapping[str, frozenset[str]] = {
    "system": frozenset({"role", "content", "name"}),
    "developer": frozenset({"role", "content", "name"}),
    "user": frozenset({"role", "content", "name"}),
    "assistant": frozenset({"role", "content", "name", "tool_calls", "refusal"}),
    "tool": frozenset({"role", "content", "tool_call_id"}),
}
CALL_FIELDS = frozenset({"id", "type", "function"})
PART_FIELDS = frozenset({"type", "text", "image_url", "input_audio", "file"})


@dataclass(frozen=True)
class OwnFields:
    """Fields beside the standard ones that a provider takes: in messages, in calls, and in parts of a content."""

    message: Collection[str] = ()
    call: Collection[str] = ()
    part: Collection[str] = ()


def extra_fields(request: Request, own: OwnFields) -> Iterator[tuple[int, str]]:
    """The fields of messages, calls and parts that are neither standard nor `own`, with the index of the message."""
    for index, item in enumerate(request["messages"]):
        unknown = item.keys() - MESSAGE_FIELDS.get(item["role"], frozenset()) - set(own.message)
        for tool_call in item.get("tool_calls", ()):
            unknown |= tool_call.keys() - CALL_FIELDS - set(own.call)
        for part in item["content"] if isinstance(item.get("content"), list) else ():
            unknown |= part.keys() - PART_FIELDS - set(own.part)
        yield from ((index, name) for name in sorted(unknown))


@dataclass(frozen=True)
class Size:
    """Tokens of a request, tokens that it reserves for the answer, and tokens of the window."""

    prompt: int
    answer: int
    window: int

    @property
    def total(self) -> int:
        return self.prompt + self.answer


@dataclass(frozen=True)
class Family:
    """A provider: which requests it refuses, how it words errors, and what its answers look like on the wire."""

    name: str
    model: str
    deltas: Callable[[Answering], list[Delta]]
    rules: Sequence[Rule]
    error_body: Callable[[Refusal], object]
    window_refusal: Callable[[Size], Refusal] | None
    """The refusal of a request that is too long. None if the server cuts silently."""
    known: str
    """What is known of the provider: one or two sentences for docs/models.md."""
    own: OwnFields = field(default_factory=OwnFields)
    """No other field may come to it in a message, also where the provider would ignore it."""
    counts_answer: bool = False
    """The window must hold the request and `max_tokens` together."""
    always_sends_usage: bool = False
    status_pages: Callable[[Size], Mapping[str, object]] = lambda _size: {}
    """What the server says about itself once its model is loaded, by path."""
    threads: Sequence[str] = ()
    """Public threads that show the rules, as `owner/repository#number`."""


class FamilyServer(ScriptedModel):
    """Plays `script` in the manner of a family. `refusals` and `usages` are what it answered, in order."""

    def __init__(
        self,
        family: Family,
        script: Sequence[Turn] | Responder,
        *,
        window_tokens: int = UNLIMITED_TOKENS,
        api_key: str | None = None,
    ) -> None:
        super().__init__(self._respond, api_key=api_key)
        self.family = family
        self.window_tokens = window_tokens
        self.issued = Issued()
        self.refusals: list[Refusal] = []
        self.usages: list[dict[str, int]] = []
        self.cut_requests: list[Request] = []
        """Requests whose oldest messages a server that cuts silently did not read."""
        self.strangers: list[str] = []
        """Fields of other providers that came in messages, also where this provider would ignore them."""
        self._script = script if callable(script) else play_script(script)

    @property
    def window_refusals(self) -> int:
        """How often a request was too long."""
        return sum(refusal.is_length for refusal in self.refusals)

    def _respond(self, request: Request) -> Turn:
        family = self.family
        self.strangers += [f"messages[{index}].{name}" for index, name in extra_fields(request, family.own)]
        refusal = self._refusal(request)
        if refusal is not None:
            self.refusals.append(refusal)
            return Status(refusal.status, family.error_body(refusal))
        self.pages = {**family.status_pages(Size(0, 0, self.window_tokens)), **self.pages}
        read = request
        if count_prompt_tokens(request) > self.window_tokens:  # only a server that cuts silently gets here
            self.cut_requests.append(request)
            read = cut_request(request, self.window_tokens)
        return self._render(self._script(read), request, min(count_prompt_tokens(read), self.window_tokens))

    def _refusal(self, request: Request) -> Refusal | None:
        answer = request.get("max_tokens") or request.get("max_completion_tokens") or 0
        size = Size(count_prompt_tokens(request), answer, self.window_tokens)
        needed = size.total if self.family.counts_answer else size.prompt
        if needed > self.window_tokens and self.family.window_refusal is not None:
            return replace(self.family.window_refusal(size), is_length=True)
        found = (rule(request, self.issued) for rule in self.family.rules)
        return next((refusal for refusal in found if refusal is not None), None)

    def _render(self, turn: Turn, request: Request, prompt_tokens: int) -> Turn:
        if isinstance(turn, Call):
            turn = Calls(turn)
        if not isinstance(turn, Say):
            return turn
        deltas = self.family.deltas(Answering(turn, request, self.issued, len(self.usages)))
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": count_tokens(deltas)}
        usage["total_tokens"] = sum(usage.values())
        self.usages.append(usage)
        reason = turn.finish_reason or ("tool_calls" if turn.calls else "stop")
        chunks = [self._chunk(delta) for delta in [{"role": "assistant", "content": ""}, *deltas]]
        chunks.append(self._chunk({}, finish_reason=reason))
        if self.family.always_sends_usage or (request.get("stream_options") or {}).get("include_usage"):
            chunks.append(self._chunk() | {"usage": usage})
        return Raw([*chunks, "[DONE]"])

    def _chunk(self, delta: Delta | None = None, *, finish_reason: str | None = None) -> dict[str, Any]:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": self.family.model,
            "choices": choices,
        }


def count_tokens(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False)) // CHARS_PER_TOKEN


def count_prompt_tokens(request: Request) -> int:
    """The messages and the tools. Other fields of a request are not part of the prompt."""
    return count_tokens([request["messages"], request.get("tools", [])])


def cut_request(request: Request, window_tokens: int) -> Request:
    """What Ollama reads of a request that is too long: the system message and the newest messages that fit.

    Source: ollama/ollama#8531 and #10980.
    """
    system = [message for message in request["messages"] if message["role"] == "system"]
    newest = [message for message in request["messages"] if message["role"] != "system"]
    while len(newest) > 1 and count_prompt_tokens(request | {"messages": [*system, *newest]}) > window_tokens:
        newest.pop(0)
    return request | {"messages": [*system, *newest]}


def pieces(text: str, *, chars: int = 9) -> list[str]:
    return [text[start : start + chars] for start in range(0, len(text), chars)]


def text_deltas(answering: Answering, *, key: str = "content", text: str | None = None) -> list[Delta]:
    return [{key: piece} for piece in pieces(answering.turn.text if text is None else text)]


def streamed_calls(answering: Answering) -> list[Delta]:
    """The calls as most servers stream them: first the name, then the arguments in pieces."""
    deltas: list[Delta] = []
    for index, call in enumerate(answering.turn.calls):
        function = {"name": call.function, "arguments": ""}
        first = {"index": index, "id": answering.call_id(index), "type": "function", "function": function}
        deltas.append({"tool_calls": [first]})
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in pieces(call.text())
        ]
    return deltas


def whole_call(answering: Answering, index: int, **fields: Any) -> dict[str, Any]:
    """One call in one piece, as servers send it that do not stream arguments."""
    call = answering.turn.calls[index]
    return {
        "index": index,
        "id": answering.call_id(index),
        "type": "function",
        "function": {"name": call.function, "arguments": call.text()},
    } | fields
