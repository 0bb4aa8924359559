"""Remote agents as functions of the agent: one lists their cards, one sends a message to one of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal
from uuid import UUID

from moorage_api.agent import prompts
from moorage_api.agent.ports import Attachments, Function, Switches, ToolCall, ToolResult
from moorage_api.agent.toolsets.function_schema import function, text
from moorage_api.errors import OutboundRefusedError
from moorage_api.tools.a2a.client import AgentLostError, AgentRefusedError, parse_card
from moorage_api.tools.a2a.service import A2aService, OfferedAgent
from moorage_api.tools.result_text import shorten_result, store_pictures

CARDS = function(
    "get_remote_agent_cards",
    "List the remote agents that can work for you: their ids, names, descriptions and skills.",
    {},
    read_only=True,
)
CALL = function(
    "call_remote_agent",
    "Give a remote agent a task, or answer its question, and wait for the result. The agent sees only the query.",
    {
        "id": text("The agent's id, from get_remote_agent_cards"),
        "query": text("The task or answer, with everything the agent needs to know"),
    },
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
        return [CARDS, CALL] if self._enabled_agents() else []

    def _enabled_agents(self) -> dict[str, OfferedAgent]:
        return {id_: agent for id_, agent in self._agents.items() if self._switches.is_on("a2a", id_)}

    async def call(self, call: ToolCall) -> ToolResult:
        if call.function == CARDS.name:
            cards = [describe_for_model(agent) for agent in self._enabled_agents().values()]
            return await self._reply_result(json.dumps(cards, ensure_ascii=False, indent=1))
        agent = self._enabled_agents().get(call.args["id"])
        if agent is None:
            return _failed_result(f"There is no remote agent {call.args['id'][:80]!r}; see get_remote_agent_cards")
        try:
            reply = await self._service.send(agent, self._session_id, call.args["query"])
        except AgentLostError as error:
            return ToolResult("unknown", f"{prompts.UNKNOWN_OUTCOME} ({error})", {"a2a_result": str(error)})
        except (AgentRefusedError, OutboundRefusedError) as error:
            return _failed_result(str(error))
        if reply.state == "completed":
            shown, remarks = await store_pictures(self._attachments, reply.pictures, key=call.key)
            result = await self._reply_result("\n".join([reply.text or "(no output)", *remarks]))
            return replace(result, pictures=shown)
        if reply.task_id:
            return await self._reply_result(
                f"The agent asks a question. Answer it with another call_remote_agent with the same id:\n{reply.text}"
            )
        text_for_model, content = await shorten_result(
            self._attachments, f"{reply.state}: {reply.text}", name="a2a_result"
        )
        return ToolResult("failed", text_for_model, content)

    async def _reply_result(self, text: str) -> ToolResult:
        text_for_model, content = await shorten_result(self._attachments, text, name="a2a_result")
        return ToolResult("succeeded", text_for_model, content)


def _failed_result(text: str) -> ToolResult:
    return ToolResult("failed", text, {"a2a_result": text})


def describe_for_model(agent: OfferedAgent) -> dict[str, Any]:
    """The fields of the agent's card that a model needs to choose an agent, shortened."""
    card = parse_card(agent.card)
    return {
        "id": str(agent.id),
        "name": card.name[:200],
        "description": card.description[:1000],
        "skills": [{"name": skill.name[:200], "description": skill.description[:500]} for skill in card.skills[:20]],
    }
