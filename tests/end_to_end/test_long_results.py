"""A long result of a tool is a file in the real sandbox, and the model can read the part that it did not get."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from moorage_sandbox.protocol import OUTPUTS, WORKSPACE
from support.accounts import Person
from support.llm import Call, Finish, Plan, Say, ScriptedModel, Turn
from support.processes import Platform
from support.sse import Chat

FILE = f"{WORKSPACE}/lines.txt"
KEPT = f"{OUTPUTS}/call00003.txt"
"""Named after the third call of the session: the search."""
LINES = 200
IN_THE_MIDDLE = "needle 0110"
FILLER = "with some more words, so that not all of the matches fit into one result"


def script() -> list[Turn]:
    lines = "".join(f"needle {number:04} {FILLER}\n" for number in range(LINES))
    return [
        Plan("Lines", "I will search.", ["Search"]),
        Call("write_file", {"filepath": FILE, "content": lines}),
        Call("search_in_file", {"filepath": FILE, "regex": "needle"}),
        Call("search_in_file", {"filepath": KEPT, "regex": IN_THE_MIDDLE}),
        Finish("Found."),
        Say("There are many."),
    ]


async def test_the_middle_of_a_long_result_can_be_read(
    platform: Platform, use_model: Callable[[str], None], new_user: Callable[[str], Awaitable[Person]]
) -> None:
    with ScriptedModel(script()) as model:
        use_model(model.url)
        api = await platform.start_api()
        await asyncio.gather(platform.start_runner(), platform.start_host())
        alice = await new_user(api.url)
        chat = Chat(await alice.create_session(), alice.token, lambda: api.url)
        ending = await chat.say("Search")
        assert ending.event == "done", ending.data

    searched, found = (str(model.requests[place]["messages"][-1]["content"]) for place in (3, 4))
    assert KEPT in searched
    assert "needle 0000" in searched
    assert f"needle {LINES - 1:04}" in searched
    assert IN_THE_MIDDLE not in searched
    assert IN_THE_MIDDLE in found
