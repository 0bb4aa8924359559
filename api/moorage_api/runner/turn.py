"""Carry out one turn of a leased run: build what the agent needs, and report every failure as an `error` event."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import uuid4

from moorage_api.agent import prompts
from moorage_api.agent.messages import user_message
from moorage_api.agent.model.incoming.answers import AnswerLimits
from moorage_api.agent.model.patience import Timing
from moorage_api.agent.model.servers.listing import ListingFailures
from moorage_api.agent.ports import AgentLimits, Switches, Toolset
from moorage_api.agent.toolsets import default_toolsets
from moorage_api.agent.turn.loop import run_turn
from moorage_api.config.client import build_client
from moorage_api.config.service import ConfigService
from moorage_api.database import Database
from moorage_api.errors import DomainError, FencedError
from moorage_api.events.schemas import ErrorEvent
from moorage_api.outbound import Outbound
from moorage_api.runner.attachments import AttachmentStores, SandboxAttachments
from moorage_api.runner.journal import RunJournal, UnreadMessagesError
from moorage_api.runner.sandbox_link import SandboxLink, SandboxLinks
from moorage_api.skill_runs.delegates import A2aDelegate, McpDelegate
from moorage_api.skill_runs.ports import SkillDelegate
from moorage_api.skill_runs.run import RunSkills, SkillRuns
from moorage_api.tools.a2a.service import A2aService
from moorage_api.tools.a2a.toolset import A2aToolset
from moorage_api.tools.mcp.service import McpService
from moorage_api.tools.mcp.toolset import McpToolset
from moorage_api.tools.switches import UserSwitches
from moorage_api.usage.service import UsageService

logger = logging.getLogger(__name__)

NO_MODEL = (
    "No model is configured yet: an admin can set one with POST /api/app-config/llm (`base_url`, `model_name`, "
    "`api_key`), or start Moorage with MOORAGE_LLM_BASE_URL, MOORAGE_LLM_MODEL and MOORAGE_LLM_API_KEY"
)


@dataclass(frozen=True)
class Turns:
    """Carries out turns. One for each runner process."""

    db: Database
    config: ConfigService
    usage: UsageService
    mcp: McpService
    a2a: A2aService
    skills: SkillRuns
    links: SandboxLinks
    stores: AttachmentStores
    outbound: Outbound
    limits: AgentLimits
    """The limits that are settings; AgentConfig holds the others."""
    searxng_url: str | None
    timing: Timing
    """How long to wait for the model's server."""
    context_tokens: int | None
    """The size of the model's window; None to learn it."""
    listing_failures: ListingFailures
    answer_limits: AnswerLimits

    async def work_on(self, journal: RunJournal) -> None:
        """Work until the journal holds an event that ends the run. Raises FencedError and UnreadMessagesError."""
        try:
            await self._work_on(journal)
        except (FencedError, UnreadMessagesError):
            raise
        except DomainError as error:
            await _fail(journal, ErrorEvent(error=str(error), code=error.code))
        except Exception as error:  # outermost level of a run: its stream must always end with an event
            number = uuid4().hex
            logger.error("A turn failed unexpectedly (error %s)", number, exc_info=error)
            message = f"An internal error occurred. Send a message to try again, or report error {number}"
            await _fail(journal, ErrorEvent(error=message, code="internal"))

    async def _work_on(self, journal: RunJournal) -> None:
        llm_config, agent_config = await self.config.llm(), await self.config.agent()
        if not llm_config.is_complete:
            await _fail(journal, ErrorEvent(error=NO_MODEL, code="llm_not_configured"))
            return
        prices = await self.usage.price_list()
        text = " ".join(message.text for message in await journal.unread_messages())
        skills = await self.skills.open(journal.session_id, journal.owner_id, message=text)
        link = self.links.link(journal, pins=skills.pins_for, skills=skills.sync)
        attachments = self.stores.attachments(journal, link)
        limits = replace(
            self.limits,
            max_iterations=agent_config.max_iterations,
            max_retries=agent_config.max_retries,
            max_search_results=agent_config.max_search_results,
        )
        switches = UserSwitches(self.db, journal.owner_id)
        try:
            async with build_client(
                llm_config,
                outbound=self.outbound,
                timing=self.timing,
                context_tokens=self.context_tokens,
                facts=await self.config.model_facts(llm_config.identity),
                on_learnt=lambda facts: self.config.add_model_facts(llm_config.identity, facts),
                on_start=lambda call: journal.begin_model_call(prices.apply(call)),
                read_picture=self.stores.picture_store(journal.session_id).read,
                listing_failures=self.listing_failures,
                answer_limits=self.answer_limits,
                on_call=lambda call: journal.add_model_call(prices.apply(call)),
            ) as llm:
                await llm.read_window()
                toolsets = default_toolsets(
                    link, attachments, max_search_results=limits.max_search_results, searxng_url=self.searxng_url
                )
                toolsets += await self._remote_toolsets(journal, link, attachments, skills, switches)
                await run_turn(
                    journal,
                    llm=llm,
                    toolsets=toolsets,
                    attachments=attachments,
                    gate=link,
                    limits=limits,
                    switches=switches,
                    today=f"{datetime.now(UTC):%A, %Y-%m-%d}",
                    guidance=skills.guidance(),
                )
        finally:
            await link.close()

    async def _remote_toolsets(
        self,
        journal: RunJournal,
        link: SandboxLink,
        attachments: SandboxAttachments,
        skills: RunSkills,
        switches: Switches,
    ) -> list[Toolset]:
        """Build the toolsets of the remote agents and MCP servers that are enabled for this user, and of the skills.

        MCP servers come last: they may have any number of tools, and the list that the model gets is cut at a limit.
        """
        servers, agents = await self.mcp.list_for_run(journal.owner_id), await self.a2a.list_for_run(journal.owner_id)
        delegates: list[SkillDelegate] = [
            McpDelegate(self.mcp, servers, attachments, switches),
            A2aDelegate(self.a2a, agents, journal.session_id, attachments, switches),
        ]
        return [
            A2aToolset(self.a2a, agents, journal.session_id, attachments, switches),
            skills.toolset(link, attachments, delegates, switches, prepare=link.ready),
            McpToolset(self.mcp, servers, attachments, switches),
        ]


async def _fail(journal: RunJournal, event: ErrorEvent) -> None:
    """End the run with an error. Unread messages count as read; otherwise the run would restart and fail forever.

    The model finds them in the transcript in the next turn, except if the result of a call has to come first.
    """
    unread = await journal.unread_messages()
    answerable = [] if journal.state.get("calls") else unread
    await journal.record(
        event,
        messages=[user_message(prompts.message_text(message.text, [], message.attachments)) for message in answerable],
        consumed_seq=unread[-1].seq if unread else None,
    )
