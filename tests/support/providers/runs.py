"""Runs the agent's loop against families: a client as a runner builds it, and the short task of the tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moorage_api.agent.messages import content_text
from moorage_api.agent.model.llm import LlmClient
from moorage_api.agent.model.outgoing.request import BRIDGE
from moorage_api.outbound import Outbound
from support.agent import shell
from support.llm import Calls, Finish, Plan, Request, Say, Turn, Update
from support.providers.server import FamilyServer

BLANK = "\n\n"
"""The text of many models' answers that are calls."""

TURNS: list[Turn] = [
    Plan("Chart", "I draw a chart.", ["Draw the chart"]),
    Calls(shell("head sales.csv"), shell("wc -l sales.csv")),
    Say(BLANK, calls=[shell("python chart.py")]),
    Finish("The chart is drawn."),
    Say("Here is your chart: ünïcödé 📈"),
    Plan("Colour", "I change the colour.", ["Change the colour"]),
    Calls(shell("python chart.py --blue")),
    Finish("It is blue."),
    Say("Now it is blue."),
]
CORRECTED_TURNS: list[Turn] = [
    *TURNS[:2],
    Update(["Draw it in blue"], "I draw it in blue."),
    Calls(shell("python chart.py --blue")),
    Finish("It is blue."),
    Say("Here is your blue chart."),
]
"""The user writes while the second turn's calls run."""
COMMANDS = ["head sales.csv", "wc -l sales.csv", "python chart.py", "python chart.py --blue"]


def count_answers(request: Request) -> int:
    """The answers of models in the request. A bridge is no answer."""
    answers = [message for message in request["messages"] if message["role"] == "assistant"]
    return sum(content_text(message) != BRIDGE["content"] for message in answers)


def short_task(request: Request) -> Turn:
    """The turn of `TURNS` whose place is the number of answers in the request."""
    return TURNS[count_answers(request)]


def corrected_task(request: Request) -> Turn:
    return CORRECTED_TURNS[count_answers(request)]


@dataclass
class SharedFacts:
    """What runners have learnt about models. They outlive a runner, as in the database."""

    known: dict[str, dict[str, Any]] = field(default_factory=dict)

    def of(self, server: FamilyServer) -> dict[str, Any]:
        return self.known.setdefault(server.url, {})

    def client(self, server: FamilyServer) -> LlmClient:
        """A new client for the model of `server`, as a runner builds it."""
        kept = self.of(server)

        async def keep(facts: Mapping[str, Any]) -> None:
            kept.update(facts)

        return LlmClient(
            server.url,
            "sk-for-tests",
            server.family.model,
            backoff_seconds=0.01,
            outbound=Outbound(),
            facts=dict(kept),
            on_learnt=keep,
        )
