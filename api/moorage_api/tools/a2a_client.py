"""Speak to one remote agent: read its card, give it a task, wait for what comes of it."""

from __future__ import annotations

import asyncio
import copy
import json
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
from moorage_api.outbound import Limits, Outbound

CARD_PATHS = ("/.well-known/agent-card.json", "/.well-known/agent.json")
"""The second is where agents before 0.3 have it."""
CARD_LIMITS = Limits(256 * 1024, seconds=15)
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
"""States in which an agent does nothing until somebody speaks again."""


class AgentLostError(Exception):
    """A message was sent, or may have been, and what came of it is not known."""


class AgentRefusedError(Exception):
    """The agent did not take the message. The text is for people."""


@dataclass(frozen=True)
class Reply:
    """`task_id` is set while the agent waits for an answer to its question."""

    state: str
    text: str
    context_id: str = ""
    task_id: str = ""


async def fetch_card(outbound: Outbound, base_url: str) -> dict[str, Any]:
    """The agent's card in the JSON of protocol 1.0, whatever it was written in.

    Raises InvalidError when there is none that can be used, and OutboundRefusedError.
    """
    problem = "it does not answer"
    async with outbound.client("a2a", base_url, limits=CARD_LIMITS, timeout=CARD_LIMITS.seconds) as client:
        for path in CARD_PATHS:
            try:
                response = await client.get(f"{base_url}{path}", headers={"Accept": "application/json"})
                response.raise_for_status()
                card = json.loads(response.content)
                if "\\u0000" in json.dumps(card):  # which no database holds
                    raise ValueError("NUL")
                await check_card(outbound, base_url, card)
                card = MessageToDict(parsed_card(card))
            except httpx.HTTPStatusError as error:
                problem = f"HTTP status {error.response.status_code} for its card"
                if error.response.status_code == 404:
                    continue
                break
            except httpx.HTTPError:
                break
            except (ValueError, TypeError, ParseError, RecursionError):
                problem = "its card is none"
                break
            else:
                return dict(card)
    raise InvalidError(f"There is no A2A agent at {base_url}: {problem}")


async def check_card(outbound: Outbound, base_url: str, card: dict[str, Any]) -> None:
    """Raises InvalidError for an agent that we can't speak to, and OutboundRefusedError."""
    parsed = parsed_card(card)
    if not parsed.supported_interfaces:
        raise InvalidError(f"The agent at {base_url} speaks neither JSON-RPC nor HTTP+JSON")
    for interface in parsed.supported_interfaces:
        await outbound.check("a2a", interface.url, named_by=base_url)


def parsed_card(card: dict[str, Any]) -> AgentCard:
    """The card with those of its interfaces that we can use. Raises ParseError."""
    parsed = parse_agent_card(copy.deepcopy(card))  # which changes what it reads
    usable = [one for one in parsed.supported_interfaces if one.protocol_binding in BINDINGS]
    del parsed.supported_interfaces[:]
    parsed.supported_interfaces.extend(usable)
    return parsed


class RemoteAgent:
    """One conversation with an agent. The connection is made for each message."""

    def __init__(self, outbound: Outbound, base_url: str, card: dict[str, Any]) -> None:
        self._outbound = outbound
        self._base_url = base_url
        self._card = parsed_card(card)
        # the sort keeps the agent's own order within a protocol
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
    """Send one message and gather what comes, as a stream or by asking again."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._task = Task()
        self._said: list[str] = []

    async def run(self, message: Message) -> Reply:
        try:
            async for event in self._client.send_message(SendMessageRequest(message=message)):
                if event.HasField("message"):
                    context_id = event.message.context_id.replace("\x00", "")
                    return Reply("completed", text_of(event.message.parts), context_id)
                self._take(event)
        except httpx.ConnectError as error:
            raise AgentRefusedError("The agent could not be reached") from error
        except (A2AError, httpx.HTTPError, ValueError) as error:
            if not self._task.id:
                raise self._explained(error) from error
        if not self._task.id:
            raise AgentLostError("The agent answered nothing")
        while self._task.status.state not in ENDED:
            await asyncio.sleep(POLL_SECONDS)
            try:
                self._task = await self._client.get_task(GetTaskRequest(id=self._task.id))
            except (A2AError, httpx.HTTPError, ValueError) as error:
                raise AgentLostError("The agent was lost while it worked") from error
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
            raise ValueError("too much")

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
        said = [text_of(artifact.parts) for artifact in task.artifacts]
        if task.status.HasField("message"):
            said.append(text_of(task.status.message.parts))
        state = TaskState.Name(task.status.state).removeprefix("TASK_STATE_").lower()
        waits = task.status.state in (TaskState.TASK_STATE_INPUT_REQUIRED, TaskState.TASK_STATE_AUTH_REQUIRED)
        context_id, task_id = task.context_id.replace("\x00", ""), task.id.replace("\x00", "")
        return Reply(state, "\n".join(filter(None, said)), context_id, task_id if waits else "")

    @staticmethod
    def _explained(error: Exception) -> Exception:
        """An answer that is an error was an answer; a connection that broke may have come too late."""
        if isinstance(error, httpx.HTTPError | ValueError) or "timeout" in type(error).__name__.lower():
            return AgentLostError("The connection to the agent was lost")
        words = " ".join(str(error).split())[:300]
        lost = ("network", "timed out", "timeout", "connection", "http error 5", "503", "502", "504")
        if any(sign in words.lower() for sign in lost):
            return AgentLostError("The connection to the agent was lost")
        return AgentRefusedError(f"The agent answered with an error: {words}")


def text_of(parts: Any) -> str:
    """What a model can read of it; files are named."""
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
