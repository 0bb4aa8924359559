"""The agent's ports in memory. They keep the promises of the real ones: atomic records, fencing, at-most-once calls."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from moorage_api.agent.model.llm import LlmClient
from moorage_api.agent.ports import (
    AgentLimits,
    GateResult,
    Message,
    Picture,
    PictureError,
    SavedFiles,
    SwitchedKind,
    Toolset,
    UserMessage,
)
from moorage_api.agent.toolsets import default_toolsets
from moorage_api.agent.turn.loop import run_turn
from moorage_api.errors import FencedError
from moorage_api.events.schemas import STREAM_ENDING_TYPES, ChatEvent, FileInfo, MessageEvent
from moorage_api.outbound import Outbound
from moorage_api.runner.journal import UnreadMessagesError
from moorage_sandbox.pictures import read_header
from support.llm import Call, ScriptedModel


class Killed(BaseException):
    """Stands for the end of the runner process."""


def _from_jsonb(value: Any) -> Any:
    """A copy of the value with its keys in the order in which PostgreSQL's jsonb returns them: short ones first."""
    if isinstance(value, dict):
        return {key: _from_jsonb(value[key]) for key in sorted(value, key=lambda key: (len(key.encode()), key))}
    return [_from_jsonb(item) for item in value] if isinstance(value, list) else value


@dataclass
class Log:
    """The rows of one session in the database. They survive a runner."""

    session_id: UUID = field(default_factory=uuid4)
    events: list[ChatEvent] = field(default_factory=list)
    transcript: list[Message] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    consumed_seq: int = 0
    inbox_seq: int = 0
    epoch: int = 0
    is_running: bool = False
    stop_requested: bool = False
    notice: str = ""

    def say(self, text: str, *attachments: FileInfo) -> None:
        """Store a chat message as the api does."""
        self.events.append(MessageEvent(role="user", message=text, attachments=list(attachments)))
        self.inbox_seq = len(self.events)
        self.is_running = True
        self.stop_requested = False

    def types(self) -> list[str]:
        return [event.type for event in self.events]

    def last(self, kind: type[Any]) -> Any:
        return next(event for event in reversed(self.events) if isinstance(event, kind))

    def all(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


class MemoryJournal:
    """One runner's hold on a log. `on_record` is called with the record's number before and after it is stored."""

    def __init__(self, log: Log, *, on_record: Callable[[int, str], None] = lambda _number, _when: None) -> None:
        log.epoch += 1
        self._log = log
        self._epoch = log.epoch
        self._on_record = on_record
        self._changed = asyncio.Event()
        self._has_unread = log.inbox_seq > log.consumed_seq
        self._stop_requested = log.stop_requested
        self._transcript: list[Message] = _from_jsonb(log.transcript)
        self._state: dict[str, Any] = json.loads(json.dumps(log.state))
        self.records = 0
        self.partials: list[MessageEvent] = []
        self.finished = False

    @property
    def session_id(self) -> UUID:
        return self._log.session_id

    @property
    def transcript(self) -> Sequence[Message]:
        return self._transcript

    @property
    def state(self) -> dict[str, Any]:
        return self._state

    @property
    def interrupted(self) -> bool:
        return self._stop_requested or self._has_unread

    @property
    def stop_requested(self) -> bool:
        return self._stop_requested

    async def wait_interrupted(self) -> None:
        while not self.interrupted:
            self._changed.clear()
            await self._changed.wait()

    def look(self) -> None:
        """Read the row again, as a runner does after a wake-up."""
        self._has_unread = self._log.inbox_seq > self._log.consumed_seq
        self._stop_requested = self._log.stop_requested
        self._changed.set()

    def signal_late(self) -> None:
        """Send a signal that belongs to a message which was already consumed."""
        self._has_unread = True
        self._changed.set()

    def _fence(self) -> None:
        if self._log.epoch != self._epoch:
            raise FencedError("Another runner has taken this run over")

    async def record(
        self,
        *events: ChatEvent,
        messages: Sequence[Message] = (),
        state: Mapping[str, Any] | None = None,
        consumed_seq: int | None = None,
    ) -> list[int]:
        log = self._log
        self._on_record(self.records, "before")
        self._fence()
        ends = any(event.type in STREAM_ENDING_TYPES for event in events)
        consumed = max(log.consumed_seq, consumed_seq or 0)
        if ends and log.inbox_seq > consumed and not log.stop_requested:
            self.look()
            raise UnreadMessagesError("The user has said something new")
        first = len(log.events) + 1
        log.events.extend(events)
        log.transcript.extend(json.loads(json.dumps(list(messages))))
        if messages:
            log.notice = ""
        if state is not None:
            log.state = json.loads(json.dumps(state))
        log.consumed_seq = log.inbox_seq if ends else consumed
        log.is_running = log.is_running and not ends
        self._transcript.extend(messages)
        self._state = log.state
        if consumed_seq is not None:
            self._has_unread = False
        self.finished = ends
        self.records += 1
        self._on_record(self.records - 1, "after")
        return list(range(first, first + len(events)))

    async def show_partial(self, event: MessageEvent) -> None:
        self.partials.append(event)

    async def unread_messages(self) -> list[UserMessage]:
        self._fence()
        return [
            UserMessage(seq, event.message, tuple(event.attachments))
            for seq, event in enumerate(self._log.events, 1)
            if seq > self._log.consumed_seq and isinstance(event, MessageEvent) and event.role == "user"
        ]

    async def calling_seq(self, tool_call_id: str) -> int:
        return next(
            seq
            for seq, event in enumerate(self._log.events, 1)
            if event.type == "tool" and event.tool_call_id == tool_call_id and event.status == "calling"
        )


Answerer = Callable[[str, Mapping[str, Any]], GateResult]


def shell_output(output: str, *, exit_code: int = 0, command: str = "") -> GateResult:
    """The box's answer for a command that has ended."""
    record = {"ps1": "ubuntu@sandbox:~ $", "command": command, "output": output}
    return GateResult(
        "succeeded",
        {"output": output, "status": "exited", "exit_code": exit_code, "console_records": [record]},
    )


def shell(command: str) -> Call:
    """A turn in which the model runs a command."""
    return Call("shell_execute", {"session_id": "main", "exec_dir": "/home/ubuntu/workspace", "command": command})


def echo(function: str, args: Mapping[str, Any]) -> GateResult:
    """A sandbox in which every command prints its own text."""
    return shell_output(f"{function}: {json.dumps(args)}", command=str(args.get("command", "")))


@dataclass
class MemoryGate:
    """A gate with a ledger. It outlives runners. `effects` counts the calls that ran, by function and arguments."""

    log: Log
    answer: Answerer = echo
    effects: Counter[str] = field(default_factory=Counter)
    ledger: dict[str, GateResult] = field(default_factory=dict)
    on_call: Callable[[str, str], None] = lambda _key, _when: None
    hangs_on: str = ""
    """Functions whose names begin with this never answer."""
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a call that never answers has begun."""

    prepared: int = 0

    def prepare(self) -> None:
        self.prepared += 1

    async def call(
        self,
        key: str,
        function: str,
        args: Mapping[str, Any],
        *,
        timeout_seconds: float,
        read_only: bool = False,
    ) -> GateResult:
        self.on_call(key, "before")
        if key not in self.ledger:
            self.effects[f"{function} {json.dumps(args, sort_keys=True)}"] += 1
            if self.hangs_on and function.startswith(self.hangs_on):
                self.entered.set()
                await asyncio.Event().wait()
            self.ledger[key] = self.answer(function, args)
        self.on_call(key, "after")
        return self.ledger[key]

    async def notices(self) -> list[str]:
        return [self.log.notice] if self.log.notice else []


TOO_MANY_BYTES = b"x" * 1001
MISSING = "There is no such file"
TOO_LARGE = "The file has 1001 bytes; at most 1000 bytes can be stored"


@dataclass
class MemoryAttachments:
    """`sandbox` maps the path of each file in the sandbox to its content."""

    sandbox: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    stored: list[str] = field(default_factory=list)
    """Paths of the files that were stored, in order."""
    limit_bytes: int = 1000
    is_unavailable: bool = False

    async def to_sandbox(self, files: Sequence[FileInfo]) -> Sequence[FileInfo]:
        placed = [
            file.model_copy(update={"filepath": f"/home/ubuntu/workspace/upload/{file.filename}"}) for file in files
        ]
        self.sandbox = {file.filepath: b"" for file in placed} | self.sandbox
        return placed

    async def from_sandbox(self, filepaths: Sequence[str]) -> SavedFiles:
        if self.is_unavailable:
            return SavedFiles(untried=filepaths)
        problems = {
            path: MISSING if path not in self.sandbox else TOO_LARGE
            for path in filepaths
            if len(self.sandbox.get(path, TOO_MANY_BYTES)) > self.limit_bytes
        }
        kept = [path for path in filepaths if path not in problems]
        self.stored += kept
        return SavedFiles(
            [
                FileInfo(id=str(uuid4()), filename=path.rpartition("/")[2], filepath=path, size=len(self.sandbox[path]))
                for path in kept
            ],
            problems,
        )

    async def keep_output(self, name: str, text: str) -> str:
        if self.is_unavailable:
            return ""
        path = f"/home/ubuntu/.cache/moorage/outputs/{name}"
        self.sandbox[path] = text.encode()
        return path

    async def store_blob(self, data: bytes, *, content_type: str, suffix: str) -> str:
        key = f"blob{len(self.blobs)}{suffix}"
        self.blobs[key] = data
        return key

    async def read_picture(self, filepath: str, *, key: str) -> Picture:
        return await self.store_picture(self.sandbox.get(filepath, b""), key=key)

    async def store_picture(self, data: bytes, *, key: str) -> Picture:
        header = read_header(data)
        if header is None:
            raise PictureError("it is not a PNG, JPEG, GIF or WebP picture")
        name = f"{hashlib.sha256(data).hexdigest()}.{header.media_type[6:]}"
        self.blobs[name] = data
        return Picture(name, header.media_type, header.width, header.height)

    async def load_picture(self, key: str) -> str | None:
        return base64.b64encode(self.blobs[key]).decode() if key in self.blobs else None


@dataclass
class MemorySwitches:
    """`off` holds the kinds and ids of disabled tools. A change takes effect at the next refresh."""

    off: set[tuple[SwitchedKind, str]] = field(default_factory=set)
    refreshes: int = 0
    _seen: frozenset[tuple[SwitchedKind, str]] = frozenset()

    async def refresh(self) -> None:
        self.refreshes += 1
        self._seen = frozenset(self.off)

    def is_on(self, kind: SwitchedKind, tool_id: str) -> bool:
        return (kind, tool_id) not in self._seen


@dataclass
class Bench:
    """A session, its sandbox and a model. All of them outlive a runner."""

    model: ScriptedModel
    log: Log = field(default_factory=Log)
    limits: AgentLimits = field(default_factory=lambda: AgentLimits(max_retries=2))
    attachments: MemoryAttachments = field(default_factory=MemoryAttachments)
    more_toolsets: Sequence[Toolset] = ()
    switches: MemorySwitches = field(default_factory=MemorySwitches)
    gate: MemoryGate = field(init=False)
    context_tokens: int | None = 64_000
    api_key: str = "sk-for-tests"
    idle_seconds: float = 10
    today: str = "Saturday, 2026-11-28"
    patience_seconds: float = 0
    model_name: str = "scripted"
    facts: dict[str, Any] = field(default_factory=dict)
    """What was learnt about the model."""

    def __post_init__(self) -> None:
        self.gate = MemoryGate(self.log)

    def journal(self, on_record: Callable[[int, str], None] = lambda _number, _when: None) -> MemoryJournal:
        return MemoryJournal(self.log, on_record=on_record)

    def llm(self) -> LlmClient:
        return LlmClient(
            self.model.url,
            self.api_key,
            self.model_name,
            context_tokens=self.context_tokens,
            backoff_seconds=0.01,
            idle_seconds=self.idle_seconds,
            patience_seconds=self.patience_seconds,
            outbound=Outbound(),
            facts=self.facts,
            on_learnt=self.learn,
            read_picture=self.attachments.load_picture,
        )

    async def learn(self, facts: Mapping[str, Any]) -> None:
        self.facts |= facts

    async def run(self, journal: MemoryJournal | None = None, *, llm: LlmClient | None = None) -> MemoryJournal:
        """Work on the session as a runner's worker does: start again while there are new messages from the user."""
        journal = journal or self.journal()
        if llm is None:
            async with self.llm() as llm:
                return await self.run(journal, llm=llm)
        toolsets = default_toolsets(self.gate, self.attachments, max_search_results=3)
        while not journal.finished:
            try:
                await run_turn(
                    journal,
                    llm=llm,
                    toolsets=[*toolsets, *self.more_toolsets],
                    attachments=self.attachments,
                    gate=self.gate,
                    limits=self.limits,
                    switches=self.switches,
                    today=self.today,
                )
            except UnreadMessagesError:
                continue
        return journal
