"""A scripted model that passes every part of a trial of a model, and the parts that a test breaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from support.llm import Call, Plan, Request, Responder, Say, Turn

WILLING: Mapping[str, Turn] = {
    "plan": Plan("Hello", "I will write the file.", ["Write hello.txt", "Read hello.txt"]),
    "call": Call("look_up", {"harbour": "Bergen"}),
    "answer": Say("The number of Bergen is 4711."),
    "streaming": Say("one, two, three, four, five, six"),
    "picture": Say("Orange."),
    "window": Say("4711"),
}


def part_of(request: Request) -> str:
    """The key of `WILLING` that the request of a trial is for."""
    names = {tool["function"]["name"] for tool in request.get("tools", ())}
    messages = request["messages"]
    if "make_plan" in names:
        return "plan"
    if "look_up" in names:
        return "answer" if messages[-1]["role"] == "tool" else "call"
    if isinstance(messages[-1]["content"], list):
        return "picture"
    return "window" if len(messages) > 2 else "streaming"


def willing(**changes: Any) -> Responder:
    """Answers each part of a trial as `WILLING` does, with other turns for the keys in `changes`."""
    turns = {**WILLING, **changes}

    def choose(request: Request) -> Turn:
        turn: Turn = turns[part_of(request)]
        return turn

    return choose
