"""The interfaces the agent needs: a journal, tools, switches, a gate, attachments. Others create and pass them in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol
from uuid import UUID

from moorage_api.events.schemas import ChatEvent, FileInfo, MessageEvent

Message = dict[str, Any]
"""One transcript message in the shape of the Chat Completions API."""

OFFER = "moorage_offer"
"""Key of a stored message of the user with the functions that are offered from then on, as JSON text."""
PICTURES = "moorage_pictures"
"""Key of a transcript message that holds references to its pictures. It is never sent to a model."""


@dataclass(frozen=True)
class UserMessage:
    """A user message that the agent has not read yet. `seq` is its position in the event log."""

    seq: int
    text: str
    attachments: Sequence[FileInfo] = ()


class Journal(Protocol):
    """The stored record of one leased run. Another runner continues from what is stored in it.

    Every method raises FencedError once the lease is lost; the agent does not catch it.
    """

    @property
    def session_id(self) -> UUID: ...

    @property
    def transcript(self) -> Sequence[Message]:
        """All messages of this session so far, including those of earlier runs. `record` appends to it."""
        ...

    @property
    def state(self) -> dict[str, Any]:
        """The JSON object that `record` stored last; {} in a new session."""
        ...

    async def record(
        self,
        *events: ChatEvent,
        messages: Sequence[Message] = (),
        state: Mapping[str, Any] | None = None,
        consumed_seq: int | None = None,
    ) -> list[int]:
        """Store events, transcript messages, the state and the seq of the last read user message in one transaction.

        Returns the seqs of the events, ascending and without gaps. Every open stream gets the events soon after.
        """
        ...

    async def show_partial(self, event: MessageEvent) -> None:
        """Send an unfinished message to open streams, without storing it. At most 10 a second are sent."""
        ...

    async def unread_messages(self) -> list[UserMessage]:
        """User messages after `consumed_seq`, oldest first. One SQL statement, cheap enough between steps."""
        ...

    @property
    def interrupted(self) -> bool:
        """True once the user stopped the run or sent a message. The agent checks it after each model or tool turn."""
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

    `read_only`: the call changes nothing, so it may be repeated when its result was lost. Others run at most once.
    `is_remembered`: the server of the tool stores results by key, so sending a key again returns the first result.
    `confirm`: the question to the user before each call; empty if the call needs no permission.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    read_only: bool = False
    is_remembered: bool = False
    confirm: str = ""


@dataclass(frozen=True)
class ToolCall:
    """`key` is the seq of the stored `calling` event: unique in the session and the same for every retry."""

    key: str
    tool_call_id: str
    function: str
    args: dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """A stored picture for models that see. `key` is its object's key, which is different for other bytes."""

    key: str
    media_type: str
    width: int
    height: int

    def to_json(self) -> dict[str, Any]:
        """The reference that a transcript message holds."""
        return asdict(self)


class PictureError(Exception):
    """A picture cannot be shown to a model. The text says why, for the model."""


@dataclass(frozen=True)
class ToolResult:
    """`text` is the whole result; the model gets its beginning and end if it is long.

    `content` is for the `called` event (wire document, "tool").

    `unknown` means that the call was started and its result was lost. `pictures` are for models that see.
    `whole_in` is the file in the sandbox that holds the whole result, if there is one already.
    """

    outcome: Literal["succeeded", "failed", "unknown"]
    text: str
    content: dict[str, Any] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    whole_in: str = ""


class Toolset(Protocol):
    """A group of tools that clients display under one name."""

    @property
    def name(self) -> Literal["file", "shell", "browser", "search", "message", "mcp", "a2a", "skill"]: ...

    def functions(self) -> Sequence[Function]:
        """The functions that are on since the last `Switches.refresh`, most important first, as not all may fit."""
        ...

    async def call(self, call: ToolCall) -> ToolResult:
        """Run one call. A tool's failure is a result, not an exception. FencedError and CancelledError propagate."""
        ...


SwitchedKind = Literal["mcp", "a2a", "skill"]
"""Toolsets whose tools users and admins switch on and off; these are their names."""


class Switches(Protocol):
    """Which tools are on for the user of the run. Users and admins may change them during the run."""

    async def refresh(self) -> None:
        """Read the current switches. Cheap enough before every model call."""
        ...

    def is_on(self, kind: SwitchedKind, tool_id: str) -> bool:
        """The switch as the last `refresh` read it; False for a deleted tool.

        `tool_id` is the name of an MCP server, the id of an A2A agent or the id of a skill.
        """
        ...


class SandboxLostError(Exception):
    """The run waited for its sandbox as long as it may, and cannot go on without one. The text is for the user.

    It is no DomainError, because those become the result of a call and the run continues.
    """

    code = "sandbox_unavailable"


class Gate(Protocol):
    """A session's sandbox, created at the first use. Implemented by `moorage_api.runner.sandbox_link`.

    Every method that needs the sandbox waits until it is ready, for a limited time, and then raises SandboxLostError.
    """

    def prepare(self) -> None:
        """Begin to start the sandbox in the background, because a step will soon need it. May be called again."""
        ...

    async def call(
        self,
        key: str,
        function: str,
        args: Mapping[str, Any],
        *,
        timeout_seconds: float,
        read_only: bool = False,
    ) -> GateResult:
        """Run one function in the sandbox, at most once for each `key`, even if any process restarts.

        Raises SandboxLostError.
        """
        ...

    async def notices(self) -> list[str]:
        """New notices for the model, such as: the sandbox was replaced, and what was lost with the old one."""
        ...


@dataclass(frozen=True)
class GateResult:
    outcome: Literal["succeeded", "failed", "unknown"]
    result: dict[str, Any]
    error_code: str = ""
    error_message: str = ""


@dataclass(frozen=True)
class SavedFiles:
    """Files of the sandbox that were stored, and why the others were not. Every path is in one of the three.

    `problems` maps paths to reasons for the model and the user. `untried` paths may be stored later: the sandbox or
    the object store does not answer now.
    """

    files: Sequence[FileInfo] = ()
    problems: Mapping[str, str] = field(default_factory=dict)
    untried: Sequence[str] = ()


class Attachments(Protocol):
    """Moves bytes between a session's sandbox and its stored files.

    Implemented by `moorage_api.runner.attachments`.
    """

    async def to_sandbox(self, files: Sequence[FileInfo]) -> Sequence[FileInfo]:
        """Copy stored files to `/home/ubuntu/workspace/upload/`. Returns the files with their `filepath` set."""
        ...

    async def from_sandbox(self, filepaths: Sequence[str]) -> SavedFiles:
        """Store files of the sandbox and add them to the session's list of files, each independently of the others."""
        ...

    async def keep_output(self, name: str, text: str) -> str:
        """Write a long output into a file of the sandbox and return its path. Empty if there is no sandbox now."""
        ...

    async def store_blob(self, data: bytes, *, content_type: str, suffix: str) -> str:
        """Store bytes (a screenshot, a long output) in the object store and return the object's key."""
        ...

    async def read_picture(self, filepath: str, *, key: str) -> Picture:
        """Store a picture of the sandbox for the model, scaled down if it is too large.

        `key` is unique in the session; with the same key the picture is read once. Raises PictureError.
        """
        ...

    async def store_picture(self, data: bytes, *, key: str) -> Picture:
        """Store a picture that a tool returned. The sandbox decodes it if it has to be scaled. Raises PictureError."""
        ...


@dataclass(frozen=True)
class AgentLimits:
    """From AgentConfig and the settings."""

    max_iterations: int = 100
    """Most model turns in one step, and in making one plan."""
    max_model_calls: int = 1000
    """Most model turns for one message of the user. It is a setting, like the following limits."""
    max_repeats: int = 10
    """Repetitions of the same calls with the same results that end the turn."""
    max_failed_steps: int = 5
    """Failed steps in a row that end the turn."""
    max_calls: int = 16
    """Calls of one answer that are run."""
    max_steps: int = 30
    """Most steps of a plan."""
    max_retries: int = 3
    max_search_results: int = 10
    max_pictures: int = 10
    """Most pictures that one request shows to a model."""
    max_result_chars: int = 12_000
    """Longest result of a call that the model gets; in a small window it is shorter."""
    max_functions: int = 128
    """Most functions that one request may offer. Source: OpenAI's API reference, "tools"."""
