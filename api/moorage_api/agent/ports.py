"""What the agent needs from outside: a journal to write to, tools to use, a model to ask. It opens none of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from uuid import UUID

from moorage_api.events.schemas import ChatEvent, FileInfo, MessageEvent

Message = dict[str, Any]
"""One transcript message in the shape of the Chat Completions API."""


@dataclass(frozen=True)
class UserMessage:
    """A message from the log that the agent has not answered yet. `seq` is its place in the log."""

    seq: int
    text: str
    attachments: Sequence[FileInfo] = ()


class Journal(Protocol):
    """The fenced record of one leased run: what is in it is what another runner goes on from.

    Every method raises FencedError once the lease is lost; the agent lets that travel.
    """

    @property
    def session_id(self) -> UUID: ...

    @property
    def transcript(self) -> Sequence[Message]:
        """All messages of this session so far, those of earlier runs included; `record` grows it."""
        ...

    @property
    def state(self) -> dict[str, Any]:
        """What `record` stored last; {} in a fresh session. JSON."""
        ...

    async def record(
        self,
        *events: ChatEvent,
        messages: Sequence[Message] = (),
        state: Mapping[str, Any] | None = None,
        consumed_seq: int | None = None,
    ) -> list[int]:
        """Store events, transcript messages, state and how far user messages were read, in one transaction.

        Returns the seqs of the events, dense and ascending. They are on every open stream soon after.
        """
        ...

    async def show_partial(self, event: MessageEvent) -> None:
        """Fan out text that is still growing; never stored. At most 10 a second leave, whatever the rate of calls."""
        ...

    async def unread_messages(self) -> list[UserMessage]:
        """User messages of the log after `consumed_seq`, oldest first (one statement; cheap enough between steps)."""
        ...

    @property
    def interrupted(self) -> bool:
        """True once the user stopped the run or said something new: the agent looks after each model or tool turn."""
        ...

    @property
    def stop_requested(self) -> bool: ...

    async def wait_interrupted(self) -> None:
        """Return once `interrupted` is true."""
        ...

    async def calling_seq(self, tool_call_id: str) -> int:
        """The seq of the stored `calling` event of a call that an earlier runner started."""
        ...


@dataclass(frozen=True)
class Function:
    """A tool as the model sees it. `parameters` is a JSON Schema object.

    `read_only` marks what may be repeated when its outcome was lost; everything else runs at most once.
    `is_remembered`: whoever runs it answers the same key with the first outcome, so it can be asked again.
    `confirm`: why the user has to say yes before each call; empty for what needs no asking.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    read_only: bool = False
    is_remembered: bool = False
    confirm: str = ""


@dataclass(frozen=True)
class ToolCall:
    """`key` is unique within the session and the same on every try: the seq of the stored `calling` event."""

    key: str
    tool_call_id: str
    function: str
    args: dict[str, Any]


@dataclass(frozen=True)
class ToolResult:
    """`text` goes to the model, bounded; `content` to the `called` event (see the wire document, "tool").

    `unknown` means that the call was started and its result lost.
    """

    outcome: Literal["succeeded", "failed", "unknown"]
    text: str
    content: dict[str, Any] = field(default_factory=dict)


class Toolset(Protocol):
    """A group of tools that clients show under one name."""

    @property
    def name(self) -> Literal["file", "shell", "browser", "search", "message", "mcp", "a2a", "skill"]: ...

    def functions(self) -> Sequence[Function]:
        """Those that are on, as of the last look of `Switches`; the dearest first, as not all may fit."""
        ...

    async def call(self, call: ToolCall) -> ToolResult:
        """Run one call. A tool's failure is a result, not an exception; FencedError and CancelledError travel."""
        ...


SwitchedKind = Literal["mcp", "a2a", "skill"]
"""Tools that people switch on and off; toolsets with these names are the ones that have them."""


class Switches(Protocol):
    """Which tools the run's user has, while everybody may change that."""

    async def look(self) -> None:
        """Take in what was switched since. Cheap enough before every model call."""
        ...

    def is_on(self, kind: SwitchedKind, tool_id: str) -> bool:
        """At the last look. `tool_id` is an MCP server's name, an agent's id or a skill's; False when it is gone."""
        ...


class Gate(Protocol):
    """A session's sandbox, reached when first used. Implemented by `moorage_api.sandboxes`."""

    async def call(
        self,
        key: str,
        function: str,
        args: Mapping[str, Any],
        *,
        timeout_seconds: float,
        read_only: bool = False,
    ) -> GateResult:
        """Run one function in the sandbox, at most once for `key`, across restarts of everything.

        Waits for the sandbox to be ready (bounded). A sandbox that cannot be had is a `failed` result.
        """
        ...

    async def notices(self) -> list[str]:
        """What the model has to be told since the last time: a sandbox that was replaced and what was lost."""
        ...


@dataclass(frozen=True)
class GateResult:
    outcome: Literal["succeeded", "failed", "unknown"]
    result: dict[str, Any]
    error_code: str = ""
    error_message: str = ""


class Attachments(Protocol):
    """Moves bytes between a session's sandbox and its stored files. Implemented by `moorage_api.sandboxes`."""

    async def to_sandbox(self, files: Sequence[FileInfo]) -> Sequence[FileInfo]:
        """Copy stored files to `/home/ubuntu/workspace/upload/`; the answer carries the `filepath`s."""
        ...

    async def from_sandbox(self, filepaths: Sequence[str]) -> Sequence[FileInfo]:
        """Store files of the sandbox and list them with the session; missing ones are left out."""
        ...

    async def store_blob(self, data: bytes, *, content_type: str, suffix: str) -> str:
        """Put bytes (a screenshot, a long output) into the object store; returns the object's key."""
        ...


@dataclass(frozen=True)
class AgentLimits:
    """From AgentConfig."""

    max_iterations: int = 100
    max_retries: int = 3
    max_search_results: int = 10
    max_functions: int = 128
    """Offered to the model in all; a setting. Source: OpenAI's API reference, "tools"."""


Outcome = Literal["done", "wait", "failed", "stopped"]
