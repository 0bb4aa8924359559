"""A platform that tests of remote tools share, and turns in which its scripted model calls them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from support.accounts import Person
from support.llm import Call, Finish, Plan, Say, ScriptedModel, Turn
from support.processes import Platform
from support.sse import Chat


@dataclass
class ToolsWorld:
    """`scripts` holds the model's turns, by words of the first message."""

    platform: Platform
    url: str
    model: ScriptedModel
    scripts: list[tuple[str, Sequence[Turn]]] = field(default_factory=list)

    async def chat(self, person: Person, words: str, *calls: Call) -> Chat:
        """Run one turn of a new session in which the model makes these calls in sequence."""
        self.scripts.append((words, [Plan("Task", "I will.", ["Do it"]), *calls, Finish("done"), Say("That was it.")]))
        chat = Chat(await person.create_session(), person.token, lambda: self.url)
        ending = await chat.say(words)
        assert ending.event == "done", ending
        return chat

    def offered_functions(self, words: str) -> list[str]:
        """The functions that the model could call in the turn that began with these words."""
        request = next(
            one
            for one in reversed(self.model.requests)
            if any(str(message["content"]) == words for message in one["messages"]) and len(one.get("tools", ())) > 2
        )
        return [tool["function"]["name"] for tool in request["tools"]]


def find_called(chat: Chat, function: str) -> dict[str, Any]:
    """The finished tool event of that function."""
    (event,) = [one for one in chat.all("tool", status="called") if one["function"] == function]
    return event
