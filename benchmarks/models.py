"""What a model's provider can answer from its cache, and how many calls a task needs.

Method: the agent's real loop, with a scripted model over a real socket and a sandbox in memory. Each request is
compared with the one before, byte by byte in the order in which providers key their caches: tools, then messages, of
which the first is the system prompt; the marks of `cache_control` do not count. The share is the length of the common
beginning divided by the length of the request before: 100 % means that nothing is lost that could be used again. A row
sums both lengths over all requests of the trace, those for summaries too. The note gives the lowest share of one
request, and the common beginning divided by the length of the request itself.

The trace of 50 turns has three messages of the user: two steps of eight calls each; a step that fails after five calls
and the new plan for it with five more; a step of twelve calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from benchmarks.rows import Row
from moorage_api.agent.ports import AgentLimits, GateResult
from support.agent import Bench, shell, shell_output
from support.llm import Finish, Plan, Request, Say, ScriptedModel, Turn, Update
from support.prefix import is_summary_request, shared_bytes, to_bytes

CALLS = 3
WINDOW = 64_000
SHORT, LONG = 2_000, 12_000
"""Characters of a call's result. The long ones overflow the window several times, and each summary costs the cache."""
AIM = ">= 95"


def step(calls: int) -> list[Turn]:
    return [*(shell(f"echo {number}") for number in range(calls)), Finish("done")]


def task(steps: int, calls: int) -> list[Turn]:
    plan = Plan("Task", "I will.", [f"Step {number}" for number in range(steps)])
    return [plan, *(turn for _ in range(steps) for turn in step(calls)), Say("That was it.")]


def failing_task(calls: int) -> list[Turn]:
    first = [*step(calls)[:-1], Finish("no", success=False)]
    return [Plan("Task", "I will.", ["Try"]), *first, Update(["Try again"]), *step(calls), Say("That was it.")]


TRACE = [task(2, 8), failing_task(5), task(1, 12)]


async def requests_of(tasks: Sequence[Sequence[Turn]], *, result_chars: int) -> list[Request]:
    """The requests of one session in which the user gives these tasks one after the other."""
    coming = iter([turn for turns in tasks for turn in turns])

    def answer(request: Request) -> Turn:
        return Say("So far: nothing.") if is_summary_request(request) else next(coming)

    with ScriptedModel(answer, chunk_chars=10_000) as model:
        bench = Bench(model, context_tokens=WINDOW, limits=AgentLimits())
        count = 0

        def print_lines(*_: object) -> GateResult:
            nonlocal count
            count += 1
            return shell_output(f"{count:05d}\n" * (result_chars // 6))

        bench.gate.answer = print_lines
        for number, _ in enumerate(tasks):
            bench.log.say(f"Task {number}")
            await bench.run()
            assert bench.log.types()[-1] == "done", bench.log.events[-1]
        return model.requests


def share_row(name: str, requests: Sequence[Request], *, aim: str = AIM) -> Row:
    pairs = [
        (shared_bytes(before, now), len(to_bytes(before)), len(to_bytes(now))) for before, now in pairwise(requests)
    ]
    shared, before, now = (sum(column) for column in zip(*pairs, strict=True))
    lowest = min(100 * one / old for one, old, _ in pairs)
    summaries = sum(map(is_summary_request, requests))
    note = f"lowest {lowest:.1f} %, of the request itself {100 * shared / now:.1f} %, {len(requests)} requests"
    if summaries:
        note += f" with {summaries} summaries"
    return Row(name, "%", [100 * shared / before], aim, note)


async def measure() -> list[Row]:
    rows = []
    for chars in (SHORT, LONG):
        requests = await requests_of(TRACE, result_chars=chars)
        name = f"prefix kept, 50 turns, results of {chars:,} characters"
        rows.append(share_row(name, requests, aim=AIM if chars == SHORT else ""))
    for steps in (1, 3, 5):
        requests = await requests_of([task(steps, CALLS)], result_chars=SHORT)
        rows.append(share_row(f"prefix kept, task of {steps} steps of {CALLS} calls", requests))
        aim = f"<= {2 + steps * (CALLS + 1)}"
        rows.append(Row(f"model calls, task of {steps} steps of {CALLS} calls", "calls", [len(requests)], aim))
    return rows
