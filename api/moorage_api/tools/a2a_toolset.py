"""Remote agents as the agent sees them: a list of cards, and one function to give one of them a task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID

from moorage_api.agent import prompts
from moorage_api.agent.ports import Attachments, Function, Switches, ToolCall, ToolResult
from moorage_api.agent.toolsets.schema import function, text
from moorage_api.errors import OutboundRefusedError
from moorage_api.tools.a2a_client import AgentLostError, AgentRefusedError, parsed_card
from moorage_api.tools.a2a_service import A2aService, OfferedAgent
from moorage_api.tools.outputs import kept_text

CARDS = function(
    "get_remote_agent_cards",
    "List the remote agents that can be given tasks: their ids, names, what they do and are good at.",
    {},
    read_only=True,
)
CALL = function(
    "call_remote_agent",
    "Give a remote agent a task, or answer its question, and wait for the result. It sees nothing but the query.",
    {"id": text("The agent's id, from get_remote_agent_cards"), "query": text("The task, complete in itself")},
)


class A2aToolset:
    def __init__(
        self,
        service: A2aService,
        agents: Sequence[OfferedAgent],
        session_id: UUID,
        attachments: Attachments,
        switches: Switches,
    ) -> None:
        self._service = service
        self._agents = {str(agent.id): agent for agent in agents}
        self._session_id = session_id
        self._attachments = attachments
        self._switches = switches

    @property
    def name(self) -> Literal["a2a"]:
        return "a2a"

    def functions(self) -> Sequence[Function]:
        return [CARDS, CALL] if self._on() else []

    def _on(self) -> dict[str, OfferedAgent]:
        return {id_: agent for id_, agent in self._agents.items() if self._switches.is_on("a2a", id_)}

    async def call(self, call: ToolCall) -> ToolResult:
        if call.function == CARDS.name:
            said = json.dumps([described(agent) for agent in self._on().values()], ensure_ascii=False, indent=1)
            return await self._succeeded(said)
        agent = self._on().get(call.args["id"])
        if agent is None:
            return _failed(f"There is no remote agent {call.args['id'][:80]!r}; see get_remote_agent_cards")
        try:
            reply = await self._service.send(agent, self._session_id, call.args["query"])
        except AgentLostError as error:
            return ToolResult("unknown", f"{prompts.UNKNOWN_OUTCOME} ({error})", {"a2a_result": str(error)})
        except (AgentRefusedError, OutboundRefusedError) as error:
            return _failed(str(error))
        if reply.state == "completed":
            return await self._succeeded(reply.text or "(no output)")
        if reply.task_id:
            asked = f"The agent asks, and waits for the answer in another call_remote_agent with its id:\n{reply.text}"
            return await self._succeeded(asked)
        told, content = await kept_text(self._attachments, f"{reply.state}: {reply.text}", name="a2a_result")
        return ToolResult("failed", told, content)

    async def _succeeded(self, said: str) -> ToolResult:
        told, content = await kept_text(self._attachments, said, name="a2a_result")
        return ToolResult("succeeded", told, content)


def _failed(text: str) -> ToolResult:
    return ToolResult("failed", text, {"a2a_result": text})


def described(agent: OfferedAgent) -> dict[str, Any]:
    """What a model needs to choose. The words are the agent's own."""
    card = parsed_card(agent.card)
    return {
        "id": str(agent.id),
        "name": card.name[:200],
        "description": card.description[:1000],
        "skills": [{"name": skill.name[:200], "description": skill.description[:500]} for skill in card.skills[:20]],
    }
