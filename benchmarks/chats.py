"""The latency of a chat at the client, with a model that answers immediately.

Method: one api, one runner and one host process, a scripted model over a real socket without delay. "First frame" is
from sending POST …/chat to the first frame's arrival, on a session that has a sandbox, over a kept-alive connection.
The overhead of a tool call is what lies between the `calling` and the `called` frame of `shell_execute("true NUMBER")`;
a whole model turn with one tool call is from one `called` frame to the next.
"""

from __future__ import annotations

import time
from itertools import pairwise

from benchmarks.rows import Row
from support.accounts import Person
from support.llm import Call, Finish, Plan, Say, Turn
from support.sse import Frame, frames

CALLS = 80
CHATS = 40


def tool_script() -> list[Turn]:
    """Each call differs from the one before: a run whose calls repeat is ended."""
    place = {"session_id": "main", "exec_dir": "/home/ubuntu"}
    calls = [Call("shell_execute", {**place, "command": f"true {number}"}) for number in range(CALLS)]
    return [Plan("Calls", "I call.", ["Call"]), *calls, Finish("done"), Say("Done.")]


async def timed_chat(alice: Person, session_id: str, message: str) -> list[tuple[float, Frame]]:
    """The frames, each with the seconds from the request until it arrived."""
    seen = []
    began = time.perf_counter()
    async with alice.client.stream("POST", f"/api/sessions/{session_id}/chat", json={"message": message}) as response:
        response.raise_for_status()
        async for frame in frames(response):
            seen.append((time.perf_counter() - began, frame))
    return seen


async def tool_overhead(alice: Person) -> list[Row]:
    session_id = await alice.create_session()
    seen = await timed_chat(alice, session_id, "call")
    assert seen[-1][1].event == "done", seen[-1][1]
    calling = [at for at, frame in seen if frame.data.get("status") == "calling"]
    called = [at for at, frame in seen if frame.data.get("status") == "called"]
    assert len(calling) == len(called) == CALLS
    overhead = [(after - before) * 1000 for before, after in zip(calling, called, strict=True)][1:]
    turns = [(after - before) * 1000 for before, after in pairwise(called)]
    return [
        Row("one tool call, calling to called frame", "ms", overhead, "<= 10 p50", "model at 0 ms, without the first"),
        Row("one model turn with a tool call, whole", "ms", turns, "", "called frame to called frame"),
    ]


async def first_frame(alice: Person) -> Row:
    samples = []
    session_id = await alice.create_session()
    for number in range(CHATS):
        seen = await timed_chat(alice, session_id, f"hello {number}")
        samples.append(seen[0][0] * 1000)
    return Row("first SSE frame after POST chat", "ms", samples, "<= 30")
