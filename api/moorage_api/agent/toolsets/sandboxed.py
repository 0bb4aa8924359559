"""What the toolsets of the sandbox share: one call through the gate, its failure in words, big outputs set aside."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from moorage_api.agent import prompts
from moorage_api.agent.messages import clipped
from moorage_api.agent.ports import Attachments, Function, Gate, GateResult, ToolCall, ToolResult
from moorage_api.errors import DomainError, FencedError

logger = logging.getLogger(__name__)

MAX_MODEL_CHARS = 12_000
"""Of one result, for the model."""
MAX_LOG_CHARS = 64 * 1024
"""Of one text, in the log; a longer one goes to the object store."""
EXCERPT_CHARS = 16 * 1024


class Sandboxed:
    """Base of the toolsets that delegate to the gate. `timeouts` in seconds, by function; others get the default."""

    default_timeout = 30.0
    timeouts: Mapping[str, float] = {}

    def __init__(self, gate: Gate, attachments: Attachments, functions: Sequence[Function]) -> None:
        self._gate = gate
        self._attachments = attachments
        self._functions = {function.name: function for function in functions}

    def functions(self) -> Sequence[Function]:
        return list(self._functions.values())

    def _timeout(self, call: ToolCall) -> float:
        return self.timeouts.get(call.function, self.default_timeout)

    async def call(self, call: ToolCall) -> ToolResult:
        answer = await self._gate.call(
            call.key,
            call.function,
            call.args,
            timeout_seconds=self._timeout(call),
            read_only=self._functions[call.function].read_only,
        )
        content = await self._content(call, answer)
        return ToolResult(answer.outcome, clipped(self._text(call, answer), MAX_MODEL_CHARS), content)

    def _text(self, call: ToolCall, answer: GateResult) -> str:
        """What the model reads."""
        if answer.outcome == "unknown":
            return f"{prompts.UNKNOWN_OUTCOME} ({answer.error_message})"
        if answer.outcome == "failed":
            said = f"Failed ({answer.error_code}): {answer.error_message}"
            return f"{said}\n{self._told(call, answer.result)}" if answer.result else said
        return self._told(call, answer.result)

    async def _content(self, call: ToolCall, answer: GateResult) -> dict[str, Any]:
        if answer.outcome != "succeeded" and not answer.result:
            return {"result": answer.error_message or prompts.UNKNOWN_OUTCOME}
        return await self._shown(call, answer.result)

    def _told(self, call: ToolCall, result: Mapping[str, Any]) -> str:
        raise NotImplementedError

    async def _shown(self, call: ToolCall, result: Mapping[str, Any]) -> dict[str, Any]:
        """`content` of the event."""
        raise NotImplementedError

    async def _short(self, text: str) -> tuple[str, str | None]:
        """A text for the log: as it is, or an excerpt and the key of the object that holds all of it."""
        if len(text) <= MAX_LOG_CHARS:
            return text, None
        key = await self._stored(text.encode(errors="replace"), content_type="text/plain; charset=utf-8", suffix=".txt")
        return clipped(text, EXCERPT_CHARS), key

    async def _stored(self, data: bytes, *, content_type: str, suffix: str) -> str | None:
        """The object's key; None when the object store is away: the work goes on without."""
        try:
            return await self._attachments.store_blob(data, content_type=content_type, suffix=suffix)
        except FencedError:
            raise
        except DomainError as error:
            logger.warning("A tool's output could not be stored: %s", error)
            return None
