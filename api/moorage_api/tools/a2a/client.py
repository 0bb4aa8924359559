"""Client of one remote agent: read its card, send it a message, wait for the reply."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
from a2a.client.card_resolver import parse_agent_card
from a2a.client.client import Client, ClientConfig
from a2a.client.client_factory import ClientFactory
from a2a.types.a2a_pb2 import (
    AgentCard,
    Artifact,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    Task,
    TaskState,
)
from a2a.utils.constants import TransportProtocol
from a2a.utils.errors import A2AError
from google.protobuf.json_format import MessageToDict, MessageToJson, ParseError

from moorage_api.errors import InvalidError
from moorage_api.outbound import Outbound, ResponseLimits
from moorage_sandbox.pictures import media_type_of

CARD_PATHS = ("/.well-known/agent-card.json", "/.well-known/agent.json")
"""Agents of protocol versions before 0.3 use the second path."""
CARD_LIMITS = ResponseLimits(256 * 1024, seconds=15)
BINDINGS = (TransportProtocol.JSONRPC.value, TransportProtocol.HTTP_JSON.value)
TASK_SECONDS = 300.0
POLL_SECONDS = 1.0
MAX_TEXT_CHARS = 1_000_000

ENDED = frozenset(
    {
        TaskState.TASK_STATE_COMPLETED,
        TaskState.TASK_STATE_FAILED,
        TaskState.TASK_STATE_CANCELED,
        TaskState.TASK_STATE_REJECTED,
        TaskState.TASK_STATE_INPUT_REQUIRED,
        TaskState.TASK_STATE_AUTH_REQUIRED,
    }
)
"""States in which an agent does nothing until it gets another message."""


class AgentLostError(Exception):
    """A message was sent, or may have been sent, and its outcome is unknown."""


class AgentRefusedError(Exception):
    """The agent did not accept the message. The text is for people."""


@dataclass(frozen=True)
class Reply:
    """`task_id` is set while the agent waits for an answer to its question."""

    state: str
    text: str
    context_id: str = ""
    task_id: str = ""
    pictures: Sequence[bytes] = ()


async def fetch_card(outbound: Outbound, base_url: str) -> dict[str, Any]:
    """Read the agent's card and convert it to the JSON of protocol 1.0.

    Raises InvalidError if there is no usable card, and OutboundRefusedError.
    """
    problem = "the server cannot be reached"
    async with outbound.client("a2a", base_url, limits=CARD_LIMITS, timeout=CARD_LIMITS.seconds) as client:
        for path in CARD_PATHS:
            try:
                response = await client.get(f"{base_url}{path}", headers={"Accept": "application/json"})
                response.raise_for_status()
                card = json.loads(response.content)
                if "\\u0000" in json.dumps(card):  # PostgreSQL cannot store it in JSON
                    raise ValueError("NUL")
                await check_card(outbound, base_url, card)
                card = MessageToDict(parse_card(card))
            except httpx.HTTPStatusError as error:
                problem = f"the request for its card was answered with HTTP status {error.response.status_code}"
                if error.response.status_code == 404:
                    continue
                break
            except httpx.HTTPError:
                break
            except (ValueError, TypeError, ParseError, RecursionError):
                problem = "its answer is not a valid agent card"
                break
            else:
                return dict(card)
    raise InvalidError(f"No A2A agent was found at {base_url}: {problem}; check the base URL")


async def check_card(outbound: Outbound, base_url: str, card: dict[str, Any]) -> None:
    """Raises InvalidError if we support none of the agent's protocols, and OutboundRefusedError."""
    parsed = parse_card(card)
    if not parsed.supported_interfaces:
        raise InvalidError(f"The agent at {base_url} offers neither JSON-RPC nor HTTP+JSON, so it cannot be used")
    for interface in parsed.supported_interfaces:
        await outbound.check("a2a", interface.url, named_by=base_url)


def parse_card(card: dict[str, Any]) -> AgentCard:
    """Parse the card and drop the interfaces that we cannot use. Raises ParseError."""
    parsed = parse_agent_card(copy.deepcopy(card))  # a copy, because the parser changes its argument
    usable = [one for one in parsed.supported_interfaces if one.protocol_binding in BINDINGS]
    del parsed.supported_interfaces[:]
    parsed.supported_interfaces.extend(usable)
    return parsed


class RemoteAgent:
    """One conversation with an agent. Each message uses a new connection."""

    def __init__(self, outbound: Outbound, base_url: str, card: dict[str, Any]) -> None:
        self._outbound = outbound
        self._base_url = base_url
        self._card = parse_card(card)
        # protocol 1 comes first; the sort is stable, so the agent's own order stays within a protocol
        by_protocol = sorted(self._card.supported_interfaces, key=lambda one: not one.protocol_version.startswith("1"))
        self._interface = by_protocol[0]

    async def send(self, text: str, *, context_id: str = "", task_id: str = "") -> Reply:
        """Raises AgentLostError, AgentRefusedError and OutboundRefusedError."""
        interface = self._interface
        card = AgentCard()
        card.CopyFrom(self._card)
        del card.supported_interfaces[:]
        card.supported_interfaces.append(interface)
        message = Message(
            message_id=uuid4().hex,
            role=Role.ROLE_USER,
            parts=[Part(text=text)],
            context_id=context_id,
            task_id=task_id,
        )
        async with self._outbound.client(
            "a2a", interface.url, named_by=self._base_url, timeout=httpx.Timeout(10, read=TASK_SECONDS)
        ) as http:
            config = ClientConfig(httpx_client=http, supported_protocol_bindings=list(BINDINGS))
            client = ClientFactory(config).create(card)
            try:
                async with asyncio.timeout(TASK_SECONDS):
                    return await _Exchange(client).run(message)
            except TimeoutError as error:
                raise AgentLostError(f"The agent did not finish within {TASK_SECONDS:g} s") from error


class _Exchange:
    """Sends one message and collects the reply, from a stream or by polling."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._task = Task()

    async def run(self, message: Message) -> Reply:
        try:
            async for event in self._client.send_message(SendMessageRequest(message=message)):
                if event.HasField("message"):
                    context_id = event.message.context_id.replace("\x00", "")
                    parts = event.message.parts
                    return Reply("completed", text_of(parts), context_id, pictures=pictures_of(parts))
                self._take(event)
        except httpx.ConnectError as error:
            raise AgentRefusedError("The agent could not be reached") from error
        except (A2AError, httpx.HTTPError, ValueError) as error:
            if not self._task.id:
                raise self._to_agent_error(error) from error
        if not self._task.id:
            raise AgentLostError("The agent sent an empty reply")
        while self._task.status.state not in ENDED:
            await asyncio.sleep(POLL_SECONDS)
            try:
                self._task = await self._client.get_task(GetTaskRequest(id=self._task.id))
            except (A2AError, httpx.HTTPError, ValueError) as error:
                raise AgentLostError("The connection to the agent was lost while it worked on the task") from error
        return self._reply()

    def _take(self, event: Any) -> None:
        if event.HasField("task"):
            self._task.CopyFrom(event.task)
        elif event.HasField("status_update"):
            update = event.status_update
            self._task.id, self._task.context_id = update.task_id, update.context_id
            self._task.status.CopyFrom(update.status)
        elif event.HasField("artifact_update"):
            update = event.artifact_update
            self._task.id, self._task.context_id = update.task_id, update.context_id
            self._add_artifact(update.artifact, append=update.append)
        if self._task.ByteSize() > MAX_TEXT_CHARS:
            raise ValueError(f"the reply is longer than {MAX_TEXT_CHARS} bytes")

    def _add_artifact(self, artifact: Artifact, *, append: bool) -> None:
        known = next((one for one in self._task.artifacts if one.artifact_id == artifact.artifact_id), None)
        if known is None:
            self._task.artifacts.append(artifact)
        elif append:
            known.parts.extend(artifact.parts)
        else:
            known.CopyFrom(artifact)

    def _reply(self) -> Reply:
        task = self._task
        contents = [artifact.parts for artifact in task.artifacts]
        if task.status.HasField("message"):
            contents.append(task.status.message.parts)
        texts = [text_of(parts) for parts in contents]
        pictures = [picture for parts in contents for picture in pictures_of(parts)]
        state = TaskState.Name(task.status.state).removeprefix("TASK_STATE_").lower()
        waits = task.status.state in (TaskState.TASK_STATE_INPUT_REQUIRED, TaskState.TASK_STATE_AUTH_REQUIRED)
        context_id, task_id = task.context_id.replace("\x00", ""), task.id.replace("\x00", "")
        return Reply(state, "\n".join(filter(None, texts)), context_id, task_id if waits else "", pictures)

    @staticmethod
    def _to_agent_error(error: Exception) -> Exception:
        """AgentRefusedError if the agent answered with an error; AgentLostError if the connection broke.

        When the connection breaks, the agent may have got the message.
        """
        if isinstance(error, httpx.HTTPError | ValueError) or "timeout" in type(error).__name__.lower():
            return AgentLostError("The connection to the agent was lost")
        words = " ".join(str(error).split())[:300]
        lost = ("network", "timed out", "timeout", "connection", "http error 5", "503", "502", "504")
        if any(sign in words.lower() for sign in lost):
            return AgentLostError("The connection to the agent was lost")
        return AgentRefusedError(f"The agent answered with an error: {words}")


def pictures_of(parts: Any) -> list[bytes]:
    """The files among the parts that are pictures by their content."""
    return [part.raw for part in parts if part.WhichOneof("content") == "raw" and media_type_of(part.raw)]


def text_of(parts: Any) -> str:
    """The parts as text for the model. A file becomes a line with its name, type and size or URL."""
    lines = []
    for part in parts:
        match part.WhichOneof("content"):
            case "text":
                lines.append(part.text)
            case "data":
                lines.append(MessageToJson(part.data))
            case "url":
                lines.append(f"[{part.filename or part.media_type or 'file'}: {part.url}]")
            case "raw":
                lines.append(f"[{part.filename or 'file'}, {part.media_type}, {len(part.raw)} bytes]")
    return "".join(lines) if all(part.WhichOneof("content") == "text" for part in parts) else "\n".join(lines)
