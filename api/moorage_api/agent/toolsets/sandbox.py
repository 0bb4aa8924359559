"""Base of the toolsets that run in the sandbox: call the gate, describe failures, store long outputs as objects."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from moorage_api.agent import prompts
from moorage_api.agent.messages import clip
from moorage_api.agent.ports import (
    Attachments,
    Function,
    Gate,
    GateResult,
    Picture,
    PictureError,
    ToolCall,
    ToolResult,
)
from moorage_api.errors import DomainError, FencedError

logger = logging.getLogger(__name__)

MAX_LOG_CHARS = 64 * 1024
"""Longest text in an event; a longer one goes to the object store."""
EXCERPT_CHARS = 16 * 1024


class SandboxToolset:
    """A toolset that delegates to the gate. `timeouts` maps functions to seconds; others get `default_timeout`."""

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
        text = self._result_text(call, answer)
        whole_in = self._whole_in(call, answer.result)
        if answer.outcome != "succeeded":
            return ToolResult(answer.outcome, text, content, whole_in=whole_in)
        try:
            return ToolResult("succeeded", text, content, await self._look(call, answer.result), whole_in)
        except PictureError as error:
            return ToolResult("succeeded", f"{text}\n{prompts.picture_failure(error)}", content)

    def _whole_in(self, call: ToolCall, result: Mapping[str, Any]) -> str:
        """The file in the sandbox that holds the whole result; "" if no file holds it."""
        return ""

    async def _look(self, call: ToolCall, result: Mapping[str, Any]) -> Sequence[Picture]:
        """The pictures of the result. Raises PictureError."""
        return ()

    def _result_text(self, call: ToolCall, answer: GateResult) -> str:
        """The result as the model gets it."""
        if answer.outcome == "unknown":
            return f"{prompts.UNKNOWN_OUTCOME} ({answer.error_message})"
        if answer.outcome == "failed":
            failure = f"Failed ({answer.error_code}): {answer.error_message}"
            return f"{failure}\n{self._render_for_model(call, answer.result)}" if answer.result else failure
        return self._render_for_model(call, answer.result)

    async def _content(self, call: ToolCall, answer: GateResult) -> dict[str, Any]:
        if answer.outcome != "succeeded" and not answer.result:
            return {"result": answer.error_message or prompts.UNKNOWN_OUTCOME}
        return await self._event_content(call, answer.result)

    def _render_for_model(self, call: ToolCall, result: Mapping[str, Any]) -> str:
        raise NotImplementedError

    async def _event_content(self, call: ToolCall, result: Mapping[str, Any]) -> dict[str, Any]:
        """`content` of the `called` event."""
        raise NotImplementedError

    async def _store_if_long(self, text: str) -> tuple[str, str | None]:
        """The text for the event and None, or an excerpt and the key of the object that holds the whole text."""
        if len(text) <= MAX_LOG_CHARS:
            return text, None
        key = await self._store(text.encode(errors="replace"), content_type="text/plain; charset=utf-8", suffix=".txt")
        return clip(text, EXCERPT_CHARS), key

    async def _store(self, data: bytes, *, content_type: str, suffix: str) -> str | None:
        """Store an object and return its key. None if the object store is unavailable: the run does not need it."""
        try:
            return await self._attachments.store_blob(data, content_type=content_type, suffix=suffix)
        except FencedError:
            raise
        except DomainError as error:
            logger.warning("A tool's output could not be stored: %s", error)
            return None
